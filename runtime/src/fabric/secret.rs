//! What members share and nobody else knows: the secret of a deployment, and the one that each group has of it. Knows what is
//! proved by it only as bytes. A secret is never sent.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use plan::wire::keys::LEAST_BYTES;
use sha2::Sha256;
use thiserror::Error;

use crate::model::folder;
use crate::quoted::Quoted;

/// The longest secret, bytes: what is longer is some other file.
const MOST_BYTES: usize = 4096;

/// How long a pipe may take to give a secret: whoever writes it does so at once, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are drawn for a secret.
const DRAWN_BYTES: usize = 32;

/// Length of a proof, bytes.
pub const PROOF_BYTES: usize = 32;

/// What is drawn for a group: worth nothing to who has not the deployment's secret.
pub type Drawn = [u8; DRAWN_BYTES];

/// A secret. Shown nowhere, and not compared: what is proved by it is.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret in {path} (--secret-file) cannot be read")]
    Read {
        /// The file.
        path: Quoted,
        /// What the system says of it.
        source: io::Error,
    },
    /// It can be guessed.
    #[error(
        "the secret in {path} (--secret-file) has {found} bytes, less than {LEAST_BYTES}; make one with `openssl rand -hex 32`"
    )]
    TooShort {
        /// The file.
        path: Quoted,
        /// Its bytes, without a newline at its end.
        found: usize,
    },
    /// It is something else.
    #[error(
        "the secret in {path} (--secret-file) has more than {MOST_BYTES} bytes; name the file that holds only the secret"
    )]
    TooLong {
        /// The file.
        path: Quoted,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Draw(#[from] getrandom::Error),
}

impl Secret {
    /// The secret in a file, or that a pipe gives, without a newline at its end.
    ///
    /// # Errors
    /// If the file cannot be read, a pipe has not ended in some seconds, or it is too short or too long for a secret.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        // With the newline.
        let bytes = folder::read_once_of_at_most(path, MOST_BYTES as u64 + 2, PATIENCE);
        let bytes = bytes.map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => SecretError::TooLong { path: Quoted::path(path) },
            _ => SecretError::Read { path: Quoted::path(path), source },
        })?;
        let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        match secret.len() {
            0..LEAST_BYTES => Err(SecretError::TooShort { path: Quoted::path(path), found: secret.len() }),
            LEAST_BYTES..=MOST_BYTES => Ok(Self(secret.into())),
            _ => Err(SecretError::TooLong { path: Quoted::path(path) }),
        }
    }

    /// A secret that nobody else has: random bytes, as letters and digits, so that it can be written as a line.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn draw() -> Result<Self, SecretError> {
        let bytes = random::<DRAWN_BYTES>()?;
        Ok(Self(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()))
    }

    /// The secret of the group for which this was drawn, where `self` is the deployment's. What is drawn travels in clear; who
    /// has read it on its way has no secret yet.
    #[must_use]
    pub fn of_group(&self, drawn: &Drawn) -> Self {
        Self(Arc::from(self.prove(&[b"swiftbalancer group", drawn])))
    }

    /// The seed of pages' fingerprints, where `self` is the deployment's: the same in all of its processes, so that pages are
    /// compared from group to group, and known to nobody else.
    #[must_use]
    pub fn fingerprint_seed(&self) -> u64 {
        let proof = self.prove(&[b"swiftbalancer fingerprints"]);
        u64::from_le_bytes(std::array::from_fn(|index| proof[index]))
    }

    /// Writes it as [`Self::read`] reads it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.0)?;
        to.write_all(b"\n")
    }

    /// What only who has the secret can say of these parts.
    #[must_use]
    pub fn prove(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.code(parts).finalize().into_bytes().into()
    }

    /// Whether `proof` was made with the secret of the same parts. Takes as long for every wrong proof.
    #[must_use]
    pub fn is_proved(&self, parts: &[&[u8]], proof: &[u8; PROOF_BYTES]) -> bool {
        self.code(parts).verify_slice(proof).is_ok()
    }

    fn code(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        for part in parts {
            // Its length too, so that no other parts give the same bytes.
            code.update(&(part.len() as u64).to_le_bytes());
            code.update(part);
        }
        code
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Random bytes of the system.
///
/// # Errors
/// If it has none.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES], getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Secret, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Secret::read(file.path()).map_err(|error| error.to_string())
    }

    fn is_same(left: &Secret, right: &Secret) -> bool {
        left.is_proved(&[b"any"], &right.prove(&[b"any"]))
    }

    #[test]
    fn a_group_s_secret_is_its_deployment_s_and_its_draw_s_alone() {
        let (deployment, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let group = deployment.of_group(&[1; 32]);
        assert!(is_same(&group, &deployment.of_group(&[1; 32])));
        assert!(!is_same(&group, &deployment.of_group(&[2; 32])) && !is_same(&group, &other.of_group(&[1; 32])));
        assert!(!is_same(&group, &deployment) && !is_same(&group, &Secret([1; 32].into())));
    }

    #[test]
    fn fingerprints_of_one_deployment_have_one_seed() {
        let (deployment, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_eq!(deployment.fingerprint_seed(), deployment.clone().fingerprint_seed());
        assert_ne!(deployment.fingerprint_seed(), other.fingerprint_seed());
        assert_ne!(deployment.fingerprint_seed(), deployment.of_group(&[1; 32]).fingerprint_seed());
    }

    #[test]
    fn a_secret_is_what_its_file_holds_without_the_newline_at_its_end() {
        let plain = read(&[b'k'; 32]).unwrap();
        assert!(is_same(&read(&[&[b'k'; 32][..], b"\n"].concat()).unwrap(), &plain));
        assert!(is_same(&read(&[&[b'k'; 32][..], b"\r\n"].concat()).unwrap(), &plain));
        assert!(!is_same(&read(&[&[b'k'; 32][..], b"\n\n"].concat()).unwrap(), &plain));
        assert_eq!(format!("{plain:?}"), "Secret");
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused_with_what_to_do() {
        for (bytes, expected) in [
            (vec![], "has 0 bytes, less than 32"),
            (vec![b'k'; 31], "has 31 bytes, less than 32"),
            ([&[b'k'; 31][..], b"\n"].concat(), "has 31 bytes, less than 32"),
            (vec![b'k'; 5000], "has more than 4096 bytes"),
            (vec![b'k'; 4097], "has more than 4096 bytes"),
            ([&[b'k'; 4097][..], b"\n"].concat(), "has more than 4096 bytes"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains("--secret-file"), "{error}");
        }
        assert!(read(&[b'k'; 4096]).is_ok() && read(&[&[b'k'; 4096][..], b"\r\n"].concat()).is_ok());
        let error = Secret::read(Path::new("/dev/zero")).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("/dev/zero") && source.ends_with("not a regular file"), "{error}: {source}");
        let error = Secret::read(Path::new("/no/such/file")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_drawn_secret_is_read_as_it_was_written_and_no_two_are_alike() {
        let (secret, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let mut written = Vec::new();
        secret.write(&mut written).unwrap();
        assert!(is_same(&read(&written).unwrap(), &secret));
        assert!(!is_same(&secret, &other));
    }

    #[test]
    fn a_proof_holds_for_its_secret_and_its_parts_alone() {
        let (secret, other) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        let proof = secret.prove(&[b"ab", b"c"]);
        assert!(secret.is_proved(&[b"ab", b"c"], &proof));
        assert!(!other.is_proved(&[b"ab", b"c"], &proof));
        assert!(!secret.is_proved(&[b"a", b"bc"], &proof) && !secret.is_proved(&[b"abc"], &proof));
        assert!(!secret.is_proved(&[b"ab", b"c"], &[0; PROOF_BYTES]));
    }
}
