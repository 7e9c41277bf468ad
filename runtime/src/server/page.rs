//! The page at the admin port: what goes on now, as a picture in a browser. It holds nothing that anybody may not see, and asks the
//! endpoint beside it with the token that whoever looks types in. All of it is in this program; nothing comes from anywhere else.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::App;

/// Each file with where it is served and its type. The page names the others beside it, so that it works behind a proxy too.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/monitor.css", "text/css; charset=utf-8", include_str!("page/monitor.css")),
    ("/monitor.js", "text/javascript; charset=utf-8", include_str!("page/monitor.js")),
];

/// Only what this port serves is loaded and asked, no form is sent anywhere, and no markup is made of text: what a rank says cannot
/// become a script that reads the token.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; base-uri \
                      'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // After an upgrade the page is that of the program that answers it.
    (CACHE_CONTROL, "no-store"),
];

/// The routes, without their state.
pub fn routes() -> Router<App> {
    FILES
        .into_iter()
        .fold(Router::new(), |routes, (path, kind, text)| routes.route(path, get(async move || answer(kind, text))))
}

fn answer(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
