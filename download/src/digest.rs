//! Checksums by which sources say what their files hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, CRC_64_NVME, Crc, Table};
use md5::Md5;
use plan::words::hexadecimal;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_NVME);

/// A checksum, as the source writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub kind: ChecksumKind,
    /// Its value: in base 64 where a store says so, otherwise hexadecimal.
    pub value: String,
}

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumKind {
    /// SHA-256, hexadecimal.
    Sha256,
    /// SHA-1 as git names a file, hexadecimal.
    GitBlob,
    /// MD5, hexadecimal.
    Md5,
    /// SHA-256, in base 64.
    Sha256Base64,
    /// SHA-1, in base 64.
    Sha1Base64,
    /// CRC-64/NVME, in base 64.
    Crc64Nvme,
    /// CRC-32C, in base 64.
    Crc32C,
    /// CRC-32, in base 64.
    Crc32,
}

impl ChecksumKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 | Self::Sha256Base64 => "SHA-256",
            Self::GitBlob => "git hash",
            Self::Md5 => "MD5",
            Self::Sha1Base64 => "SHA-1",
            Self::Crc64Nvme => "CRC-64",
            Self::Crc32C => "CRC-32C",
            Self::Crc32 => "CRC-32",
        }
    }
}

/// Computes a checksum of bytes that arrive one after the other.
pub enum Hasher {
    Sha256(Sha256, bool),
    Sha1(Sha1, bool),
    Md5(Md5),
    Crc32(crc::Digest<'static, u32, Table<16>>),
    Crc64(crc::Digest<'static, u64, Table<16>>),
}

impl Hasher {
    /// For a file of this size.
    pub fn new(kind: ChecksumKind, size: u64) -> Self {
        match kind {
            ChecksumKind::Sha256 => Self::Sha256(Sha256::new(), false),
            ChecksumKind::Sha256Base64 => Self::Sha256(Sha256::new(), true),
            ChecksumKind::GitBlob => Self::Sha1(Sha1::new_with_prefix(format!("blob {size}\0")), false),
            ChecksumKind::Sha1Base64 => Self::Sha1(Sha1::new(), true),
            ChecksumKind::Md5 => Self::Md5(Md5::new()),
            ChecksumKind::Crc64Nvme => Self::Crc64(CRC64.digest()),
            ChecksumKind::Crc32C => Self::Crc32(CRC32C.digest()),
            ChecksumKind::Crc32 => Self::Crc32(CRC32.digest()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash, _) => hash.update(bytes),
            Self::Sha1(hash, _) => hash.update(bytes),
            Self::Md5(hash) => hash.update(bytes),
            Self::Crc32(crc) => crc.update(bytes),
            Self::Crc64(crc) => crc.update(bytes),
        }
    }

    /// The checksum, in the form of its kind.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hash, in_base64) => written(&hash.finalize(), in_base64),
            Self::Sha1(hash, in_base64) => written(&hash.finalize(), in_base64),
            Self::Md5(hash) => hexadecimal(&hash.finalize()),
            Self::Crc32(crc) => BASE64.encode(crc.finalize().to_be_bytes()),
            Self::Crc64(crc) => BASE64.encode(crc.finalize().to_be_bytes()),
        }
    }
}

fn written(bytes: &[u8], in_base64: bool) -> String {
    if in_base64 { BASE64.encode(bytes) } else { hexadecimal(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ChecksumKind, bytes: &[u8]) -> String {
        let mut hasher = Hasher::new(kind, bytes.len() as u64);
        bytes.chunks(4).for_each(|chunk| hasher.update(chunk));
        hasher.finish()
    }

    /// Values that sha256sum, git hash-object, md5sum and the catalogue of CRCs give of the same bytes.
    #[test]
    fn checksums_are_those_that_other_programs_give() {
        let check = b"123456789";
        let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        assert_eq!(of(ChecksumKind::Sha256, check), sha256);
        assert_eq!(of(ChecksumKind::Md5, check), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(of(ChecksumKind::GitBlob, b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(of(ChecksumKind::Sha256Base64, check), "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=");
        assert_eq!(of(ChecksumKind::Sha1Base64, check), "98O8HYCOBHMq32eZZczDTKeuNEE=");
        assert_eq!(BASE64.decode(of(ChecksumKind::Crc32, check)).unwrap(), 0xcbf4_3926_u32.to_be_bytes());
        assert_eq!(BASE64.decode(of(ChecksumKind::Crc32C, check)).unwrap(), 0xe306_9283_u32.to_be_bytes());
        assert_eq!(BASE64.decode(of(ChecksumKind::Crc64Nvme, check)).unwrap(), 0xae8b_1486_0a79_9888_u64.to_be_bytes());
    }
}
