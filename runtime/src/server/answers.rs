//! The room for what is kept of each answer until it is sent, and of its prompts.

use axum::http::StatusCode;

use super::error::{ApiError, Code};
use super::scores::TOKEN_BYTES;
use crate::room::Room;
pub use crate::room::{Lost, Share};

/// Answers that find room at the same time, if each is as large as it may be.
pub const LARGEST_AT_ONCE: usize = 4;

/// Room there is at least: a thousand answers of some thousand tokens, with some best tokens beside each.
pub const LEAST_ROOM: usize = 256 << 20;

/// The room. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Answers(Room);

impl Answers {
    /// Room for the answers to requests that may have so many log-probabilities each.
    #[must_use]
    pub fn of_scores(most: usize) -> Self {
        Self::of(most.saturating_mul(TOKEN_BYTES).saturating_mul(LARGEST_AT_ONCE).max(LEAST_ROOM))
    }

    /// Room for so many bytes.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self(Room::of(bytes))
    }

    /// A share with room for so many bytes, of an answer of which is known that it needs these.
    ///
    /// # Errors
    /// If there is no such room.
    pub fn share(&self, bytes: usize) -> Result<Share, ApiError> {
        self.0.share(bytes).ok_or_else(|| {
            let message = "the answers to other requests take all the room there is; try again in a moment".to_owned();
            let refusal = ApiError::other(StatusCode::TOO_MANY_REQUESTS, Code::RateLimitExceeded, message);
            ApiError { retry_after: Some(1), ..refusal }
        })
    }
}

impl From<Lost> for ApiError {
    fn from(_: Lost) -> Self {
        Self::full("the answer is the largest of all, and smaller ones need its room; lower n, logprobs or max_tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_may_come_again() {
        let refused = Answers::of(9).share(10).unwrap_err();
        let found = (refused.status.as_u16(), refused.code, refused.retry_after);
        assert_eq!(found, (429, Code::RateLimitExceeded, Some(1)));
    }
}
