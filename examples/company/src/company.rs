//! The whole company: starts everything in one folder, says where it is, stops it.
//!
//! Owns: the folder and its lock, the order of starting, the addresses. Never: acts on its own services.

use std::{
    fs::{File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    erp::{Erp, ErpError},
    faults::{FaultError, Faults, Knobs},
    line_file::LineFileError,
    listener::HttpServer,
    mailbox::{self, MailLogin, MailStore, SmtpServer},
    postings::{self, PostingBook},
    reality::{ReadError, Reality},
    seed,
    shelf::Shelf,
    shop_north, shop_south,
};

/// The ports to listen on, on 127.0.0.1. Zero lets the operating system choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// HTTP of the north shop.
    pub shop_north: u16,
    /// HTTP of the south shop.
    pub shop_south: u16,
    /// HTTP of accounting.
    pub postings: u16,
    /// HTTP of the mail server.
    pub webmail: u16,
    /// SMTP of the mail server.
    pub smtp: u16,
}

/// What clients must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The bearer token of the north shop.
    pub north_token: String,
    /// The `X-Api-Key` of the south shop.
    pub south_key: String,
    /// The login of the SMTP server; None takes mail from everybody.
    pub mail: Option<MailLogin>,
}

/// The faults that each service starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFaults {
    /// Of the north shop.
    pub shop_north: Faults,
    /// Of the south shop.
    pub shop_south: Faults,
    /// Of accounting.
    pub postings: Faults,
    /// Of the SMTP server.
    pub smtp: Faults,
}

/// How to start a company. The default: free ports, demo credentials, no faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompanyOptions {
    /// Where to listen.
    pub ports: Ports,
    /// What clients must show.
    pub credentials: Credentials,
    /// What goes wrong from the start.
    pub faults: ServiceFaults,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Base URL of the north shop, without a slash at the end.
    pub shop_north: String,
    /// Base URL of the south shop.
    pub shop_south: String,
    /// Base URL of accounting.
    pub postings: String,
    /// Base URL of the mail server's HTTP side.
    pub webmail: String,
    /// Address of the SMTP server.
    pub smtp: SocketAddr,
    /// The ERP's SQLite file.
    pub erp: PathBuf,
}

/// The company can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process, or another company in this one, works in the folder.
    #[error("another company runs in {}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder can't be used.
    #[error("cannot use {}", path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A port can't be listened on.
    #[error("{service} cannot listen on port {port}")]
    Port {
        /// Which service.
        service: &'static str,
        /// The port that was asked for.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// A write log or the book of postings is damaged.
    #[error(transparent)]
    Lines(#[from] LineFileError),
    /// The ERP can't be created or is of another version.
    #[error(transparent)]
    Erp(#[from] ErpError),
    /// The faults to start with are over a limit.
    #[error(transparent)]
    Faults(#[from] FaultError),
}

/// The files of a company.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) lock: PathBuf,
    pub(crate) north: PathBuf,
    pub(crate) south: PathBuf,
    pub(crate) postings: PathBuf,
    pub(crate) erp: PathBuf,
    pub(crate) mails: PathBuf,
}

/// A running company. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Company {
    dir: PathBuf,
    addresses: Addresses,
    servers: [HttpServer; 4],
    smtp: SmtpServer,
    knobs: ServiceKnobs,
    writers: Writers,
    /// Released when the company is gone: a field after the writers.
    _lock: File,
}

/// Those who append to files. A request that outlives the company must not write into its successor's folder.
#[derive(Debug)]
struct Writers {
    north: Shelf,
    south: Shelf,
    book: PostingBook,
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.north.close();
        self.south.close();
        self.book.close();
    }
}

#[derive(Debug, Default)]
struct ServiceKnobs {
    shop_north: Knobs,
    shop_south: Knobs,
    postings: Knobs,
    smtp: Knobs,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { north_token: "north-demo-token".into(), south_key: "south-demo-key".into(), mail: None }
    }
}

impl Files {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self {
            lock: dir.join("company.lock"),
            north: dir.join("shop-north.jsonl"),
            south: dir.join("shop-south.jsonl"),
            postings: dir.join("postings.jsonl"),
            erp: dir.join("erp.sqlite"),
            mails: dir.join("mails"),
        }
    }
}

