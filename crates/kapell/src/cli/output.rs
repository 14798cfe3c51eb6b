//! What is written for people and for scripts.
//!
//! Owns: the format, colours, stdout and stderr. Never: knows what it shows.
use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::{Exit, Failure};

/// How answers look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Where and how to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) colours: Colours,
}

/// Whether colours are wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// On a terminal.
    OnTerminal,
    /// Never.
    Never,
}

impl Output {
    /// Shows one answer: as `text` makes it, or the value itself.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => say(&text(self.paint())),
            Format::Json => say(&format!("{}\n", json(value, serde_json::to_string_pretty)?)),
            Format::Yaml => say(&yaml(value)?),
        }
    }

    /// As [`Output::show`] for one of many answers: JSON on one line, YAML behind `---`.
    pub(crate) fn show_one_of_many<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => say(&text(self.paint())),
            Format::Json => say(&format!("{}\n", json(value, serde_json::to_string)?)),
            Format::Yaml => say(&format!("---\n{}", yaml(value)?)),
        }
    }

    /// Colours for stdout.
    pub(crate) fn paint(&self) -> Paint {
        self.paint_for(stdout().is_terminal())
    }

    /// Colours for stderr.
    pub(crate) fn paint_err(&self) -> Paint {
        self.paint_for(stderr().is_terminal())
    }

    fn paint_for(&self, terminal: bool) -> Paint {
        match (self.colours, terminal) {
            (Colours::OnTerminal, true) => Paint::Ansi,
            (Colours::OnTerminal, false) | (Colours::Never, _) => Paint::Plain,
        }
    }
}

fn json<T: Serialize>(value: &T, write: fn(&T) -> serde_json::Result<String>) -> Result<String, Failure> {
    write(value).map_err(|error| Failure::from(anyhow::Error::from(error)))
}

/// As a YAML document that ends with a line break.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text =
        serde_saphyr::to_string(value).map_err(|error| Failure::from(anyhow::Error::from(error)))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Writes to stdout.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Unread),
        Err(error) => Err(Failure::Error {
            exit: Exit::Unsuccessful,
            message: format!("the output cannot be written: {error}"),
            hint: None,
        }),
    }
}

/// Writes to stderr; when even that fails there is nobody left to tell.
pub(crate) fn say_err(text: &str) {
    drop(stderr().lock().write_all(text.as_bytes()));
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Escape sequences.
    Ansi,
    /// Nothing.
    Plain,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self {
            Paint::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Paint::Plain => text.to_owned(),
        }
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn attention(self, text: &str) -> String {
        self.with("33", text)
    }
}

/// A text from outside on one line and without control characters: an event must not steer somebody's terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\r' | '\t' => " ".to_owned(),
            letter if letter.is_control() => letter.escape_unicode().to_string(),
            letter => letter.to_string(),
        })
        .collect()
}

/// Rows under a header, two spaces between columns.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    /// The table; `state` is told for each cell whether it is a state, to be shown in its colour.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        text.push_str(&line(&header, &widths, |_, cell| paint.faint(cell)));
        for row in &self.rows {
            text.push_str(&line(row, &widths, |column, cell| match self.header[column] {
                "STATE" | "CHANGE" => state(paint, cell),
                _ => cell.to_owned(),
            }));
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize], paint: impl Fn(usize, &str) -> String) -> String {
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    let mut text = String::new();
    for (column, cell) in cells.iter().enumerate().take(last + 1) {
        text.push_str(&paint(column, cell));
        if column < last {
            let room = widths[column].saturating_sub(cell.chars().count()) + 2;
            text.extend(std::iter::repeat_n(' ', room));
        }
    }
    text.push('\n');
    text
}

/// A state in its colour.
pub(crate) fn state(paint: Paint, word: &str) -> String {
    match word {
        "completed" | "done" | "created" | "success" => paint.good(word),
        "failed" | "failure" => paint.bad(word),
        "waiting" | "asking" | "paused" | "changed" | "retrying" | "windingUp" => paint.attention(word),
        "canceled" | "skipped" | "unchanged" => paint.faint(word),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(["a-long-name".to_owned(), "done".to_owned(), String::new()]);
        table.row(["b".to_owned(), "failed".to_owned(), "why".to_owned()]);
        let text = "NAME         STATE   NOTE\na-long-name  done\nb            failed  why\n";
        assert_eq!(table.text(Paint::Plain), text);
        assert!(table.text(Paint::Ansi).contains("\u{1b}[32mdone\u{1b}[0m"));
    }

    #[test]
    fn a_text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
    }
}
