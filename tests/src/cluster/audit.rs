//! The API server's audit log: one JSON object a line for each finished request that its policy keeps: every write,
//! and the reads of pods' service accounts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The log, and a place in it.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    position: u64,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who made it.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural name of the kind, with the subresource if there is one: `pods`, `pods/status`.
    pub resource: String,
    /// Empty if the object is not in a namespace.
    pub namespace: String,
    /// Empty if the server chooses it.
    pub name: String,
    /// Status code of the answer.
    pub code: u16,
    /// Whether RBAC refused it. Other refusals have code 403 too, such as a new object in a namespace that is being deleted.
    pub forbidden: bool,
}

impl Request {
    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    object_ref: Option<ObjectReference>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
struct ObjectReference {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

impl AuditLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, position: 0 }
    }

    /// Moves to the end: what was written until now is not returned any more.
    ///
    /// # Errors
    /// If the cluster is gone.
    pub fn skip_to_end(&mut self) -> Result<()> {
        self.position = std::fs::metadata(&self.path).context("reading the audit log")?.len();
        Ok(())
    }

    /// Requests since the last call.
    ///
    /// # Errors
    /// If the cluster is gone, or a line is not what is expected of an audit log.
    pub fn read(&mut self) -> Result<Vec<Request>> {
        let mut file = BufReader::new(File::open(&self.path).context("reading the audit log")?);
        file.seek(SeekFrom::Start(self.position))?;
        let mut requests = Vec::new();
        let mut text = String::new();
        while file.read_line(&mut text)? > 0 {
            if !text.ends_with('\n') {
                break; // being written: the next call reads it
            }
            self.position += text.len() as u64;
            requests.push(parse(&text)?);
            text.clear();
        }
        Ok(requests)
    }
}

fn parse(line: &str) -> Result<Request> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("a line of the audit log: {line}"))?;
    let object = line.object_ref.unwrap_or_default();
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    let code = line.response_status.and_then(|status| status.code).unwrap_or_default();
    let forbidden = line.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid");
    Ok(Request {
        user: line.user.username,
        verb: line.verb,
        resource,
        namespace: object.namespace,
        name: object.name,
        code,
        forbidden,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/pods/b/status","verb":"patch","user":{"username":"system:node:node-1","groups":["system:nodes"]},"objectRef":{"resource":"pods","namespace":"a","name":"b","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200}}"#;

    #[test]
    fn a_request_is_returned_once_and_a_line_that_is_not_finished_is_left_for_later() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut log = AuditLog::new(file.path().to_owned());
        let (head, tail) = LINE.split_at(40);
        writeln!(file, "{LINE}").unwrap();
        write!(file, "{head}").unwrap();
        let request = Request {
            user: "system:node:node-1".into(),
            verb: "patch".into(),
            resource: "pods/status".into(),
            namespace: "a".into(),
            name: "b".into(),
            code: 200,
            forbidden: false,
        };
        assert_eq!(log.read().unwrap(), std::slice::from_ref(&request));
        assert_eq!(log.read().unwrap(), []);
        writeln!(file, "{tail}").unwrap();
        assert_eq!(log.read().unwrap(), [request]);
        writeln!(file, "{LINE}").unwrap();
        log.skip_to_end().unwrap();
        assert_eq!(log.read().unwrap(), []);
    }
}
