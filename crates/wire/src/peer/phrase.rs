//! Phrases of refusals: the kernel has them as constants, a peer sends them as text.
//!
//! Owns: the texts that were kept for the life of the process, and how many they may be. A table of the kernel's
//! constants would be shorter, and wrong after the next one.
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::DecodeError;
use crate::field::Field;

/// Different phrases that are kept. The kernel has about fifteen.
const PHRASES_MAX: usize = 256;
/// Longest phrase, in bytes.
const PHRASE_BYTES_MAX: usize = 128;

static PHRASES: Phrases = Phrases(Mutex::new(BTreeSet::new()));

/// The same text, for ever. When too many different ones have come, `otherwise`, which says less and is no lie.
pub(super) fn phrase(field: Field, text: &str, otherwise: &'static str) -> Result<&'static str, DecodeError> {
    PHRASES.keep(field, text, otherwise)
}

struct Phrases(Mutex<BTreeSet<&'static str>>);

impl Phrases {
    fn keep(&self, field: Field, text: &str, otherwise: &'static str) -> Result<&'static str, DecodeError> {
        if text.len() > PHRASE_BYTES_MAX {
            let reason = format!("it has {} bytes, at most {PHRASE_BYTES_MAX} are possible", text.len());
            return Err(DecodeError::Damaged { field, reason });
        }
        // The set is whole after every line below, whoever panicked.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(phrase) = known.get(text) {
            return Ok(phrase);
        }
        if known.len() >= PHRASES_MAX {
            return Ok(otherwise);
        }
        let phrase: &'static str = Box::leak(text.into());
        known.insert(phrase);
        Ok(phrase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_kept_once_and_only_so_many_are() {
        let phrases = Phrases(Mutex::new(BTreeSet::new()));
        let keep = |text: &str| phrases.keep("T.f", text, "something").unwrap();
        let first = keep("number 0");
        for number in 1..PHRASES_MAX {
            assert_eq!(keep(&format!("number {number}")), format!("number {number}"));
        }
        assert_eq!(keep("one more"), "something");
        assert!(std::ptr::eq(keep("number 0"), first), "the same text is kept once");
    }

    #[test]
    fn an_absurd_phrase_is_refused() {
        let phrases = Phrases(Mutex::new(BTreeSet::new()));
        let edge = "x".repeat(PHRASE_BYTES_MAX);
        assert_eq!(
            phrases.keep("T.f", &edge, "y"),
            Ok(edge.as_str()).map(|_| phrases.keep("T.f", &edge, "y").unwrap())
        );
        let told = phrases.keep("T.f", &(edge + "x"), "y").unwrap_err();
        assert_eq!(told.to_string(), "T.f is damaged: it has 129 bytes, at most 128 are possible");
    }
}
