//! Cursors: the place of the last row of a page, as text that nobody needs to understand.
//!
//! Owns: their form, the same in every backend, and the proof that a text is one of ours. Never: names a row by its
//! number (it would shift).
use std::fmt::Write as _;

use crate::{Cursor, LedgerError};

/// Of which list a cursor is; one of the other list is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// Of runs.
    Runs,
    /// Of questions.
    Approvals,
}

/// Where a row is in its list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// When the run was accepted, in milliseconds as SQL has them.
    pub accepted: i64,
    /// The run's id.
    pub run: [u8; 16],
    /// Of an approval; empty for a run.
    pub key: String,
}

const FIXED_BYTES: usize = 1 + 8 + 16;
const CHECK_BYTES: usize = 4;
/// Of a cursor's text; an approval's key is far shorter.
const TEXT_BYTES_MAX: usize = 8 << 10;

impl List {
    fn mark(self) -> u8 {
        match self {
            List::Runs => b'r',
            List::Approvals => b'a',
        }
    }
}

/// The cursor of a place.
#[must_use]
pub fn write(list: List, place: &Place) -> Cursor {
    let mut bytes = vec![list.mark()];
    bytes.extend_from_slice(&place.accepted.to_be_bytes());
    bytes.extend_from_slice(&place.run);
    bytes.extend_from_slice(place.key.as_bytes());
    bytes.extend_from_slice(&check(&bytes));
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    Cursor(text)
}

/// The place of a cursor.
///
/// # Errors
/// `BadCursor`: no list of this kind gave it.
pub fn read(list: List, cursor: &Cursor) -> Result<Place, LedgerError> {
    parse(list, &cursor.0).ok_or_else(|| LedgerError::BadCursor(cursor.0.chars().take(80).collect()))
}

fn parse(list: List, text: &str) -> Option<Place> {
    if text.len() > TEXT_BYTES_MAX || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let bytes: Vec<u8> = text.as_bytes().chunks_exact(2).map(pair).collect::<Option<_>>()?;
    let (bytes, checked) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if checked != check(bytes) || *bytes.first()? != list.mark() {
        return None;
    }
    let key = std::str::from_utf8(bytes.get(FIXED_BYTES..)?).ok()?;
    Some(Place {
        accepted: i64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?),
        run: bytes.get(9..FIXED_BYTES)?.try_into().ok()?,
        key: key.to_owned(),
    })
}

/// FNV-1a, against what gets lost between copying and pasting; not against forgery, which would gain nothing.
fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_is_one() {
        let place = Place { accepted: 1_700_000_000_000, run: [7; 16], key: "step/é".to_owned() };
        let cursor = write(List::Approvals, &place);
        assert_eq!(read(List::Approvals, &cursor), Ok(place));
        assert!(read(List::Runs, &cursor).is_err(), "of the other list");
        for at in 0..cursor.0.len() {
            assert!(read(List::Approvals, &Cursor(cursor.0[..at].to_owned())).is_err(), "cut at {at}");
            let mut changed = cursor.0.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            assert!(
                read(List::Approvals, &Cursor(String::from_utf8(changed).unwrap())).is_err(),
                "changed at {at}"
            );
        }
    }
}
