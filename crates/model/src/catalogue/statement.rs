//! SQL statements with named parameters.
//!
//! Owns: where `:name` is a parameter and where it is part of a text, a comment, a name or a cast. Never:
//! understands SQL beyond that, or puts a value into a text.
use std::sync::Arc;

/// A statement whose parameters are written `:name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlStatement {
    named: Arc<str>,
    numbered: Arc<str>,
    parameters: Vec<Arc<str>>,
}

impl SqlStatement {
    /// Finds the parameters.
    #[must_use]
    pub fn read(source: &str) -> SqlStatement {
        let (mut numbered, mut parameters, mut rest) = (String::new(), Vec::<Arc<str>>::new(), source);
        while let Some(first) = rest.chars().next() {
            if let Some(name) = parameter(rest) {
                let place = parameters.iter().position(|known| **known == *name).unwrap_or_else(|| {
                    parameters.push(Arc::from(name));
                    parameters.len() - 1
                });
                numbered.push_str(&format!("${}", place + 1));
                rest = &rest[1 + name.len()..];
                continue;
            }
            let len = opaque(rest).unwrap_or(first.len_utf8());
            numbered.push_str(&rest[..len]);
            rest = &rest[len..];
        }
        SqlStatement { named: Arc::from(source), numbered: Arc::from(numbered), parameters }
    }

    /// With `:name`, as it was written and as SQLite takes it.
    #[must_use]
    pub fn named(&self) -> &str {
        &self.named
    }

    /// With `$1`, as PostgreSQL takes it.
    #[must_use]
    pub fn numbered(&self) -> &str {
        &self.numbered
    }

    /// The names; the first has number 1.
    #[must_use]
    pub fn parameters(&self) -> &[Arc<str>] {
        &self.parameters
    }
}

/// The name, where `text` begins with `:name`.
fn parameter(text: &str) -> Option<&str> {
    let name = text.strip_prefix(':')?;
    let len = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins.then(|| &name[..len])
}

/// How many bytes at the beginning of `text` can hold no parameter though they may look so: a quoted text or
/// name, a comment, a cast, a dollar-quoted text.
fn opaque(text: &str) -> Option<usize> {
    if text.starts_with("::") {
        return Some(2);
    }
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if let Some(comment) = text.strip_prefix("/*") {
        return Some(comment.find("*/").map_or(text.len(), |end| end + 4));
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"' | '`')) {
        // A doubled quote ends one text and begins the next, which comes to the same.
        return Some(text[1..].find(quote).map_or(text.len(), |end| end + 2));
    }
    let tag = text.strip_prefix('$')?;
    let end =
        tag.find('$').filter(|end| tag[..*end].chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))?;
    let fence = &text[..end + 2];
    Some(text[fence.len()..].find(fence).map_or(text.len(), |at| at + 2 * fence.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_numbered_in_order_of_appearance() {
        let read = SqlStatement::read("update t set a = :a, b=:b_2 where a <> :a and c = :c;");
        assert_eq!(read.parameters().iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b_2", "c"]);
        assert_eq!(read.numbered(), "update t set a = $1, b=$2 where a <> $1 and c = $3;");
        assert_eq!(read.named(), "update t set a = :a, b=:b_2 where a <> :a and c = :c;");
    }

    #[test]
    fn texts_comments_casts_and_names_hold_no_parameters() {
        for same in [
            "select ':a', 'it''s :b', \":c\", `:d` -- :e\n",
            "select 1::text /* :a */ from t",
            "select $$ :a $$, $x$ :b $$ $x$",
            "select 'open :a",
            "select 1 /* open :a",
            "select a[1:2], '12:30', 1 : 2",
            "select 'ä' || '€ :x'",
        ] {
            let read = SqlStatement::read(same);
            assert_eq!(read.numbered(), same);
            assert!(read.parameters().is_empty(), "{same}: {:?}", read.parameters());
        }
        let after = SqlStatement::read("select ':a' || :b, :c::int -- :d\n, $q$ :e $q$, :f");
        assert_eq!(after.numbered(), "select ':a' || $1, $2::int -- :d\n, $q$ :e $q$, $3");
    }
}
