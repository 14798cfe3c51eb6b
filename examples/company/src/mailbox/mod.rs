//! The mail server: takes mail by SMTP, keeps each in a file, shows them over HTTP.
//!
//! Owns: the sockets, the limits of a session, carrying the knobs out. The dialogue is in `session`, the files in
//! `store`. Never: sends mail on, or recognises a message that it has taken before.
//!
//! SMTP: `EHLO HELO AUTH MAIL RCPT DATA RSET NOOP VRFY QUIT`, with SIZE, 8BITMIME, PIPELINING and, if a login is
//! set, AUTH PLAIN. HTTP: `GET /mails[?message_id=ID]` gives 200 `{"mails": [MAIL]}`, which is how a client finds out
//! whether a mail of unknown fate has arrived. The knobs stand at the end of DATA.

mod session;
mod store;

use std::{io, net::Ipv4Addr, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use self::session::{MessageReader, Piece, Reply, Session, Step};
pub use self::store::{Mail, MailReadError};
pub(crate) use self::store::{MailStore, read_mails};
use crate::{
    admin,
    faults::{Access, After, Before, Knobs},
};

/// The largest message that the server takes.
pub const MAIL_BYTES_MAX: usize = 1024 * 1024;

/// The most recipients of one mail.
pub const RECIPIENTS_MAX: usize = 100;

/// The most SMTP sessions at once; one more is told to come back.
pub const SESSIONS_MAX: usize = 64;

/// The longest command line, with its line end.
const LINE_BYTES_MAX: usize = 2048;

/// A client that goes on sending a message after it is so far over the limit is cut off.
const DRAIN_BYTES_MAX: usize = 8 * MAIL_BYTES_MAX;

/// A client that says nothing for so long is told goodbye.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who may send mail, if not everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailLogin {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// A running SMTP server. Dropping it ends its sessions.
#[derive(Debug)]
pub(crate) struct SmtpServer {
    address: SocketAddr,
    job: JoinHandle<()>,
}

impl SmtpServer {
    pub(crate) async fn start(
        port: u16,
        store: MailStore,
        login: Option<MailLogin>,
        knobs: Knobs,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let office = Arc::new(PostOffice { store, login, knobs });
        Ok(Self { address, job: tokio::spawn(accept(listener, office)) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the sessions; a mail that was not acknowledged yet may be kept or not.
    pub(crate) async fn stop(mut self) {
        self.job.abort();
        // Ended by the abort: there is no result to look at.
        drop((&mut self.job).await);
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.job.abort();
    }
}

#[derive(Debug)]
struct PostOffice {
    store: MailStore,
    login: Option<MailLogin>,
    knobs: Knobs,
}

async fn accept(listener: TcpListener, office: Arc<PostOffice>) {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            // Best effort: a client that does not hear it sees the connection close.
            drop(stream.try_write(&Reply::new(421, "too many sessions").bytes()));
            drop(stream.shutdown().await);
            continue;
        };
        let office = office.clone();
        sessions.spawn(async move {
            // A broken connection ends the session; there is nobody to tell.
            drop(converse(stream, &office).await);
            drop(place);
        });
    }
}

/// One line, as far as it could be read.
enum Line {
    /// Up to and with LF.
    Whole(Vec<u8>),
    /// The first part of a line that is longer than allowed.
    Part(Vec<u8>),
    /// The client closed.
    End,
}

async fn converse(stream: TcpStream, office: &PostOffice) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut session = Session::new(office.login.clone());
    stream.write_all(&Session::greeting().bytes()).await?;
    let mut within_long_line = false;
    loop {
        let line = match read_line(&mut stream).await? {
            Line::Whole(_) if std::mem::take(&mut within_long_line) => continue,
            Line::Whole(line) => line,
            Line::Part(_) if within_long_line => continue,
            Line::Part(_) => {
                within_long_line = true;
                Vec::new()
            }
            Line::End => return Ok(()),
        };
        let step = match std::str::from_utf8(&line) {
            Ok(_) if within_long_line => session.refuse("line too long"),
            Ok(text) => session.line(text.trim_end_matches(['\r', '\n'])),
            Err(_) => session.refuse("not text"),
        };
        match step {
            Step::Reply(reply) => stream.write_all(&reply.bytes()).await?,
            Step::Close(reply) => {
                stream.write_all(&reply.bytes()).await?;
                return stream.shutdown().await;
            }
            Step::TakeMessage(reply) => {
                stream.write_all(&reply.bytes()).await?;
                match take_message(&mut stream, &mut session, office).await? {
                    Some(reply) => stream.write_all(&reply.bytes()).await?,
                    None => return Ok(()),
                }
            }
        }
    }
}

/// Reads a message and keeps it as the knobs say. None: the connection ends without an answer.
async fn take_message(
    stream: &mut BufReader<TcpStream>,
    session: &mut Session,
    office: &PostOffice,
) -> io::Result<Option<Reply>> {
    let mut message = MessageReader::new();
    loop {
        let piece = match read_line(stream).await? {
            Line::Whole(bytes) | Line::Part(bytes) => message.piece(&bytes),
            Line::End => return Ok(None),
        };
        match piece {
            Piece::End => break,
            Piece::More if message.received_bytes() > DRAIN_BYTES_MAX => return Ok(None),
            Piece::More => {}
        }
    }
    let envelope = session.finish_mail();
    let Some(message) = message.message() else {
        return Ok(Some(Reply::new(552, format!("at most {MAIL_BYTES_MAX} bytes"))));
    };
    tokio::time::sleep(office.knobs.latency(Access::Write)).await;
    match office.knobs.before(Access::Write) {
        Before::Work => {}
        Before::Throttle { retry_after_s } => {
            return Ok(Some(Reply::new(450, format!("too fast, come back in {retry_after_s} s"))));
        }
        Before::Unavailable => return Ok(Some(Reply::new(451, "down for a moment"))),
        Before::Drop => return Ok(None),
    }
    let store = office.store.clone();
    let kept = tokio::task::spawn_blocking(move || store.keep(&envelope, &message)).await;
    if !matches!(kept, Ok(Ok(()))) {
        return Ok(Some(Reply::new(452, "cannot keep it now")));
    }
    let (delay, after) = office.knobs.after(Access::Write);
    tokio::time::sleep(delay).await;
    Ok(match after {
        After::Answer => Some(Reply::new(250, "kept")),
        After::Error => Some(Reply::new(451, "something went wrong")),
        After::Drop => None,
    })
}

async fn read_line<S>(stream: &mut BufReader<S>) -> io::Result<Line>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(SILENCE_MAX, read_line_patiently(stream)).await {
        Ok(line) => line,
        Err(_) => {
            stream.write_all(&Reply::new(421, "too quiet").bytes()).await?;
            Ok(Line::End)
        }
    }
}

