//! When a request is sent again, and after how long.
//!
//! Owns: the pauses. Never: waits.
use std::time::Duration;

use kapell_runtime::{Entropy, SystemEntropy};

use crate::ClientError;

/// The first pause; each later one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// What the same request twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The same as once.
    Harmless,
    /// The same as once, and it may take as long as the deadline: nobody else is asked meanwhile.
    HarmlessAndLong,
    /// Something else, so it is sent again only when the first was certainly not done.
    OnlyIfRefused,
}

/// How long to wait before the try after `tries`; `None`: trying again is wrong or useless.
pub(crate) fn pause(error: &ClientError, repeat: Repeat, tries: u32) -> Option<Duration> {
    match (error, repeat) {
        (ClientError::Busy { retry_after: Some(after), .. }, _) => Some(*after),
        (ClientError::Busy { retry_after: None, .. }, _)
        | (ClientError::Unavailable { .. }, Repeat::Harmless | Repeat::HarmlessAndLong) => {
            Some(backoff(tries))
        }
        (ClientError::Unavailable { .. }, Repeat::OnlyIfRefused)
        | (
            ClientError::Invalid { .. }
            | ClientError::NotFound { .. }
            | ClientError::Refused { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Failed { .. },
            _,
        ) => None,
    }
}

/// Between half and all of the doubled pause, so that many clients do not come back at once.
pub(crate) fn backoff(tries: u32) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MOST);
    let half = whole / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_millis(SystemEntropy.below(spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after: Option<Duration>) -> ClientError {
        ClientError::Busy { message: "busy".to_owned(), retry_after }
    }

    #[test]
    fn a_request_that_may_have_been_done_is_sent_again_only_if_that_is_harmless() {
        let gone = ClientError::Unavailable { message: "gone".to_owned() };
        assert!(pause(&gone, Repeat::Harmless, 0).is_some());
        assert_eq!(pause(&gone, Repeat::OnlyIfRefused, 0), None);
        assert!(pause(&busy(None), Repeat::OnlyIfRefused, 0).is_some());
    }

    #[test]
    fn the_servers_hint_is_honoured() {
        let after = Duration::from_millis(1_234);
        assert_eq!(pause(&busy(Some(after)), Repeat::OnlyIfRefused, 7), Some(after));
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let first = backoff(0);
        assert!(first >= PAUSE_FIRST / 2 && first <= PAUSE_FIRST, "{first:?}");
        for tries in [6, 31, u32::MAX] {
            let late = backoff(tries);
            assert!(late >= PAUSE_MOST / 2 && late <= PAUSE_MOST, "{late:?}");
        }
    }
}
