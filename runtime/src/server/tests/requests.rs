//! Requests of every kind against what docs/api.md says of them: null, neutral, odd and bad values of every field of
//! OpenAI's and vLLM's protocols.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::coordinator::fake::Fake;
use crate::server::fields::known::{KNOWN, Rule};
use crate::server::fixture::Server;

const TABLE: &str = include_str!("requests.txt");

/// A row of the table.
#[derive(Debug)]
struct Row {
    chat: bool,
    fields: &'static str,
    expected: &'static str,
}

fn rows() -> Vec<Row> {
    let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let row = |cells: Vec<&'static str>| match cells[..] {
        [route, fields, expected] => Row { chat: route == "chat", fields, expected },
        _ => panic!("three cells: {cells:?}"),
    };
    cells.map(row).collect()
}

impl Row {
    fn request(&self) -> Request<Body> {
        let (route, plain) = if self.chat {
            ("/v1/chat/completions", r#""messages": [{"role": "user", "content": "Hi"}]"#)
        } else {
            ("/v1/completions", r#""prompt": "Hi""#)
        };
        let body = format!(r#"{{{plain}, "max_tokens": 1, {}}}"#, written_out(self.fields));
        Request::post(route).body(Body::from(body)).unwrap()
    }
}

/// Fields with what is `«3 of 1»` in the table as `1, 1, 1`, the innermost first.
fn written_out(fields: &str) -> String {
    let Some((rest, after)) = fields.split_once('»') else { return fields.to_owned() };
    let (before, repeated) = rest.rsplit_once('«').unwrap();
    let (count, item) = repeated.split_once(" of ").unwrap();
    let items = vec![item; count.parse().unwrap()].join(", ");
    written_out(&format!("{before}{items}{after}"))
}

/// What was answered, in the words of the expectation.
fn found(expected: &str, status: u16, answer: &Value) -> String {
    if status != 200 {
        let text = |field: &str| answer["error"][field].as_str().unwrap_or("-").to_owned();
        return format!("{status} {} {}", text("param"), text("code"));
    }
    let Some((_, fact)) = expected.split_once(' ') else { return status.to_string() };
    let (pointer, _) = fact.split_once('=').unwrap_or((fact, ""));
    let value = answer.pointer(pointer).unwrap_or(&Value::Null);
    format!("{status} {pointer}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[tokio::test]
async fn requests_are_answered_as_documented() {
    let server = Server::start(Fake::default());
    let rows = rows();
    assert!(rows.len() > 300, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let answer = server.send(row.request()).await;
        let json = answer.json();
        let found = found(row.expected, answer.status.as_u16(), &json);
        let message = json["error"]["message"].as_str().unwrap_or_default();
        if found != row.expected || message.chars().count() > 300 {
            let fields: String = row.fields.chars().take(200).collect();
            wrong.push(format!("chat {}: {fields}\n    {found} instead of {}: {message}", row.chat, row.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_known_field_is_in_the_table_with_null_and_with_another_value() {
    for (name, chat, completions) in KNOWN {
        for (is_chat, rule) in [(true, chat), (false, completions)] {
            let quoted = format!("\"{name}\": ");
            let values = rows();
            let values: Vec<&str> = values
                .iter()
                .filter(|row| row.chat == is_chat)
                .filter_map(|row| row.fields.strip_prefix(quoted.as_str()))
                .collect();
            let known = values.iter().any(|value| value.starts_with("null"));
            assert!(known, "{name} null, chat {is_chat}");
            assert!(
                values.iter().any(|value| !value.starts_with("null")) || *rule == Rule::Elsewhere,
                "{name} {values:?}"
            );
        }
    }
}