async fn read_line_patiently<S>(stream: &mut BufReader<S>) -> io::Result<Line>
where
    S: AsyncRead + Unpin,
{
    let mut line = Vec::new();
    loop {
        let ready = stream.fill_buf().await?;
        if ready.is_empty() {
            return Ok(Line::End);
        }
        let room = LINE_BYTES_MAX - line.len();
        let end = ready.iter().take(room).position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(ready.len().min(room));
        line.extend_from_slice(&ready[..taken]);
        stream.consume(taken);
        if end.is_some() {
            return Ok(Line::Whole(line));
        }
        if line.len() == LINE_BYTES_MAX {
            return Ok(Line::Part(line));
        }
    }
}

#[derive(Deserialize)]
struct MailQuery {
    message_id: Option<String>,
}

/// The HTTP side: reading mails, and the knobs of the SMTP side.
pub(crate) fn webmail(store: MailStore, knobs: Knobs) -> Router {
    let business = Router::new().route("/mails", get(list)).with_state(store);
    // The knobs are those of SMTP; reading mail is never disturbed by them.
    admin::with_faults(Router::new(), knobs).merge(business)
}

async fn list(State(store): State<MailStore>, Query(query): Query<MailQuery>) -> Response {
    let wanted = query.message_id;
    match tokio::task::spawn_blocking(move || store.mails()).await {
        Ok(Ok(mut mails)) => {
            if let Some(wanted) = wanted {
                let wanted = wanted.trim_start_matches('<').trim_end_matches('>');
                mails.retain(|mail| mail.message_id.as_deref() == Some(wanted));
            }
            Json(json!({ "mails": mails })).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
