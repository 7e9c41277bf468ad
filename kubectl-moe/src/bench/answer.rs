//! An answer as it comes: server-sent events, cut anywhere, and the moments at which their tokens were there. Pure.

use std::time::Duration;

use operator::words::shorten;
use serde::Deserialize;

use crate::refusal::Reason;

/// A request that was answered. Times are since its stretch began.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub sent: Duration,
    /// When each part of the answer was there: a token, or some.
    pub pieces: Vec<Duration>,
    pub done: Duration,
    /// Tokens generated, as the server counts them.
    pub tokens: u64,
}

/// Longest line of a stream.
const LONGEST: usize = 1 << 20;

/// Reads a stream.
#[derive(Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    pieces: Vec<Duration>,
    tokens: Option<u64>,
    is_done: bool,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    finish_reason: Option<String>,
}

impl Choice {
    /// A token need have no text: it may be special, or a part of a character. What ends an answer is none.
    const fn has_token(&self) -> bool {
        !self.text.is_empty() || self.finish_reason.is_none()
    }
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u64,
}

impl Reader {
    /// Takes what has come at a moment.
    ///
    /// # Errors
    /// If it is no event of a completion, or tells why the completion failed.
    pub fn take(&mut self, bytes: &[u8], at: Duration) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let data = data.trim_ascii();
            if data == b"[DONE]" {
                self.is_done = true;
                continue;
            }
            let unreadable = |_| format!("the server streams {}", shorten(&String::from_utf8_lossy(data)));
            let event: Event = serde_json::from_slice(data).map_err(unreadable)?;
            if let Some(Reason { message }) = event.error {
                return Err(shorten(&message));
            }
            if event.choices.iter().any(Choice::has_token) {
                self.pieces.push(at);
            }
            self.tokens = event.usage.map(|usage| usage.completion_tokens).or(self.tokens);
        }
        if self.rest.len() > LONGEST {
            return Err(format!("the server streams a line of more than {}", crate::words::bytes(LONGEST as f64)));
        }
        Ok(())
    }

    /// What it was.
    ///
    /// # Errors
    /// If the stream broke off, or nothing was in it.
    pub fn end(self, sent: Duration, done: Duration) -> Result<Sample, String> {
        if !self.is_done {
            return Err("the stream ended before the answer did".to_owned());
        }
        // A server that counts nothing sends a token in each piece.
        let tokens = self.tokens.unwrap_or(self.pieces.len() as u64);
        if self.pieces.is_empty() {
            return Err("the answer has no token".to_owned());
        }
        Ok(Sample { sent, pieces: self.pieces, done, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\": [{\"text\": \"a\"}]}\n\n: still there\n\ndata: {\"choices\": [{\"text\": \" b\\n\"}], \"usage\": null}\r\n\r\n\
                          data: {\"choices\": [{\"text\": \"\"}]}\n\ndata: {\"choices\": [{\"text\": \"\", \"finish_reason\": \"length\"}]}\n\n\
                          data: {\"choices\": [], \"usage\": {\"completion_tokens\": 3}}\n\ndata: [DONE]\n\n";

    #[test]
    fn pieces_are_told_by_when_they_were_whole_wherever_the_stream_is_cut() {
        for cut in 1..STREAM.len() {
            let (one, other) = STREAM.as_bytes().split_at(cut);
            let mut reader = Reader::default();
            reader.take(one, Duration::from_millis(1)).unwrap();
            reader.take(other, Duration::from_millis(2)).unwrap();
            let sample = reader.end(Duration::ZERO, Duration::from_millis(3)).unwrap();
            assert_eq!((sample.pieces.len(), sample.tokens), (3, 3), "cut at {cut}");
            let first_end = STREAM.find('\n').unwrap();
            assert_eq!(sample.pieces[0] == Duration::from_millis(1), cut > first_end, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let read = |stream: &str| {
            let mut reader = Reader::default();
            reader.take(stream.as_bytes(), Duration::ZERO).and_then(|()| reader.end(Duration::ZERO, Duration::ZERO))
        };
        assert_eq!(read("data: {\"error\": {\"message\": \"too\\u001blate\"}}\n").unwrap_err(), "too late");
        assert_eq!(read("data: <html>\n").unwrap_err(), "the server streams <html>");
        assert_eq!(
            read("data: {\"choices\": [{\"text\": \"a\"}]}\n").unwrap_err(),
            "the stream ended before the answer did"
        );
        assert_eq!(read("data: [DONE]\n").unwrap_err(), "the answer has no token");
    }
}
