//! The mails that were taken, one file each, in the manner of a maildir.
//!
//! Owns: the folders `tmp` and `new`, the file names, reading mails back. A mail appears in `new` whole and on disk,
//! or not at all. Never: drops a mail that came before; the same message twice is two files.
//!
//! A file is two lines of our own, `X-Envelope-From` and `X-Envelope-To`, and then the message as it came.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use mail_parser::{Address, MessageParser};
use serde::Serialize;

use super::session::Envelope;

const FROM_LINE: &str = "X-Envelope-From: ";
const TO_LINE: &str = "X-Envelope-To: ";

/// A mail that the server took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mail {
    /// Its file name. Names sort in the order of arrival.
    pub file: String,
    /// When it was taken.
    pub at: Timestamp,
    /// The sender of the envelope.
    pub envelope_from: String,
    /// The recipients of the envelope: where it really went.
    pub envelope_to: Vec<String>,
    /// `Message-ID`, without its angle brackets.
    pub message_id: Option<String>,
    /// `From`: the addresses alone.
    pub from: Vec<String>,
    /// `To`: the addresses alone.
    pub to: Vec<String>,
    /// `Subject`, decoded.
    pub subject: String,
    /// The first text body, decoded.
    pub body_text: String,
}

/// The mails can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum MailReadError {
    /// The file system refused.
    #[error("cannot read mails at {}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file is not as this server writes it.
    #[error("{} is not a mail of this server", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
}

/// A handle to the folders. Clones share the numbering.
#[derive(Clone, Debug)]
pub(crate) struct MailStore {
    dir: PathBuf,
    taken: Arc<AtomicU64>,
}

impl MailStore {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("new"))?;
        // What is left in tmp belongs to mails that were never acknowledged.
        match fs::remove_dir_all(dir.join("tmp")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        fs::create_dir_all(dir.join("tmp"))?;
        let mut highest = 0;
        for entry in fs::read_dir(dir.join("new"))? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.split_once('-'))
                .and_then(|(number, _)| number.parse().ok());
            highest = highest.max(number.unwrap_or(0));
        }
        Ok(Self { dir: dir.to_owned(), taken: Arc::new(AtomicU64::new(highest)) })
    }

    /// Stores a mail; on return it is on disk. Blocks.
    pub(crate) fn keep(&self, envelope: &Envelope, message: &[u8]) -> io::Result<()> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{number:08}-{}.eml", Timestamp::now().as_microsecond());
        let (draft, kept) = (self.dir.join("tmp").join(&name), self.dir.join("new").join(&name));
        let mut file = File::create_new(&draft)?;
        write!(file, "{FROM_LINE}{}\r\n{TO_LINE}{}\r\n", envelope.from, envelope.to.join(", "))?;
        file.write_all(message)?;
        file.sync_all()?;
        fs::rename(&draft, &kept)?;
        File::open(self.dir.join("new"))?.sync_all()
    }

    pub(crate) fn mails(&self) -> Result<Vec<Mail>, MailReadError> {
        read_mails(&self.dir)
    }
}

/// Reads all mails in the order of arrival. No folder is no mails. Blocks.
pub(crate) fn read_mails(dir: &Path) -> Result<Vec<Mail>, MailReadError> {
    let new = dir.join("new");
    let failed = |source| MailReadError::Io { path: new.clone(), source };
    let entries = match fs::read_dir(&new) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    paths.sort();
    paths.iter().map(|path| read_mail(path)).collect()
}

fn read_mail(path: &Path) -> Result<Mail, MailReadError> {
    let bytes = fs::read(path).map_err(|source| MailReadError::Io { path: path.to_owned(), source })?;
    parse(path, &bytes).ok_or_else(|| MailReadError::Foreign { path: path.to_owned() })
}

fn parse(path: &Path, bytes: &[u8]) -> Option<Mail> {
    let file = path.file_name()?.to_str()?.to_owned();
    let micros = file.strip_suffix(".eml")?.split_once('-')?.1.parse().ok()?;
    let (from_line, bytes) = split_line(bytes)?;
    let (to_line, message) = split_line(bytes)?;
    let envelope_to = to_line.strip_prefix(TO_LINE)?.split(", ").map(str::to_owned).collect();
    let parsed = MessageParser::default().parse(message);
    let parsed = parsed.as_ref();
    Some(Mail {
        at: Timestamp::from_microsecond(micros).ok()?,
        envelope_from: from_line.strip_prefix(FROM_LINE)?.to_owned(),
        envelope_to,
        message_id: parsed.and_then(|mail| mail.message_id()).map(str::to_owned),
        from: parsed.and_then(|mail| mail.from()).map(addresses).unwrap_or_default(),
        to: parsed.and_then(|mail| mail.to()).map(addresses).unwrap_or_default(),
        subject: parsed.and_then(|mail| mail.subject()).unwrap_or_default().to_owned(),
        body_text: parsed.and_then(|mail| mail.body_text(0)).unwrap_or_default().into_owned(),
        file,
    })
}

fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 2..]))
}

fn addresses(header: &Address<'_>) -> Vec<String> {
    header.iter().filter_map(|one| one.address()).map(str::to_owned).collect()
}
