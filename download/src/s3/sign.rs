//! Signatures of requests, version 4. Pure.

use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use plan::words::hexadecimal;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// SHA-256 of no body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Keys of an account.
#[derive(Clone)]
pub struct Keys {
    /// Name of the key.
    pub id: String,
    /// The key.
    pub secret: String,
    /// What temporary keys come with.
    pub session: Option<String>,
}

/// What is signed.
pub(super) struct Signed<'a> {
    pub method: &'a str,
    pub host: &'a str,
    /// The path of the URL, in which what S3 does not leave as it is is escaped.
    pub path: &'a str,
    /// The query of the URL, its parameters escaped and in the order of their names.
    pub query: &'a str,
    /// Headers of the request beside those of the signature.
    pub headers: &'a [(&'static str, &'a str)],
}

impl Keys {
    /// Headers by which a request without a body is known.
    pub(super) fn sign(&self, request: &Signed<'_>, region: &str, now: Timestamp) -> Vec<(&'static str, String)> {
        let time = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let mut headers = vec![("host", request.host.to_owned())];
        headers.extend(request.headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        headers.extend([("x-amz-content-sha256", EMPTY.to_owned()), ("x-amz-date", time.clone())]);
        headers.extend(self.session.clone().map(|session| ("x-amz-security-token", session)));
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().flat_map(|(name, value)| [name, ":", value.trim(), "\n"]).collect();
        let Signed { method, path, query, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{EMPTY}");
        let scope = format!("{day}/{region}/s3/aws4_request");
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hexadecimal(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, region, "s3", "aws4_request"] {
            key = mac(&key, part);
        }
        let signature = hexadecimal(&mac(&key, &text));
        let authorization =
            format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id);
        // The client of HTTP says by itself which host it asks.
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", authorization));
        headers
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is one");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned();
        Keys { id: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret, session: None }
    }

    fn signature(request: &Signed<'_>) -> String {
        let headers = keys().sign(request, "us-east-1", "2013-05-24T00:00:00Z".parse().unwrap());
        let (_, authorization) = headers.into_iter().find(|(name, _)| *name == "authorization").unwrap();
        authorization.rsplit('=').next().unwrap().to_owned()
    }

    /// The examples of Amazon's page on signatures in headers.
    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let host = "examplebucket.s3.amazonaws.com";
        let object = Signed { method: "GET", host, path: "/test.txt", query: "", headers: &[("range", "bytes=0-9")] };
        assert_eq!(signature(&object), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        let list = Signed { method: "GET", host, path: "/", query: "max-keys=2&prefix=J", headers: &[] };
        assert_eq!(signature(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    }
}
