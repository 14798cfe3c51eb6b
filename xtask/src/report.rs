//! What a check says: tables for people, one JSON object a line for programs.
//!
//! Owns: both forms of every row. Never: decides whether a check holds.

use serde_json::{Map, Value};

/// Who reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// One object a row, keyed by the column.
    JsonLines,
}

/// The answer of a check, and so the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exit 0.
    Holds,
    /// Exit 1.
    Broken,
}

impl Verdict {
    /// A list of what is wrong is right when it is empty.
    pub(crate) fn of<T>(findings: &[T]) -> Self {
        if findings.is_empty() { Self::Holds } else { Self::Broken }
    }
}

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// `path:line`, a crate, or an edge.
    pub(crate) place: String,
    /// The name of the rule.
    pub(crate) rule: &'static str,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Rows under named columns.
pub(crate) struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(crate) fn new<const N: usize>(columns: [&'static str; N]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Findings as rows.
    pub(crate) fn of_findings(findings: &[Finding]) -> Self {
        let mut rows = Self::new(["place", "rule", "problem", "hint"]);
        for finding in findings {
            rows.push([
                Value::from(finding.place.as_str()),
                Value::from(finding.rule),
                Value::from(finding.problem.as_str()),
                Value::from(finding.hint.as_str()),
            ]);
        }
        rows
    }

    pub(crate) fn push<const N: usize>(&mut self, row: [Value; N]) {
        debug_assert_eq!(N, self.columns.len(), "a row has one cell a column");
        self.rows.push(row.to_vec());
    }

    /// Prints nothing when there are no rows.
    pub(crate) fn print(&self, format: Format) {
        print!("{}", self.render(format));
    }

    fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::JsonLines => self.json_lines(),
        }
    }

    fn json_lines(&self) -> String {
        let object = |row: &Vec<Value>| {
            let pairs = self.columns.iter().map(ToString::to_string).zip(row.iter().cloned());
            format!("{}\n", Value::Object(pairs.collect::<Map<_, _>>()))
        };
        self.rows.iter().map(object).collect()
    }

    fn table(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let header = self.columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>();
        let body = self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>());
        let lines = std::iter::once(header).chain(body).collect::<Vec<_>>();
        let widths = (0..self.columns.len())
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default())
            .collect::<Vec<_>>();
        let mut text = String::new();
        for line in lines {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(["crate", "lines"]);
        rows.push([Value::from("kernel"), Value::from(7)]);
        rows.push([Value::from("a"), Value::from(1200)]);
        rows
    }

    #[test]
    fn people_get_aligned_columns() {
        assert_eq!(rows().render(Format::Table), "CRATE   LINES\nkernel  7\na       1200\n");
    }

    #[test]
    fn programs_get_one_object_a_line() {
        assert_eq!(
            rows().render(Format::JsonLines),
            "{\"crate\":\"kernel\",\"lines\":7}\n{\"crate\":\"a\",\"lines\":1200}\n"
        );
    }

    #[test]
    fn no_rows_print_nothing() {
        assert_eq!(Rows::new(["a"]).render(Format::Table), "");
    }
}
