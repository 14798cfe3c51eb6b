//! What people see: lines with the time, and on a terminal one line of progress below them.
//!
//! Owns: standard output and standard input. Never: decides anything.
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Columns of the line of progress; a longer one would wrap and could not be taken back.
const PROGRESS_CHARS_MAX: usize = 78;

/// Standard output.
pub(super) struct Screen {
    since: Instant,
    terminal: bool,
    /// The line of progress that stands where the next line belongs; empty: none does.
    progress_shown: Mutex<String>,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let terminal = std::io::stdout().is_terminal();
        Screen { since: Instant::now(), terminal, progress_shown: Mutex::default() }
    }

    /// Whether somebody is there who can answer.
    pub(super) fn can_ask(&self) -> bool {
        self.terminal && std::io::stdin().is_terminal()
    }

    /// One thing that happened.
    pub(super) fn say(&self, text: &str) {
        let seconds = self.since.elapsed().as_secs_f32();
        self.write(&format!("{seconds:6.2} s  {text}\n"));
    }

    /// Several lines as they are.
    pub(super) fn lines(&self, lines: &[String]) {
        for line in lines {
            self.write(&format!("{line}\n"));
        }
    }

    /// What is going on, where it can be taken back.
    pub(super) fn progress(&self, text: &str) {
        let text: String = text.chars().take(PROGRESS_CHARS_MAX).collect();
        if self.terminal && *self.shown() != text {
            self.write(&text);
            *self.shown() = text;
        }
    }

    /// A prompt, without an end of line.
    pub(super) fn prompt(&self, text: &str) {
        self.write(text);
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, String> {
        self.progress_shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, text: &str) {
        let clear = if std::mem::take(&mut *self.shown()).is_empty() { "" } else { "\r\x1b[2K" };
        let mut out = std::io::stdout().lock();
        // Nobody is left to tell when the reader has gone; the exit code still says how it went.
        drop(out.write_all(format!("{clear}{text}").as_bytes()).and_then(|()| out.flush()));
    }
}

/// One line of standard input; empty at its end. Blocks.
pub(super) fn read_answer() -> String {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) => line.trim().to_owned(),
        Err(_) => String::new(),
    }
}
