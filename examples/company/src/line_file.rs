//! Append-only files of JSON lines: what a service accepted, in order.
//!
//! Owns: that a line is on disk before its append returns, and that half a line is never read as one.
//! Never: rewrites or drops a whole line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A file of lines can't be read or opened.
#[derive(Debug, thiserror::Error)]
pub enum LineFileError {
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A whole line does not read as what the file should hold: somebody else wrote to it.
    #[error("{} holds something foreign in line {line}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why it does not read.
        source: serde_json::Error,
    },
}

/// An append-only file, open for appending.
#[derive(Debug)]
pub(crate) struct LineFile {
    file: File,
    length_bytes: u64,
    /// Why it takes no more lines, if so.
    refuses: Option<&'static str>,
}

impl LineFile {
    /// Opens the file, creates it if there is none, and gives the lines that it holds.
    ///
    /// Half a line at the end belongs to an append that was never answered: it is cut off.
    pub(crate) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), LineFileError> {
        let failed = |source| LineFileError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let bytes = std::fs::read(path).map_err(failed)?;
        let whole = whole_lines(&bytes);
        let lines = parse(path, whole)?;
        let length_bytes = whole.len() as u64;
        if whole.len() < bytes.len() {
            file.set_len(length_bytes).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        Ok((Self { file, length_bytes, refuses: None }, lines))
    }

    /// Appends one line and waits until it is on disk.
    ///
    /// After an error the line does not count: what reached the file is cut off again.
    pub(crate) fn append<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        if let Some(reason) = self.refuses {
            return Err(io::Error::other(reason));
        }
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if self.file.set_len(self.length_bytes).is_err() {
                // Another line behind half a line would be read as part of it.
                self.refuses = Some("an earlier append left half a line behind");
            }
            return Err(error);
        }
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Takes no more lines: the file may belong to somebody else from now on.
    pub(crate) fn close(&mut self) {
        self.refuses = Some("the service has stopped");
    }
}

/// Reads the whole lines of a file that a running service may be appending to. No file is no lines.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LineFileError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, whole_lines(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LineFileError::Io { path: path.to_owned(), source }),
    }
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Vec<T>, LineFileError> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_slice(line).map_err(|source| LineFileError::Foreign {
                path: path.to_owned(),
                line: at + 1,
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_and_half_a_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        let (mut file, before) = LineFile::open::<u32>(&path).unwrap();
        assert!(before.is_empty());
        file.append(&1).unwrap();
        file.append(&2).unwrap();
        drop(file);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"3").unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), [1, 2]);
        let (mut file, lines) = LineFile::open::<u32>(&path).unwrap();
        assert_eq!(lines, [1, 2]);
        file.append(&4).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), [1, 2, 4]);
    }

    #[test]
    fn a_foreign_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        std::fs::write(&path, "1\nnot a number\n3\n").unwrap();
        let error = LineFile::open::<u32>(&path).unwrap_err();
        assert!(matches!(error, LineFileError::Foreign { line: 2, .. }), "{error}");
    }
}
