//! The file layer: the few operations that the journal does on files.
//!
//! Owns: the traits, the real directory behind them and its lock. Never: knows a format, retries, or decides what
//! a failure means.
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One flat directory of files.
///
/// A name that was created, renamed or removed is only sure to be so after a crash once [`Disk::sync_dir`]
/// answered.
pub trait Disk: Send + Sync + 'static {
    /// What to call the directory in a message to a person.
    fn place(&self) -> String;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file of that name; one that exists is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// A file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives the file a new name; a file that has that name already is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes the name; those who have the file open keep it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads at `offset` (bytes); answers how many bytes, 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset` (bytes); answers how many bytes were taken, which may be fewer than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written, and the length, durable. After an error nothing written since the last success may
    /// be trusted, however often it is called again. Answers how long it took; zero where no time goes by.
    fn sync(&self) -> io::Result<Duration>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file to that many bytes.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
}

/// Writes all of `bytes`, going on after a short write.
pub(crate) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(taken) => {
                bytes = &bytes[taken..];
                offset += taken as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends; answers how many bytes.
pub(crate) fn read_full(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process works in it; stop that one, or choose another directory.
    #[error("data directory {dir} is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refuses it.
    #[error("data directory {dir} cannot be used")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A directory of the operating system, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    handle: File,
    _lock: File,
}

const LOCK: &str = "lock";

impl RealDisk {
    /// Creates the directory if it is missing and locks it.
    pub fn open(dir: &Path) -> Result<RealDisk, DirError> {
        let failed = |source| DirError::Io { dir: dir.to_path_buf(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirError::InUse { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let handle = File::open(dir).map_err(failed)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The directory itself is a name in its parent.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        Ok(RealDisk { dir: dir.to_path_buf(), handle, _lock: lock })
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is no text is not ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a real disk takes real time; tests bring a disk of their own"
    )]
    fn sync(&self) -> io::Result<Duration> {
        let before = Instant::now();
        self.0.sync_data()?;
        Ok(before.elapsed())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}
