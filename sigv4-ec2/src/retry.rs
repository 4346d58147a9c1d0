//! When the same request is sent once more, and after which pause.
//!
//! Only what cannot do harm is repeated: a refusal because of too many calls always, a lost answer only where a second
//! delivery changes nothing (reading, deleting, setting, and launching, whose client token makes it one). Pauses grow,
//! and each is cut at random ("full jitter"), or a hundred clients that were refused together would come back together.

use crate::{Error, error::is_broken};
use std::time::Duration;

/// How long one call may take, with all its repetitions.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Nobody waits less: a random nothing would be no pause.
const SHORTEST: Duration = Duration::from_millis(50);

/// What a second delivery of the same request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The same as one.
    Harmless,
    /// Once more: it is repeated only if the first one was certainly not carried out.
    DoesItAgain,
}

/// The pause before the next attempt, or `None` if the error is final. `attempt` counts from 0, `left` of [`PATIENCE`].
pub(crate) fn pause(error: &Error, repeat: Repeat, attempt: u32, random: u64, left: Duration) -> Option<Duration> {
    let transient = match error {
        Error::Api { status, code, .. } => code.is_throttling() || (repeat == Repeat::Harmless && is_broken(*status, code)),
        Error::Transport { unsent, .. } => *unsent || repeat == Repeat::Harmless,
        // Half an answer: from a proxy, or a machine that died while it wrote.
        Error::Reply { .. } => repeat == Repeat::Harmless && attempt < 2,
        _ => false,
    };
    let most = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
    let pause = most.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64).max(SHORTEST);
    (transient && pause < left).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn refused(status: u16, code: ErrorCode) -> Error {
        Error::Api { action: "RunInstances", status, code, message: String::new(), request_id: None }
    }

    fn lost(unsent: bool) -> Error {
        let source = Box::new(ureq::Error::ConnectionFailed);
        Error::Transport { action: "RunInstances", endpoint: "http://127.0.0.1/".to_owned(), unsent, source }
    }

    #[test]
    fn only_what_cannot_be_done_twice_is_repeated() {
        let table = [
            (refused(503, ErrorCode::RequestLimitExceeded), true, true),
            (refused(400, ErrorCode::Throttling), true, true),
            (refused(500, ErrorCode::InternalError), true, false),
            (refused(502, ErrorCode::Other("BadGateway".to_owned())), true, false),
            (refused(500, ErrorCode::InsufficientInstanceCapacity), false, false),
            (refused(400, ErrorCode::InvalidParameterValue), false, false),
            (refused(403, ErrorCode::UnauthorizedOperation), false, false),
            (lost(true), true, true),
            (lost(false), true, false),
        ];
        for (error, harmless, again) in table {
            let paused = |repeat| pause(&error, repeat, 0, u64::MAX, PATIENCE).is_some();
            assert_eq!((paused(Repeat::Harmless), paused(Repeat::DoesItAgain)), (harmless, again), "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_the_patience() {
        let error = refused(503, ErrorCode::RequestLimitExceeded);
        let longest: Vec<u128> = (0..8)
            .filter_map(|attempt| pause(&error, Repeat::Harmless, attempt, u64::MAX, PATIENCE))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(pause(&error, Repeat::Harmless, 5, 0, PATIENCE), Some(SHORTEST));
        assert_eq!(pause(&error, Repeat::Harmless, 60, u64::MAX, Duration::from_secs(4)), None);
    }
}
