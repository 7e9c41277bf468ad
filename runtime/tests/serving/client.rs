//! Requests to a group.

use futures::StreamExt as _;
use serde_json::Value;

use crate::group::Group;

/// The answer to a completion, with its status.
pub async fn complete(group: &Group, body: &Value) -> (u16, Value) {
    let answer = reqwest::Client::new().post(format!("{}/v1/completions", group.url)).body(body.to_string()).send();
    let answer = answer.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The text of the first choice.
pub async fn text(group: &Group, body: &Value) -> String {
    let (status, json) = complete(group, body).await;
    assert_eq!(status, 200, "{json}");
    json["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// A completion that is read as it grows.
pub struct Streaming {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    unread: String,
    /// What has been read.
    pub text: String,
    /// Whether its end has been read.
    pub done: bool,
}

impl Streaming {
    pub async fn start(group: &Group, mut body: Value) -> Self {
        body["stream"] = true.into();
        let request = reqwest::Client::new().post(format!("{}/v1/completions", group.url)).body(body.to_string());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Self { bytes: answer.bytes_stream().boxed(), unread: String::new(), text: String::new(), done: false }
    }

    /// Reads on until `enough` or the end.
    pub async fn read(&mut self, enough: impl Fn(&str) -> bool) {
        while !self.done && !enough(&self.text) {
            let bytes = self.bytes.next().await.expect("a stream ends with [DONE]").unwrap();
            self.unread.push_str(std::str::from_utf8(&bytes).unwrap());
            while let Some(end) = self.unread.find("\n\n") {
                let event: String = self.unread.drain(..end + 2).collect();
                match event.trim_end().strip_prefix("data: ") {
                    Some("[DONE]") => self.done = true,
                    Some(data) => {
                        let chunk: Value = serde_json::from_str(data).unwrap();
                        assert!(chunk["error"].is_null(), "{chunk}");
                        self.text.push_str(chunk["choices"][0]["text"].as_str().unwrap());
                    }
                    // A sign of life of the connection.
                    None => {}
                }
            }
        }
    }
}
