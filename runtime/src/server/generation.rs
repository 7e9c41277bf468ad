//! The choices of one request while they grow, with the room that is taken for what is kept of them.

use std::sync::Arc;

use rand::Rng as _;
use tokio_stream::{StreamExt as _, StreamMap};

use super::App;
use super::answers::{Lost, Share};
use super::asker::Asker;
use super::error::{ApiError, Code};
use super::metrics::{InFlight, MOST_WAITED};
use super::served::ServedModel;
use super::text::{GrowingText, Piece, StopStrings};
use crate::coordinator::handle::{UNREAD_BYTES, Update};
use crate::coordinator::unread::Updates;
use crate::protocol::TokenScore;
use crate::scheduler::{Finish, NewSequence};
use axum::http::StatusCode;

/// What one choice gave next.
#[derive(Debug)]
pub struct Growth {
    /// The choice.
    pub choice: usize,
    /// Scores of further tokens of its prompt.
    pub prompt_scores: Vec<TokenScore>,
    /// Text and the tokens that begin in it.
    pub piece: Piece,
    /// OpenAI's `finish_reason`, if it ended.
    pub finish: Option<&'static str>,
    /// Whether this is what a token gave, though it may show nothing yet.
    pub of_token: bool,
    /// Tokens that the choice has given so far.
    pub given: usize,
}

/// Choices that grow. Dropping it cancels those that have not ended; so does a stop string for its own.
pub struct Generation {
    model: Arc<ServedModel>,
    updates: StreamMap<usize, Updates>,
    /// Choices of which there is nothing to compute, and which have not been told.
    empty: Vec<usize>,
    texts: Vec<GrowingText>,
    unfinished: usize,
    /// Tokens that each choice has given.
    given: Vec<usize>,
    in_flight: InFlight,
}

impl Generation {
    /// Submits sequences, one for each choice, each with the characters of text that come before its own; with the room
    /// that they have. One that gives neither a token nor a score is none that is submitted: its prompt would be computed for
    /// nothing.
    ///
    /// # Errors
    /// If they are refused.
    pub async fn start(
        app: &App,
        asker: &Asker,
        (sequences, share): (Vec<(NewSequence, usize)>, Share),
        stops: &StopStrings,
    ) -> Result<Self, ApiError> {
        let texts = sequences.iter().map(|&(_, offset)| GrowingText::new(stops, offset)).collect();
        let unfinished = sequences.len();
        let sequences = sequences.into_iter().map(|(sequence, _)| sequence).enumerate();
        let (computed, empty): (Vec<_>, Vec<_>) = sequences.partition(|(_, sequence)| sequence.gives_something());
        let (choices, computed): (Vec<_>, Vec<_>) = computed.into_iter().unzip();
        let empty = empty.into_iter().map(|(choice, _)| choice).rev().collect();
        let receivers = if choices.is_empty() { Vec::new() } else { app.driver.submit(computed).await? };
        let unread = receivers.first().map(|updates| Arc::clone(updates.unread()));
        let updates = choices.into_iter().zip(receivers).collect();
        let in_flight = app.metrics.start(asker.clone(), share, unread);
        let given = vec![0; unfinished];
        Ok(Self { model: Arc::clone(&app.model), updates, empty, texts, unfinished, given, in_flight })
    }

    /// What comes next, of whichever choice; `None` when all have ended.
    ///
    /// # Errors
    /// If a choice cannot go on, or the room is lost; whoever answers the request counts it.
    pub async fn next(&mut self) -> Result<Option<Growth>, ApiError> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        if let Some(choice) = self.empty.pop() {
            return Ok(Some(self.grow(choice, Vec::new(), None, Some(Finish::Length))));
        }
        // What waits of it is no more in the room, though all of it may have been computed.
        if self.in_flight.most_waited() {
            self.in_flight.failed();
            return Err(ApiError::full(MOST_WAITED));
        }
        let next = tokio::select! {
            biased;
            () = self.in_flight.lost() => {
                self.in_flight.failed();
                return Err(Lost.into());
            }
            next = self.updates.next() => next,
        };
        let error = match next {
            Some((choice, Update::Output { prompt_scores, token, finish })) => {
                return Ok(Some(self.grow(choice, prompt_scores, token, finish)));
            }
            Some((_, Update::Failed(error))) => error.into(),
            None if self.in_flight.most_waited() => ApiError::full(MOST_WAITED),
            None => {
                let message = format!("more than {UNREAD_BYTES} bytes of the answer waited to be read; it was ended");
                ApiError::other(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message)
            }
        };
        self.in_flight.failed();
        Err(error)
    }

    /// Takes room for so many bytes that are kept of what came.
    ///
    /// # Errors
    /// If the room is lost, as in [`Self::next`].
    pub fn keep(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.in_flight.keep(bytes).map_err(|lost| {
            self.in_flight.failed();
            lost.into()
        })
    }

    /// What is left of the request when all its choices have ended.
    #[must_use]
    pub fn ended(self) -> InFlight {
        self.in_flight
    }

    /// The same while they are sent as they grow.
    pub const fn in_flight(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    /// Counts an error that was sent in a stream, where no route sees it.
    pub fn failed_in_stream(&self, error: &ApiError) {
        self.in_flight.failed_in_stream(error);
    }

    fn grow(
        &mut self,
        choice: usize,
        prompt_scores: Vec<TokenScore>,
        token: Option<TokenScore>,
        finish: Option<Finish>,
    ) -> Growth {
        let text = &mut self.texts[choice];
        let of_token = token.is_some();
        self.given[choice] += usize::from(of_token);
        let mut piece = match token {
            Some(token) if finish == Some(Finish::Stop) => {
                text.push_silent(token);
                Piece::default()
            }
            Some(token) => text.push(&self.model.tokenizer, token),
            None => Piece::default(),
        };
        if finish.is_some() && !piece.stopped {
            let rest = text.finish();
            piece.text.push_str(&rest.text);
            piece.tokens.extend(rest.tokens);
        }
        let finish = match finish {
            _ if piece.stopped => Some("stop"),
            Some(Finish::Stop) => Some("stop"),
            Some(Finish::Length) => Some("length"),
            None => None,
        };
        if finish.is_some() {
            self.updates.remove(&choice);
            self.unfinished -= 1;
        }
        Growth { choice, prompt_scores, piece, finish, of_token, given: self.given[choice] }
    }

    /// Tokens given so far, over all choices.
    #[must_use]
    pub fn given(&self) -> usize {
        self.given.iter().sum()
    }
}

/// The name of an answer: what its request calls itself, or else one that no other has.
#[must_use]
pub fn new_id(prefix: &str, request: Option<&str>) -> String {
    request.map_or_else(|| format!("{prefix}-{:032x}", rand::rng().random::<u128>()), |id| format!("{prefix}-{id}"))
}
