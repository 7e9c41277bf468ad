//! Arrays of counts in NumPy's `.npy` format, versions 1.0 and 2.0 (`numpy.lib.format`): a magic string, the version, the
//! length of a header, the header as a Python dictionary, the values. Knows nothing of what they count.

use thiserror::Error;

use crate::words::counted;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Counts and how they are arranged, the last index changing fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// Values, as many as the product of the shape.
    pub values: Vec<u64>,
}

/// Whether a file says that it is in this format.
#[must_use]
pub fn recognize(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads an array of whole numbers that are not negative: little-endian, integers of 1, 2, 4 or 8 bytes, signed or not, or
/// numbers with a fraction part that have none, of 2, 4 or 8 bytes; in C or Fortran order.
///
/// # Errors
/// If it is no such array, or the file is longer or shorter than its header says.
pub fn read(bytes: &[u8]) -> Result<Array, NpyError> {
    let (header, data) = split(bytes)?;
    let Header { descr, fortran_order, shape } = Header::parse(header)?;
    let kind = Kind::parse(&descr)?;
    let count = shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length));
    let size = count.and_then(|count| count.checked_mul(kind.bytes));
    if size != Some(data.len()) {
        return Err(NpyError::Length { shape, descr, expected: size, found: data.len() });
    }
    let stored: Vec<u64> = data
        .chunks_exact(kind.bytes)
        .enumerate()
        .map(|(index, value)| kind.value(value).map_err(|found| found.at(index)))
        .collect::<Result<_, _>>()?;
    let values = if fortran_order { last_index_fastest(&stored, &shape) } else { stored };
    Ok(Array { shape, values })
}

