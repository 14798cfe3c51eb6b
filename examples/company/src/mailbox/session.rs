//! One SMTP dialogue, line by line, without a socket.
//!
//! Owns: which command may follow which, the reply codes, the envelope, undoing the dots of a message.
//! Never: reads, waits, or stores.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{MAIL_BYTES_MAX, MailLogin, RECIPIENTS_MAX};

/// After so many refused lines the session ends.
const REFUSALS_MAX: u32 = 20;

/// The name in greetings.
const HOST: &str = "mail.company.example";

/// One reply, without the line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) lines: Vec<String>,
}

/// What follows a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Reply(Reply),
    /// Reply, then take the message.
    TakeMessage(Reply),
    /// Reply, then close the connection.
    Close(Reply),
}

/// Who a message is from and for, as the client said outside the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
}

#[derive(Debug)]
enum State {
    /// Nothing said yet, not even EHLO.
    Fresh,
    /// Ready for a mail.
    Ready,
    /// The next line is an answer to `AUTH PLAIN`.
    Credential,
    /// A mail was begun.
    Mail(Envelope),
}

#[derive(Debug)]
pub(crate) struct Session {
    login: Option<MailLogin>,
    logged_in: bool,
    state: State,
    refusals: u32,
}

impl Reply {
    pub(crate) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, lines: vec![text.into()] }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let last = self.lines.len().saturating_sub(1);
        let spelled: String = self
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("{}{}{line}\r\n", self.code, if at == last { ' ' } else { '-' }))
            .collect();
        spelled.into_bytes()
    }
}

impl Session {
    pub(crate) fn new(login: Option<MailLogin>) -> Self {
        Self { login, logged_in: false, state: State::Fresh, refusals: 0 }
    }

    pub(crate) fn greeting() -> Reply {
        Reply::new(220, format!("{HOST} ESMTP"))
    }

    /// Answers one command line, given without its line end.
    pub(crate) fn line(&mut self, line: &str) -> Step {
        if matches!(self.state, State::Credential) {
            self.state = State::Ready;
            let reply = self.credential(line);
            return self.counted(Step::Reply(reply));
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let step = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.ehlo(rest),
            "HELO" => self.helo(rest),
            "AUTH" => self.auth(rest),
            "MAIL" => Step::Reply(self.mail(rest)),
            "RCPT" => Step::Reply(self.rcpt(rest)),
            "DATA" => self.data(rest),
            "RSET" => {
                self.forget_mail();
                Step::Reply(Reply::new(250, "forgotten"))
            }
            "NOOP" => Step::Reply(Reply::new(250, "ok")),
            "VRFY" => Step::Reply(Reply::new(252, "send it and see")),
            "QUIT" => Step::Close(Reply::new(221, format!("{HOST} closes"))),
            "STARTTLS" => Step::Reply(Reply::new(502, "no TLS on loopback")),
            _ => Step::Reply(Reply::new(500, "unknown command")),
        };
        self.counted(step)
    }

    /// Refuses a line that can't be a command, such as one that is too long.
    pub(crate) fn refuse(&mut self, text: &str) -> Step {
        self.counted(Step::Reply(Reply::new(500, text)))
    }

