//! One streamed request of the OpenAI API.

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

use super::Target;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A text to be continued.
    Text(&'a str),
    /// A message of a user.
    Chat(&'a str),
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ended: `stop` or `length`.
    pub finish_reason: String,
}

/// Asks greedily and calls `arrived` with the number of pieces of text in each part of the stream. A text goes on for
/// `max_tokens` whatever comes; a chat ends where the model ends it.
///
/// # Errors
/// If the server refuses, or the stream ends before the answer does.
pub async fn ask(
    http: &reqwest::Client,
    target: &Target,
    question: Question<'_>,
    mut arrived: impl FnMut(u64),
) -> Result<Answer> {
    let mut body = json!({
        "model": target.model, "max_tokens": target.max_tokens, "temperature": 0, "stream": true,
    });
    let path = match question {
        Question::Text(prompt) => {
            body["prompt"] = json!(prompt);
            body["ignore_eos"] = json!(true);
            "completions"
        }
        Question::Chat(content) => {
            body["messages"] = json!([{ "role": "user", "content": content }]);
            "chat/completions"
        }
    };
    let response = http.post(format!("{}/v1/{path}", target.url)).json(&body).send().await.context("sending")?;
    let status = response.status();
    if !status.is_success() {
        bail!("{status}: {}", response.text().await.unwrap_or_default());
    }
    let mut answer = Answer::default();
    let mut parser = Parser::default();
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        let pieces = parser.feed(&part.context("the stream broke off")?, &mut answer)?;
        if pieces > 0 {
            arrived(pieces);
        }
    }
    ensure!(parser.done, "the stream ended without [DONE]");
    ensure!(!answer.finish_reason.is_empty(), "the stream ended without a finish reason");
    Ok(answer)
}

/// Server-sent events, cut anywhere.
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    done: bool,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8], answer: &mut Answer) -> Result<u64> {
        self.rest.extend_from_slice(bytes);
        let mut pieces = 0;
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line)?.trim();
            let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                self.done = true;
                continue;
            }
            let event: Value = serde_json::from_str(data).with_context(|| format!("an event: {data}"))?;
            if let Some(error) = event.get("error") {
                bail!("{error}");
            }
            let choice = &event["choices"][0];
            let text = choice["text"].as_str().or_else(|| choice["delta"]["content"].as_str()).unwrap_or_default();
            if !text.is_empty() {
                answer.text.push_str(text);
                pieces += 1;
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                reason.clone_into(&mut answer.finish_reason);
            }
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
                          data: {\"choices\":[{\"delta\":{\"content\":\"caf\\u00e9 \"}}]}\n\n: a comment\n\n\
                          data: {\"choices\":[{\"text\":\"é!\",\"finish_reason\":null}]}\n\n\
                          data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n\
                          data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\ndata: [DONE]\n\n";

    #[test]
    fn a_stream_gives_the_same_answer_wherever_it_is_cut() {
        let expected = Answer { text: "café é!".into(), finish_reason: "length".into() };
        for size in 1..STREAM.len() {
            let (mut parser, mut answer, mut pieces) = (Parser::default(), Answer::default(), 0);
            for part in STREAM.as_bytes().chunks(size) {
                pieces += parser.feed(part, &mut answer).unwrap();
            }
            assert_eq!((answer, pieces, parser.done), (expected.clone(), 2, true), "cut every {size} bytes");
        }
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let error = Parser::default().feed(b"data: {\"error\":{\"message\":\"lost\"}}\n\n", &mut Answer::default());
        assert_eq!(error.unwrap_err().to_string(), "{\"message\":\"lost\"}");
    }
}
