//! Who may use which routes. Probes and metrics are everybody's.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Body as _;
use plan::wire::keys::ADMIN_TOKEN_HEADER;

use super::error::{ApiError, Code};
use super::keys::{Keys, bearer};
use crate::quoted::Quoted;

/// Who may use the admin API.
#[derive(Clone, Debug)]
pub enum AdminAccess {
    /// Whoever has its token.
    Token(Arc<Keys>),
    /// Whoever is on this machine: the port is reached over loopback alone.
    Loopback,
}

/// Lets a request to the public API through if it shows one of the keys.
pub async fn check_api_key(State(keys): State<Arc<Keys>>, request: Request, next: Next) -> Response {
    let admitted = bearer(request.headers()).is_some_and(|key| keys.admit(key));
    if admitted {
        return next.run(request).await;
    }
    unauthorized("this server needs an API key: send it as Authorization: Bearer KEY", Code::InvalidApiKey)
}

/// Lets a request to the admin API through if its sender may use it.
pub async fn check_admin(State(access): State<AdminAccess>, request: Request, next: Next) -> Response {
    match access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

fn unauthorized(message: &str, code: Code) -> Response {
    let mut response = ApiError::other(StatusCode::UNAUTHORIZED, code, message.to_owned()).into_response();
    response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
    response
}

impl AdminAccess {
    #[expect(clippy::result_large_err, reason = "it is the answer")]
    fn check(&self, request: &Request) -> Result<(), Response> {
        let headers = request.headers();
        match self {
            Self::Token(keys) => {
                let shown = headers.get(ADMIN_TOKEN_HEADER).map(HeaderValue::as_bytes).or_else(|| bearer(headers));
                if !shown.is_some_and(|token| keys.admit(token)) {
                    let message = format!(
                        "the admin API needs its token: send it as Authorization: Bearer TOKEN or {ADMIN_TOKEN_HEADER}"
                    );
                    return Err(unauthorized(&message, Code::InvalidApiKey));
                }
            }
            Self::Loopback => check_host(headers).map_err(ApiError::into_response)?,
        }
        check_origin(headers).and_then(|()| check_type(request)).map_err(ApiError::into_response)
    }
}

fn forbidden(message: String) -> ApiError {
    ApiError::other(StatusCode::FORBIDDEN, Code::Forbidden, message)
}

/// A page whose name was made to lead to this machine still sends that name.
fn check_host(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let is_this_machine = |authority: &Authority| is_loopback(authority.host()) && !authority.as_str().contains('@');
    let hosts = headers.get_all(HOST).iter().count();
    if hosts == 1 && authority.as_ref().is_some_and(is_this_machine) {
        return Ok(());
    }
    let host = Quoted::<64>::from(host.unwrap_or_default());
    Err(forbidden(format!(
        "the admin API is for this machine alone: the Host must be localhost or 127.0.0.1, not \"{host}\""
    )))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// No page of another origin may ask for anything, whatever its browser would send along.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let of_origin = origin.to_str().ok().and_then(|origin| {
        let (scheme, host) = origin.split_once("://")?;
        (matches!(scheme, "http" | "https") && !host.is_empty()).then_some(host)
    });
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if of_origin.is_some() && of_origin == host {
        return Ok(());
    }
    let origin = Quoted::<64>::new(String::from_utf8_lossy(origin.as_bytes()));
    Err(forbidden(format!("pages of \"{origin}\" may not use the admin API")))
}

/// Forms of other pages can send any type but this one.
fn check_type(request: &Request) -> Result<(), ApiError> {
    if request.method() != Method::POST || request.body().is_end_stream() {
        return Ok(());
    }
    let found = request.headers().get(CONTENT_TYPE).and_then(|found| found.to_str().ok()).unwrap_or_default();
    if found.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = format!("the Content-Type must be application/json, not \"{}\"", Quoted::<64>::from(found));
    Err(ApiError::other(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, message))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: Method, headers: &[(&'static str, &str)], body: &'static str) -> Request {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn status(access: &AdminAccess, request: &Request) -> u16 {
        access.check(request).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn over_loopback_only_requests_that_mean_this_machine_are_taken() {
        for (host, expected) in [
            ("localhost:8001", 200),
            ("127.0.0.1:8001", 200),
            ("127.9.9.9", 200),
            ("[::1]:8001", 200),
            ("LOCALHOST", 200),
            ("rebound.example:8001", 403),
            ("127.0.0.1.example", 403),
            ("localhost.example", 403),
            ("10.0.0.1", 403),
            ("evil@localhost", 403),
            ("", 403),
        ] {
            assert_eq!(
                status(&AdminAccess::Loopback, &request(Method::GET, &[("host", host)], "")),
                expected,
                "{host}"
            );
        }
        assert_eq!(status(&AdminAccess::Loopback, &request(Method::GET, &[], "")), 403);
        let mut twice = request(Method::GET, &[("host", "localhost")], "");
        twice.headers_mut().append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(status(&AdminAccess::Loopback, &twice), 403);
    }

    #[test]
    fn no_page_of_another_origin_and_no_form_is_taken() {
        let host = ("host", "localhost:8001");
        let json = ("content-type", "application/json; charset=utf-8");
        for (method, headers, body, expected) in [
            (Method::POST, vec![host, json], "{}", 200),
            (Method::POST, vec![host], "", 200),
            (Method::POST, vec![host], "{}", 415),
            (Method::POST, vec![host, ("content-type", "text/plain")], "{}", 415),
            (Method::POST, vec![host, ("content-type", "application/x-www-form-urlencoded")], "{}", 415),
            (Method::POST, vec![host, json, ("origin", "http://localhost:8001")], "{}", 200),
            (Method::POST, vec![host, json, ("origin", "http://localhost:3000")], "{}", 403),
            (Method::POST, vec![host, json, ("origin", "https://evil.example")], "{}", 403),
            (Method::GET, vec![host, ("origin", "null")], "", 403),
            (Method::GET, vec![host, ("origin", "file://localhost:8001")], "", 403),
            (Method::GET, vec![host, ("origin", "https://")], "", 403),
        ] {
            assert_eq!(status(&AdminAccess::Loopback, &request(method, &headers, body)), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_needed_in_either_header_and_then_any_host_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let access = AdminAccess::Token(Arc::new(Keys::load(&path, 32).unwrap()));
        let token = "0123456789abcdef0123456789abcdef";
        let bearer = format!("Bearer {token}");
        for (headers, expected) in [
            (vec![("authorization", bearer.as_str())], 200),
            (vec![(ADMIN_TOKEN_HEADER, token), ("host", "any.example")], 200),
            (vec![(ADMIN_TOKEN_HEADER, token), ("origin", "https://evil.example")], 403),
            (vec![("authorization", token)], 401),
            (vec![(ADMIN_TOKEN_HEADER, "wrong"), ("authorization", bearer.as_str())], 401),
            (vec![("host", "localhost")], 401),
        ] {
            assert_eq!(status(&access, &request(Method::GET, &headers, "")), expected, "{headers:?}");
        }
    }
}