    /// The envelope of the message that was just taken. The session is ready for the next mail.
    pub(crate) fn finish_mail(&mut self) -> Envelope {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Mail(envelope) => envelope,
            State::Fresh | State::Ready | State::Credential => Envelope::default(),
        }
    }

    fn ehlo(&mut self, name: &str) -> Step {
        if name.is_empty() {
            return Step::Reply(Reply::new(501, "EHLO needs a name"));
        }
        self.state = State::Ready;
        let mut lines =
            vec![HOST.to_owned(), format!("SIZE {MAIL_BYTES_MAX}"), "8BITMIME".into(), "PIPELINING".into()];
        if self.login.is_some() {
            lines.push("AUTH PLAIN".into());
        }
        Step::Reply(Reply { code: 250, lines })
    }

    fn helo(&mut self, name: &str) -> Step {
        if name.is_empty() {
            return Step::Reply(Reply::new(501, "HELO needs a name"));
        }
        self.state = State::Ready;
        Step::Reply(Reply::new(250, HOST))
    }

    fn auth(&mut self, rest: &str) -> Step {
        let reply = match &self.state {
            State::Fresh => Reply::new(503, "EHLO first"),
            State::Mail(_) => Reply::new(503, "not within a mail"),
            State::Ready | State::Credential if self.login.is_none() => Reply::new(502, "no login here"),
            State::Ready | State::Credential if self.logged_in => Reply::new(503, "logged in already"),
            State::Ready | State::Credential => {
                let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
                if !mechanism.eq_ignore_ascii_case("PLAIN") {
                    Reply::new(504, "only PLAIN")
                } else if initial.is_empty() {
                    self.state = State::Credential;
                    Reply::new(334, "")
                } else {
                    self.credential(initial)
                }
            }
        };
        Step::Reply(reply)
    }

    fn credential(&mut self, encoded: &str) -> Reply {
        if encoded == "*" {
            return Reply::new(501, "login given up");
        }
        let Ok(decoded) = BASE64_STANDARD.decode(encoded.trim()) else {
            return Reply::new(501, "not base64");
        };
        let mut parts = decoded.splitn(3, |byte| *byte == 0).skip(1);
        let (user, password) = (parts.next(), parts.next());
        self.logged_in = self.login.as_ref().is_some_and(|login| {
            user == Some(login.user.as_bytes()) && password == Some(login.password.as_bytes())
        });
        if self.logged_in { Reply::new(235, "welcome") } else { Reply::new(535, "wrong user or password") }
    }

    fn mail(&mut self, rest: &str) -> Reply {
        match &self.state {
            State::Fresh => return Reply::new(503, "EHLO or HELO first"),
            State::Mail(_) => return Reply::new(503, "a mail was begun already"),
            State::Ready | State::Credential => {}
        }
        if self.login.is_some() && !self.logged_in {
            return Reply::new(530, "login needed");
        }
        let Some((from, parameters)) = path(rest, "FROM:") else {
            return Reply::new(501, "MAIL FROM:<address>");
        };
        for parameter in parameters.split_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.to_ascii_uppercase().as_str() {
                "SIZE" => match value.parse::<usize>() {
                    Ok(bytes) if bytes <= MAIL_BYTES_MAX => {}
                    Ok(_) => return Reply::new(552, format!("at most {MAIL_BYTES_MAX} bytes")),
                    Err(_) => return Reply::new(501, "SIZE is a number"),
                },
                "BODY" if value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME") => {}
                _ => return Reply::new(555, "unknown parameter"),
            }
        }
        self.state = State::Mail(Envelope { from: from.to_owned(), to: Vec::new() });
        Reply::new(250, "ok")
    }

    fn rcpt(&mut self, rest: &str) -> Reply {
        let State::Mail(envelope) = &mut self.state else {
            return Reply::new(503, "MAIL first");
        };
        match path(rest, "TO:") {
            Some((to, "")) if !to.is_empty() => {
                if envelope.to.len() >= RECIPIENTS_MAX {
                    return Reply::new(452, format!("at most {RECIPIENTS_MAX} recipients"));
                }
                envelope.to.push(to.to_owned());
                Reply::new(250, "ok")
            }
            Some((_, parameters)) if !parameters.is_empty() => Reply::new(555, "unknown parameter"),
            Some(_) | None => Reply::new(501, "RCPT TO:<address>"),
        }
    }

    fn data(&mut self, rest: &str) -> Step {
        let reply = match &self.state {
            State::Mail(_) if !rest.is_empty() => Reply::new(501, "DATA stands alone"),
            State::Mail(envelope) if envelope.to.is_empty() => Reply::new(503, "RCPT first"),
            State::Mail(_) => {
                return Step::TakeMessage(Reply::new(354, "end with a dot on a line of its own"));
            }
            State::Fresh | State::Ready | State::Credential => Reply::new(503, "MAIL first"),
        };
        Step::Reply(reply)
    }

    fn forget_mail(&mut self) {
        if let State::Mail(_) = self.state {
            self.state = State::Ready;
        }
    }

    fn counted(&mut self, step: Step) -> Step {
        match step {
            Step::Reply(reply) if reply.code >= 400 => {
                self.refusals += 1;
                if self.refusals < REFUSALS_MAX {
                    return Step::Reply(reply);
                }
                Step::Close(Reply::new(421, "too many errors"))
            }
            Step::Reply(_) | Step::TakeMessage(_) | Step::Close(_) => step,
        }
    }
}

/// Splits `FROM:<a@b> SIZE=3` into address and parameters.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (word, after) = rest.split_at_checked(keyword.len())?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (address, parameters) = after.trim_start().strip_prefix('<')?.split_once('>')?;
    let clean = !address.bytes().any(|byte| byte.is_ascii_control() || matches!(byte, b' ' | b'<' | b','));
    clean.then_some((address, parameters.trim()))
}

/// Collects a message after DATA: takes the dots off, finds the end, holds the size limit.
///
/// Only CR LF ends a line here, so that a lone LF can't smuggle a second mail past the end of the first.
#[derive(Debug)]
pub(crate) struct MessageReader {
    bytes: Vec<u8>,
    received_bytes: usize,
    line_begins: bool,
    ends_in_cr: bool,
}

/// What a piece of a message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    More,
    End,
}

impl MessageReader {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), received_bytes: 0, line_begins: true, ends_in_cr: false }
    }

    /// Takes what was read up to and with a LF, or a part of a line that is very long.
    pub(crate) fn piece(&mut self, piece: &[u8]) -> Piece {
        if self.line_begins && piece == b".\r\n" {
            return Piece::End;
        }
        let content = match piece {
            [b'.', rest @ ..] if self.line_begins => rest,
            whole => whole,
        };
        self.received_bytes = self.received_bytes.saturating_add(content.len());
        if self.received_bytes <= MAIL_BYTES_MAX {
            self.bytes.extend_from_slice(content);
        } else {
            self.bytes = Vec::new();
        }
        self.line_begins = piece.ends_with(b"\r\n") || (self.ends_in_cr && piece == b"\n");
        self.ends_in_cr = piece.ends_with(b"\r");
        Piece::More
    }

    pub(crate) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// The message, or None when it was too large.
    pub(crate) fn message(self) -> Option<Vec<u8>> {
        (self.received_bytes <= MAIL_BYTES_MAX).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests;
