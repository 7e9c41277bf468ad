//! Who asks: the name of a request, which it gives back and has in the log, and the one line that says why it was refused
//! or failed.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use rand::Rng as _;

use super::error::ApiError;
use super::metrics::Route;
use crate::http::Reader;
use crate::quoted::Quoted;

/// Header of a request's name.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of a name that is taken from a request.
const LONGEST_ID: usize = 128;

/// The name of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The one that a request brings, if it is short and printable.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let id = headers.get(REQUEST_ID)?.to_str().ok()?;
        let is_sane = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        is_sane.then(|| Self(id.into()))
    }

    /// One that no other request has.
    fn new(random: u128) -> Self {
        Self(format!("{random:032x}").into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A request to a route that generates, as far as it outlives its handler.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Which route.
    pub route: Route,
    /// Its name.
    pub id: RequestId,
    /// Who reads the answer.
    pub reader: Reader,
}

impl Asker {
    /// Of a request that went through [`name`].
    #[must_use]
    pub fn of(request: &Request, route: Route) -> Self {
        let extensions = request.extensions();
        let id = extensions.get().cloned().unwrap_or_else(|| RequestId::new(rand::rng().random()));
        Self { route, id, reader: extensions.get().cloned().unwrap_or_else(Reader::patient) }
    }

    /// Says that an answer ended in an error after it had begun.
    pub fn log_failure(&self, error: &ApiError) {
        let route = match self.route {
            Route::Completions => "/v1/completions",
            Route::Chat => "/v1/chat/completions",
        };
        log("POST", route, &self.id, error);
    }
}

/// Names a request, gives the name back, and says in the log why it was refused or failed, if it was.
pub async fn name(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers()).unwrap_or_else(|| RequestId::new(rand::rng().random()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<ApiError>() {
        log(method.as_str(), &path, &id, error);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// One line, however long what was sent is.
fn log(method: &str, route: &str, id: &RequestId, error: &ApiError) {
    let (method, route) = (Quoted::<16>::from(method), Quoted::<64>::from(route));
    let ApiError { status, message, param, code, .. } = error;
    let (status, code, param) = (status.as_u16(), <&str>::from(code), param.as_deref().map(Quoted::<64>::from));
    let (param, reason) = (param.as_ref().map(tracing::field::display), Quoted::<300>::from(message));
    if status < 500 {
        tracing::info!(%method, %route, status, param, code, %id, %reason, "request refused");
    } else {
        tracing::warn!(%method, %route, status, param, code, %id, %reason, "request failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_over_if_it_is_short_and_printable() {
        let of = |id: &[u8]| RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]));
        assert_eq!(of(b"trace-7/a").unwrap().to_string(), "trace-7/a");
        for bad in [&b""[..], b"two words", "é".as_bytes(), &[b'x'; 129]] {
            assert_eq!(of(bad), None);
        }
        assert_eq!(RequestId::new(7).to_string().len(), 32);
    }
}
