//! Requests, redirects and what statuses mean. A token is sent to the host that it is for, and to no other.

use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Response, Url};

use crate::error::DownloadError;

/// Redirects of one request that are followed.
const MOST_REDIRECTS: usize = 10;
/// Bytes of an answer that is read as a whole.
const LARGEST_ANSWER: usize = 64 << 20;
/// Bytes of an answer that says what is wrong.
const LARGEST_ERROR: usize = 16 << 10;
/// How long the words of an error are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Letters of a source's own words that are told.
const MOST_WORDS: usize = 300;

/// How long what may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Without a byte.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), silence: Duration::from_mins(1) }
    }
}

/// Something to ask for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is for, for errors.
    pub what: String,
    /// The URL that is asked first.
    pub url: Url,
    /// Headers that go with it, wherever it leads.
    pub headers: HeaderMap,
    /// Headers for the host of `url` alone.
    pub secrets: HeaderMap,
    /// Whether it may lead elsewhere: a request that is signed for one host may not.
    pub may_lead_elsewhere: bool,
    /// What to do where it is refused.
    pub advice: fn(StatusCode, &str) -> &'static str,
}

impl Request {
    /// With one header more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// An answer that is not an error: what was asked for, or where it leads.
pub(crate) struct Answer {
    pub response: Response,
    /// Whether it is a redirect that was not followed.
    pub leads_elsewhere: bool,
}

impl Client {
    /// Takes proxies from the environment, and certificates from the system and from `SSL_CERT_FILE` beside those it comes with.
    ///
    /// # Errors
    /// If a proxy or a certificate cannot be read.
    pub fn new(timeouts: Timeouts) -> Result<Self, DownloadError> {
        let client = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.silence)
            .redirect(Policy::none())
            .user_agent(concat!("swiftbalancer-download/", env!("CARGO_PKG_VERSION")))
            .build();
        let what = || "setting the client of HTTP up".to_owned();
        client.map(Self).map_err(|source| DownloadError::Connection { what: what(), source })
    }

    /// The answer to a `GET`, wherever it leads.
    pub(crate) async fn get(&self, request: &Request) -> Result<Response, DownloadError> {
        Ok(self.send(Method::GET, request, true).await?.response)
    }

    /// The answer to a `HEAD`, of the host of the URL.
    pub(crate) async fn head(&self, request: &Request) -> Result<Answer, DownloadError> {
        self.send(Method::HEAD, request, false).await
    }

    /// A whole answer.
    pub(crate) async fn read(&self, request: &Request) -> Result<Vec<u8>, DownloadError> {
        let mut response = self.get(request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| connection(&request.what, source))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(DownloadError::Answer {
                    what: request.what.clone(),
                    expected: "an answer of at most 64 MiB",
                    problem: "it is longer".to_owned(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn send(&self, method: Method, request: &Request, elsewhere: bool) -> Result<Answer, DownloadError> {
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = request.headers.clone();
            if url.origin() == request.url.origin() {
                headers.extend(request.secrets.clone());
            }
            debug_assert!(url.origin() == request.url.origin() || !headers.contains_key(AUTHORIZATION));
            let sent = self.0.request(method.clone(), url.clone()).headers(headers).send().await;
            let response = sent.map_err(|source| connection(&request.what, source.without_url()))?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return judge(request, response).await.map(|response| Answer { response, leads_elsewhere: false });
            }
            let to = next(request, &url, response.headers())?;
            if !elsewhere && to.origin() != request.url.origin() {
                return Ok(Answer { response, leads_elsewhere: true });
            }
            url = to;
        }
        Err(redirect(request, url.as_str(), "it has led on too often"))
    }
}

fn connection(what: &str, source: reqwest::Error) -> DownloadError {
    DownloadError::Connection { what: what.to_owned(), source: source.without_url() }
}

fn redirect(request: &Request, to: &str, why: &'static str) -> DownloadError {
    // What a host was asked for after `?` may be a signature.
    let to = to.split('?').next().unwrap_or_default().to_owned();
    DownloadError::Redirect { what: request.what.clone(), to, why }
}

fn next(request: &Request, from: &Url, headers: &HeaderMap) -> Result<Url, DownloadError> {
    let to = headers.get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
    // Amazon's answer for a bucket of another region leads nowhere.
    if !request.may_lead_elsewhere {
        return Err(redirect(
            request,
            to,
            "the request is signed for one host and region: set region and endpoint of model.source.s3 to those of the bucket",
        ));
    }
    let url = from.join(to).ok().filter(|_| !to.is_empty());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    let Some(url) = url else { return Err(redirect(request, to, "it is no URL of HTTP")) };
    if from.scheme() == "https" && url.scheme() == "http" {
        return Err(redirect(request, to, "it leads from an encrypted connection to one that is not"));
    }
    Ok(url)
}

/// An answer that has what was asked for.
async fn judge(request: &Request, response: Response) -> Result<Response, DownloadError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let what = request.what.clone();
    let wait = asked_wait(response.headers(), Timestamp::now());
    let (code, said) = words(response).await;
    let is_busy = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    let number = status.as_u16();
    if is_busy {
        return Err(DownloadError::Busy { what, status: number, said, wait });
    }
    Err(DownloadError::Refused { what, status: number, said, advice: (request.advice)(status, &code) })
}

/// What a source says is wrong: its code, and its words after a space, if there are some.
async fn words(mut response: Response) -> (String, String) {
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned).unwrap_or_default()
    };
    let (code, message) = (header("x-error-code"), header("x-error-message"));
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_ERROR {
                break;
            }
        }
    };
    // What has come by then is told.
    let _ = tokio::time::timeout(PATIENCE, read).await;
    let (xml_code, xml_message) = crate::s3::error(&String::from_utf8_lossy(&body));
    let code = if code.is_empty() { xml_code } else { code };
    let message = if message.is_empty() { xml_message } else { message };
    let told: Vec<String> = [code.as_str(), &message].into_iter().filter(|told| !told.is_empty()).map(tamed).collect();
    let said = if told.is_empty() { String::new() } else { format!(" ({})", told.join(": ")) };
    (code, said)
}

/// Words of others: on one line, and short.
fn tamed(words: &str) -> String {
    let plain = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(MOST_WORDS).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long a source asks to be left alone: in seconds, as a date, or as the time until a limit begins anew.
fn asked_wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(RETRY_AFTER.as_str());
    let seconds = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
    let date = || {
        let at = Timestamp::try_from(httpdate::parse_http_date(after?).ok()?).ok()?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
    };
    let reset = || {
        let parts = text("ratelimit")?.split([';', ',']).map(str::trim).filter_map(|part| part.strip_prefix("t="));
        parts.filter_map(|seconds| seconds.parse().ok()).max().map(Duration::from_secs)
    };
    seconds.or_else(date).or_else(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_as_a_date_or_as_the_rest_of_a_window() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let wait = |name: &'static str, value: &str| {
            asked_wait(&HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())]), now)
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(wait("retry-after", "soon"), None);
    }
}
