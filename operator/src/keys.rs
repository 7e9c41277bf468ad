//! The keys of a deployment: what the members of its groups prove with that they belong, and the token of its admin API.
//! Types only; where randomness comes from and where keys are stored is decided elsewhere. Their values are never shown,
//! neither by `Debug` nor where an object is serialized for people.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use http::HeaderValue;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use plan::wire::keys::{ADMIN_TOKEN, GROUP_SECRET, LEAST_BYTES};
use plan::words::hexadecimal;
use sha2::{Digest as _, Sha256};

/// Bytes of randomness of both keys.
pub const RANDOM_BYTES: usize = 2 * LEAST_BYTES;

/// Bearer token of an admin API.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    /// Reads a token; `None` if it is too short or cannot be a header.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let token = std::str::from_utf8(bytes).ok()?.trim_ascii();
        let is_token = token.len() >= LEAST_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(token.to_owned()))
    }

    /// The token as a header that no log shows.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        sensitive(&self.0)
    }

    /// `Bearer` and the token, as a header that no log shows.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        sensitive(&format!("Bearer {}", self.0))
    }
}

fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).expect("a token has only characters that a header may have");
    value.set_sensitive(true);
    value
}

impl Debug for AdminToken {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminToken(..)")
    }
}

/// Both keys of a deployment.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    group_secret: Vec<u8>,
    admin_token: AdminToken,
}

impl Debug for Keys {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(..)")
    }
}

impl Keys {
    /// Keys made of randomness, as hexadecimal digits: nothing has to be escaped anywhere.
    #[must_use]
    pub fn from_random(bytes: &[u8; RANDOM_BYTES]) -> Self {
        let (secret, token) = bytes.split_at(LEAST_BYTES);
        Self { group_secret: hexadecimal(secret).into_bytes(), admin_token: AdminToken(hexadecimal(token)) }
    }

    /// Keys that a Secret holds; `None` if one is missing or too short.
    #[must_use]
    pub fn read(secret: &Secret) -> Option<Self> {
        let value = |key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.as_slice());
        let group_secret = value(GROUP_SECRET).filter(|value| value.trim_ascii().len() >= LEAST_BYTES)?.to_vec();
        Some(Self { group_secret, admin_token: AdminToken::read(value(ADMIN_TOKEN)?)? })
    }

    /// What a Secret holds.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let Self { group_secret, admin_token } = self;
        let values = [(GROUP_SECRET, group_secret.clone()), (ADMIN_TOKEN, admin_token.0.clone().into_bytes())];
        values.map(|(key, value)| (key.to_owned(), ByteString(value))).into()
    }

    /// The token of the admin API.
    #[must_use]
    pub const fn admin_token(&self) -> &AdminToken {
        &self.admin_token
    }

    /// Tells these keys from others, and tells nothing of their values: a hash of 512 random bits. It depends on the values
    /// alone, so that keys that are restored from a backup restart nothing.
    #[must_use]
    pub fn identity(&self) -> String {
        let Self { group_secret, admin_token } = self;
        let mut hash = Sha256::new_with_prefix("swiftbalancer.io/keys");
        for value in [group_secret.as_slice(), admin_token.0.as_bytes()] {
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        hexadecimal(&hash.finalize()[..16])
    }
}

/// Keys as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKeys {
    /// Identity of the Secret that holds them.
    pub uid: String,
    /// The keys; `None` if one is missing or too short.
    pub keys: Option<Keys>,
    /// For which demand of a rotation they were made.
    pub rotation: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(group_secret: &str, admin_token: &str) -> Secret {
        let values = [(GROUP_SECRET, group_secret), (ADMIN_TOKEN, admin_token)];
        let data = values.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { data: Some(data.into()), ..Secret::default() }
    }

    fn made(seed: u8) -> Keys {
        Keys::from_random(&std::array::from_fn(|index| seed.wrapping_add(index as u8)))
    }

    #[test]
    fn keys_that_are_stored_are_read_back() {
        let keys = made(7);
        let stored = Secret { data: Some(keys.data()), ..Secret::default() };
        assert_eq!(Keys::read(&stored), Some(keys.clone()));
        let lengths: Vec<usize> = keys.data().values().map(|value| value.0.len()).collect();
        assert_eq!(lengths, [64, 64]);
    }

    #[test]
    fn a_secret_with_a_key_missing_short_or_unfit_for_a_header_is_incomplete() {
        let long = "k".repeat(LEAST_BYTES);
        let short = "k".repeat(LEAST_BYTES - 1);
        assert!(Keys::read(&secret(&long, &long)).is_some());
        assert!(Keys::read(&secret(&long, &format!("{long}\n"))).is_some(), "an editor ends files with a line end");
        for (group_secret, admin_token) in [
            (short.as_str(), long.as_str()),
            (&long, &short),
            (&long, &format!("{short} \n")),
            (&long, &format!("{long} {long}")),
            (&long, &format!("{long}\u{e9}")),
            ("", ""),
        ] {
            assert_eq!(Keys::read(&secret(group_secret, admin_token)), None, "{group_secret:?} {admin_token:?}");
        }
        for missing in [GROUP_SECRET, ADMIN_TOKEN] {
            let mut secret = secret(&long, &long);
            secret.data.as_mut().unwrap().remove(missing);
            assert_eq!(Keys::read(&secret), None, "{missing}");
        }
        assert_eq!(Keys::read(&Secret::default()), None);
    }

    #[test]
    fn nothing_that_is_printed_has_a_value() {
        let keys = made(0xa0);
        let printed = format!("{keys:?} {:?} {:?}", keys.admin_token(), keys.admin_token().authorization());
        let printed = printed + &format!("{:?} {}", keys.admin_token().header(), keys.identity());
        for value in keys.data().into_values() {
            let value = String::from_utf8(value.0).unwrap();
            assert!(!printed.contains(&value[..8]), "{printed}");
        }
    }

    #[test]
    fn an_identity_is_that_of_both_values() {
        let long = "k".repeat(LEAST_BYTES);
        let identity = |group_secret: &str, admin_token: &str| {
            Keys::read(&secret(group_secret, admin_token)).map(|keys| keys.identity()).unwrap()
        };
        let all = [
            identity(&long, &long),
            identity(&format!("{long}k"), &long),
            identity(&long, &format!("{long}k")),
            identity(&long, &"l".repeat(LEAST_BYTES)),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], identity(&long, &long));
    }
}
