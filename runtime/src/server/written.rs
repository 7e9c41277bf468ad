//! Answers that are written while they are sent: JSON in pieces, each made when the one before has gone. So an answer costs
//! what is kept of it and not its text, and writing a long one holds up no other.

use std::iter::once;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use serde::Serialize;

use super::answers::Lost;
use super::metrics::InFlight;

/// Bytes of a piece that is sent at once; an answer that is no longer has its length in its headers.
pub const PIECE: usize = 64 << 10;

/// Characters of a text that are written at once.
const TEXT: usize = 16 << 10;

/// A part of a list, with what it is a part of, that is written at once.
const ITEMS: usize = 64;

/// JSON of plain data.
///
/// # Panics
/// Never: it is plain data.
pub fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("it is plain data")
}

/// A list of `count` items, each made when it is needed.
pub fn list(count: usize, item: impl Fn(usize) -> String) -> impl Iterator<Item = String> {
    let items = (0..count.div_ceil(ITEMS)).map(move |part| {
        let (begin, end) = (part * ITEMS, count.min((part + 1) * ITEMS));
        let separate = |index| if index == 0 { "" } else { "," };
        (begin..end).fold(String::new(), |written, index| written + separate(index) + &item(index))
    });
    once("[".to_owned()).chain(items).chain(once("]".to_owned()))
}

/// A text, which has `parts`.
pub fn text<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> impl Iterator<Item = String> {
    let parts = parts.into_iter().flat_map(|part| {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let rest = &part.as_ref()[begin..];
            let end = rest.char_indices().nth(TEXT).map_or(rest.len(), |(end, _)| end);
            begin += end;
            let written = json(&&rest[..end]);
            (end > 0).then(|| written[1..written.len() - 1].to_owned())
        })
    });
    once("\"".to_owned()).chain(parts).chain(once("\"".to_owned()))
}

/// The answer that has these parts, of a request that is being answered until all of it has been taken.
pub fn answer(parts: impl Iterator<Item = String> + Send + 'static, mut request: InFlight) -> Response {
    let mut pieces = Pieces(parts);
    let first = pieces.next().unwrap_or_default();
    let body = match pieces.next() {
        None => {
            request.complete();
            Body::from(first)
        }
        Some(second) => {
            request.is_sent();
            let pieces = once(first).chain(once(second)).chain(pieces);
            Body::from_stream(stream::iter(Sent { pieces, request }))
        }
    };
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Parts put together to pieces that are worth sending.
struct Pieces<I>(I);

impl<I: Iterator<Item = String>> Iterator for Pieces<I> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut piece = self.0.next()?;
        while piece.len() < PIECE {
            let Some(part) = self.0.next() else { break };
            piece.push_str(&part);
        }
        Some(piece)
    }
}

/// Pieces on their way; what is kept for them goes when they have gone.
struct Sent<I> {
    pieces: I,
    request: InFlight,
}

impl<I: Iterator<Item = String>> Iterator for Sent<I> {
    type Item = Result<Bytes, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.request.has_lost_its_share() {
            return Some(Err(Lost));
        }
        let piece = self.pieces.next();
        if piece.is_none() {
            self.request.complete();
        }
        piece.map(|piece| Ok(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_the_json_of_what_they_have() {
        for count in [0, 1, 2, ITEMS - 1, ITEMS, ITEMS + 1, 5 * ITEMS] {
            let written: String = list(count, |index| index.to_string()).collect();
            assert_eq!(serde_json::from_str::<Vec<usize>>(&written).unwrap(), (0..count).collect::<Vec<_>>());
        }
        let long = "語\"\n".repeat(TEXT);
        for parts in [&[][..], &[""], &["a"], &["a\\", "", "\u{1}b"], &[&long, "é", &long]] {
            let written: String = text(parts).collect();
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), parts.concat());
        }
    }

    #[test]
    fn pieces_are_long_and_nothing_is_lost_between_them() {
        let parts = || (0..100_000).map(|part| format!("{part},"));
        let pieces: Vec<String> = Pieces(parts()).collect();
        assert!(pieces.len() > 5);
        assert!(pieces[..pieces.len() - 1].iter().all(|piece| (PIECE..PIECE + 10).contains(&piece.len())));
        assert_eq!(pieces.concat(), parts().collect::<String>());
        assert_eq!(Pieces(std::iter::empty()).next(), None);
    }
}