impl Company {
    /// Starts everything; a folder that a company worked in before is taken as it was left. Needs a tokio runtime.
    ///
    /// # Errors
    /// The folder is in use or damaged, or a port is taken. Nothing runs then.
    pub async fn start(dir: &Path, options: CompanyOptions) -> Result<Self, StartError> {
        let CompanyOptions { ports, credentials, faults } = options;
        let files = Files::in_dir(dir);
        let lock = lock(dir, &files.lock)?;
        let knobs = ServiceKnobs::set(faults)?;
        let products = seed::products;
        let writers = Writers {
            north: Shelf::open(&files.north, products())?,
            south: Shelf::open(&files.south, products())?,
            book: PostingBook::open(&files.postings)?,
        };
        let erp = Erp::create(&files.erp, &seed::books())?;
        let mails = MailStore::open(&files.mails)
            .map_err(|source| StartError::Folder { path: files.mails.clone(), source })?;

        let north =
            shop_north::router(writers.north.clone(), &credentials.north_token, knobs.shop_north.clone());
        let south =
            shop_south::router(writers.south.clone(), &credentials.south_key, knobs.shop_south.clone());
        let postings = postings::router(writers.book.clone(), knobs.postings.clone());
        let webmail = mailbox::webmail(mails.clone(), knobs.smtp.clone());
        let servers = [
            http("shop_north", ports.shop_north, north).await?,
            http("shop_south", ports.shop_south, south).await?,
            http("postings", ports.postings, postings).await?,
            http("webmail", ports.webmail, webmail).await?,
        ];
        let smtp = SmtpServer::start(ports.smtp, mails, credentials.mail, knobs.smtp.clone())
            .await
            .map_err(|source| StartError::Port { service: "smtp", port: ports.smtp, source })?;
        let [shop_north, shop_south, postings, webmail] =
            servers.each_ref().map(|server| format!("http://{}", server.address()));
        let smtp_address = smtp.address();
        let erp = erp.path().to_owned();
        let addresses = Addresses { shop_north, shop_south, postings, webmail, smtp: smtp_address, erp };
        Ok(Self { dir: dir.to_owned(), addresses, servers, smtp, knobs, writers, _lock: lock })
    }

    /// Where everything is.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ports in use, to start again on the same ones.
    #[must_use]
    pub fn ports(&self) -> Ports {
        let [shop_north, shop_south, postings, webmail] =
            self.servers.each_ref().map(|server| server.address().port());
        Ports { shop_north, shop_south, postings, webmail, smtp: self.smtp.address().port() }
    }

    /// The ERP.
    #[must_use]
    pub fn erp(&self) -> Erp {
        Erp::at(&self.addresses.erp)
    }

    /// The knobs of the north shop.
    #[must_use]
    pub fn shop_north_knobs(&self) -> &Knobs {
        &self.knobs.shop_north
    }

    /// The knobs of the south shop.
    #[must_use]
    pub fn shop_south_knobs(&self) -> &Knobs {
        &self.knobs.shop_south
    }

    /// The knobs of accounting.
    #[must_use]
    pub fn postings_knobs(&self) -> &Knobs {
        &self.knobs.postings
    }

    /// The knobs of the SMTP server.
    #[must_use]
    pub fn smtp_knobs(&self) -> &Knobs {
        &self.knobs.smtp
    }

    /// What is true now. Blocks on the disk.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn reality(&self) -> Result<Reality, ReadError> {
        Reality::read(&self.dir)
    }

    /// Stops everything: requests in flight get a moment to end, and the folder is free afterwards.
    pub async fn stop(self) {
        let Self { servers, smtp, writers, _lock, .. } = self;
        let [north, south, postings, webmail] = servers;
        tokio::join!(north.stop(), south.stop(), postings.stop(), webmail.stop(), smtp.stop());
        drop(writers);
    }
}

impl ServiceKnobs {
    fn set(faults: ServiceFaults) -> Result<Self, FaultError> {
        let knobs = Self::default();
        knobs.shop_north.set(faults.shop_north)?;
        knobs.shop_south.set(faults.shop_south)?;
        knobs.postings.set(faults.postings)?;
        knobs.smtp.set(faults.smtp)?;
        Ok(knobs)
    }
}

fn lock(dir: &Path, path: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Folder { path: path.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = File::create(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn http(service: &'static str, port: u16, router: axum::Router) -> Result<HttpServer, StartError> {
    HttpServer::start(port, router).await.map_err(|source| StartError::Port { service, port, source })
}