/// The header's text and the values' bytes.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), NpyError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
    let cut = || NpyError::HeaderCut { found: bytes.len() };
    let (&[major, minor], rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match (major, minor) {
        (1, 0) => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        (2, 0) => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return Err(NpyError::Version { major, minor }),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Header { what: "is no text" })?;
    Ok((header, data))
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the dictionary with exactly the keys `descr`, `fortran_order` and `shape`, in any order.
    fn parse(text: &str) -> Result<Self, NpyError> {
        let wrong = |what| NpyError::Header { what };
        let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let mut rest = inner.ok_or(wrong("is no dictionary"))?.trim();
        let (mut descr, mut order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or(wrong("has a key that is no text"))?;
            let value = after.trim_start().strip_prefix(':').ok_or(wrong("has a key without a value"))?.trim_start();
            let after = match key {
                "descr" if value.starts_with('[') => return Err(NpyError::Type { descr: "of records".to_owned() }),
                "descr" => {
                    let (text, after) = quoted(value).ok_or(wrong("has a descr that is no text"))?;
                    descr = Some(text.to_owned());
                    after
                }
                "fortran_order" => {
                    let (known, after) = boolean(value).ok_or(wrong("has a fortran_order that is no truth value"))?;
                    order = Some(known);
                    after
                }
                "shape" => {
                    let (lengths, after) = tuple(value).ok_or(wrong("has a shape that is no tuple of numbers"))?;
                    shape = Some(lengths);
                    after
                }
                _ => return Err(wrong("has an unknown key")),
            };
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(wrong("has something between a value and the next key")),
            };
        }
        Ok(Self {
            descr: descr.ok_or(wrong("has no descr"))?,
            fortran_order: order.ok_or(wrong("has no fortran_order"))?,
            shape: shape.ok_or(wrong("has no shape"))?,
        })
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn boolean(text: &str) -> Option<(bool, &str)> {
    let mut known = [("True", true), ("False", false)].into_iter();
    known.find_map(|(word, value)| Some((value, text.strip_prefix(word)?)))
}

fn tuple(text: &str) -> Option<(Vec<usize>, &str)> {
    let (inner, after) = text.strip_prefix('(')?.split_once(')')?;
    let inner = inner.trim();
    let items = inner.strip_suffix(',').unwrap_or(inner);
    let lengths = items.split(',').map(str::trim).filter(|item| !(item.is_empty() && inner.is_empty()));
    Some((lengths.map(|item| item.parse().ok()).collect::<Option<_>>()?, after))
}

/// A type of numbers.
struct Kind {
    of: Numbers,
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Numbers {
    Unsigned,
    Signed,
    /// With a sign, an exponent and a fraction, of which as many bits.
    Floating {
        exponent: u32,
        fraction: u32,
    },
}

/// A value that is no count.
enum NoCount {
    Negative,
    Fraction(f64),
}

impl NoCount {
    const fn at(self, index: usize) -> NpyError {
        match self {
            Self::Negative => NpyError::Negative { index },
            Self::Fraction(found) => NpyError::Fraction { index, found: Found(found) },
        }
    }
}

impl Kind {
    fn parse(descr: &str) -> Result<Self, NpyError> {
        let wrong = || NpyError::Type { descr: descr.to_owned() };
        let (order, kind) = descr.split_at_checked(1).ok_or_else(wrong)?;
        let (kind, size) = kind.split_at_checked(1).ok_or_else(wrong)?;
        let of = match (kind, size) {
            ("u", _) => Numbers::Unsigned,
            ("i", _) => Numbers::Signed,
            ("f", "2") => Numbers::Floating { exponent: 5, fraction: 10 },
            ("f", "4") => Numbers::Floating { exponent: 8, fraction: 23 },
            ("f", "8") => Numbers::Floating { exponent: 11, fraction: 52 },
            _ => return Err(wrong()),
        };
        let bytes = match (order, size) {
            ("<" | "|" | ">", "1") => 1,
            ("<", "2") => 2,
            ("<", "4") => 4,
            ("<", "8") => 8,
            (">", "2" | "4" | "8") => return Err(NpyError::BigEndian { descr: descr.to_owned() }),
            _ => return Err(wrong()),
        };
        Ok(Self { of, bytes })
    }

    /// A value of [`Kind::bytes`] bytes, if it is a count.
    fn value(&self, bytes: &[u8]) -> Result<u64, NoCount> {
        let value = bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let is_negative = value >> (8 * self.bytes - 1) != 0;
        match self.of {
            Numbers::Signed if is_negative => Err(NoCount::Negative),
            Numbers::Unsigned | Numbers::Signed => Ok(value),
            Numbers::Floating { exponent, fraction } => {
                let number = floating(value, exponent, fraction);
                if is_negative && number != 0.0 && !number.is_nan() {
                    return Err(NoCount::Negative);
                }
                // From here on, numbers with a fraction part no longer tell whole numbers apart.
                let is_whole = number.fract() == 0.0 && number < (1_u64 << 53) as f64;
                if is_whole { Ok(number as u64) } else { Err(NoCount::Fraction(number)) }
            }
        }
    }
}

/// The number that these bits are, with so many for the exponent and the fraction.
fn floating(bits: u64, exponent: u32, fraction: u32) -> f64 {
    let zero = (1 << (exponent - 1)) - 1;
    let power = ((bits >> fraction) & ((1 << exponent) - 1)) as i32;
    let part = (bits & ((1 << fraction) - 1)) as f64 / (1_u64 << fraction) as f64;
    let sign = if bits >> (exponent + fraction) == 0 { 1.0 } else { -1.0 };
    sign * match power {
        0 => part * 2_f64.powi(1 - zero),
        all if all == (1 << exponent) - 1 && part == 0.0 => f64::INFINITY,
        all if all == (1 << exponent) - 1 => f64::NAN,
        _ => (1.0 + part) * 2_f64.powi(power - zero),
    }
}

/// A number that is no count. Two that are written alike are equal.
#[derive(Clone, Copy, Debug)]
pub struct Found(f64);

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Found {}

/// Values of which the first index changes fastest, in the order in which the last does.
fn last_index_fastest(stored: &[u64], shape: &[usize]) -> Vec<u64> {
    let place = |mut index: usize| {
        let mut place = 0;
        for dimension in (0..shape.len()).rev() {
            let stride: usize = shape[..dimension].iter().product();
            place += index % shape[dimension] * stride;
            index /= shape[dimension];
        }
        place
    };
    (0..stored.len()).map(|index| stored[place(index)]).collect()
}

/// Why a file is no array of counts. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NpyError {
    /// It does not begin as such files do.
    #[error("no .npy file: it does not begin with \\x93NUMPY")]
    Magic,
    /// A version that is not read.
    #[error(".npy of version {major}.{minor}; versions 1.0 and 2.0 are read, which numpy.save writes")]
    Version {
        /// The version.
        major: u8,
        /// The version.
        minor: u8,
    },
    /// It ends before its values.
    #[error("the .npy file ends within its header, after {}; it is truncated", counted(*found, "byte"))]
    HeaderCut {
        /// Bytes there are.
        found: usize,
    },
    /// The header is not as it should be.
    #[error("the header of the .npy file {what}")]
    Header {
        /// What is wrong.
        what: &'static str,
    },
    /// The values are of a type that counts are not.
    #[error("values of type {descr}; counts must be numbers: save them with array.astype('<u4')")]
    Type {
        /// NumPy's name of the type.
        descr: String,
    },
    /// The values have their bytes in the other order.
    #[error("values of type {descr} are big-endian; save them with array.astype('<u4')")]
    BigEndian {
        /// NumPy's name of the type.
        descr: String,
    },
    /// There are more or fewer bytes than the header says.
    #[error(
        "an array of shape {shape:?} and type {descr} has {expected}, the file has {found}; it is truncated or has something \
         after its end",
        expected = expected.map_or_else(|| "more bytes than any file".to_owned(), |bytes| counted(bytes, "byte"))
    )]
    Length {
        /// The shape in the header.
        shape: Vec<usize>,
        /// NumPy's name of the type.
        descr: String,
        /// Bytes that follow from them, unless they are too many to name.
        expected: Option<usize>,
        /// Bytes there are.
        found: usize,
    },
    /// A number that is not whole, or too large to be told from the next.
    #[error("value {index} is {}, which is no count of tokens; save counts with array.astype('<u4')", found.0)]
    Fraction {
        /// Its place in the file, from 0.
        index: usize,
        /// What it is.
        found: Found,
    },
    /// A count below 0.
    #[error("value {index} is negative; counts are not")]
    Negative {
        /// Its place in the file, from 0.
        index: usize,
    },
}

#[cfg(test)]
mod tests;
