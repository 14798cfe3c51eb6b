//! Texts and digests: what a column can hold of what the port says.
//!
//! Owns: the form of texts with characters that PostgreSQL refuses, and the digests that stand for long texts in
//! indexes. Never: changes a digest's recipe without a new schema (they are stored).
use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

type BoxError = Box<dyn std::error::Error + Sync + Send>;

/// Says that the next character stands for another one.
const MARK: char = '\u{1}';
/// After the mark: U+0000, which PostgreSQL cannot store.
const ZERO: char = '\u{1}';
/// After the mark: the mark itself.
const SELF: char = '\u{2}';

/// The text as it is stored. Stored texts have the order of the original ones, and the same text has one form.
pub(crate) fn stored(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte <= 1) {
        return Cow::Borrowed(text);
    }
    let mut marked = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => marked.extend([MARK, ZERO]),
            MARK => marked.extend([MARK, SELF]),
            other => marked.push(other),
        }
    }
    Cow::Owned(marked)
}

/// Back from [`stored`]; `None`: nobody stored this.
pub(crate) fn original(stored: String) -> Option<String> {
    if !stored.contains(MARK) {
        return Some(stored);
    }
    let (mut text, mut rest) = (String::with_capacity(stored.len()), stored.chars());
    while let Some(character) = rest.next() {
        match character {
            MARK => match rest.next()? {
                ZERO => text.push('\0'),
                SELF => text.push(MARK),
                _ => return None,
            },
            other => text.push(other),
        }
    }
    Some(text)
}

/// A value of the type `uuid`: a run id or a digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Id(pub(crate) [u8; 16]);

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Id, BoxError> {
        Ok(Id(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

/// A digest of parts, each with its length before it, so that no two lists of parts share one.
#[derive(Default)]
pub(crate) struct Parts(Sha256);

impl Parts {
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(crate) fn digest(self) -> Id {
        let mut first = [0; 16];
        first.copy_from_slice(&self.0.finalize()[..16]);
        Id(first)
    }
}

/// Stands for a key or an entity in an index; who finds a row by it compares the text, too.
pub(crate) fn hash(text: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
    i64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_texts_hold_no_zero_come_back_and_keep_their_order() {
        let pieces = ["", "\0", "\u{1}", "\u{2}", "a", "é"];
        let mut all = vec![String::new()];
        for _ in 0..3 {
            all = all.iter().flat_map(|text| pieces.map(|piece| format!("{text}{piece}"))).collect();
        }
        for text in &all {
            let marked = stored(text).into_owned();
            assert!(!marked.contains('\0'), "{text:?}");
            assert_eq!(original(marked.clone()).as_ref(), Some(text));
            for other in &all {
                assert_eq!(text.cmp(other), marked.as_str().cmp(&*stored(other)), "{text:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_mark_that_nobody_wrote_is_noticed() {
        assert_eq!(original("a\u{1}".to_owned()), None);
        assert_eq!(original("\u{1}a".to_owned()), None);
    }

    #[test]
    fn digests_are_those_that_are_stored() {
        assert_eq!(hash("vendor:V-100"), HASH_OF_VENDOR);
        let digest = |parts: &[&str]| {
            let mut all = Parts::default();
            parts.iter().for_each(|part| all.add(part.as_bytes()));
            all.digest()
        };
        assert_eq!(digest(&["a", "b"]).0, DIGEST_OF_PARTS);
        assert_ne!(digest(&["ab"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["b", "a"]));
    }

    const HASH_OF_VENDOR: i64 = -274_207_813_423_738_017;
    const DIGEST_OF_PARTS: [u8; 16] =
        [60, 157, 89, 16, 69, 188, 136, 118, 249, 208, 57, 155, 191, 176, 92, 106];
}
