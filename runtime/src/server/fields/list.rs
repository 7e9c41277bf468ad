//! Lists within a body, item by item: none is kept that nobody keeps.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::read;
use crate::server::error::ApiError;

/// Gives each item of a list that is named `name`, as it is written, with its place; returns how many there are.
///
/// # Errors
/// If it is no list; `expected` says in words what it should be. If an item is refused.
pub fn each<'a>(
    name: &str,
    value: &'a RawValue,
    expected: &str,
    item: impl FnMut(usize, &'a RawValue) -> Result<(), ApiError>,
) -> Result<usize, ApiError> {
    let mut refusal = None;
    let read = read(name, value, expected, Each { item, refusal: &mut refusal });
    refusal.map_or(read, Err)
}

struct Each<'r, F> {
    item: F,
    refusal: &'r mut Option<ApiError>,
}

impl<'de, F: FnMut(usize, &'de RawValue) -> Result<(), ApiError>> DeserializeSeed<'de> for Each<'_, F> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, &'de RawValue) -> Result<(), ApiError>> Visitor<'de> for Each<'_, F> {
    type Value = usize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(item) = list.next_element()? {
            if let Err(refusal) = (self.item)(count, item) {
                *self.refusal = Some(refusal);
                return Err(A::Error::custom("an item is refused"));
            }
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::Code;

    #[test]
    fn each_item_is_given_as_it_is_written_until_one_is_refused() {
        let value: &RawValue = serde_json::from_str("[1, \"a\", [2]]").unwrap();
        let mut seen = Vec::new();
        let count = each("list", value, "a list", |index, item| {
            seen.push((index, item.get().to_owned()));
            Ok(())
        });
        assert_eq!(count.unwrap(), 3);
        assert_eq!(seen, [(0, "1".to_owned()), (1, "\"a\"".to_owned()), (2, "[2]".to_owned())]);
        let refuse = |index, _: &RawValue| match index {
            1 => Err(ApiError::field("list[1]", Code::InvalidValue, "no".to_owned())),
            _ => Ok(()),
        };
        assert_eq!(each("list", value, "a list", refuse).unwrap_err().param.as_deref(), Some("list[1]"));
        let value: &RawValue = serde_json::from_str("{}").unwrap();
        assert_eq!(each("list", value, "a list", refuse).unwrap_err().code, Code::InvalidType);
    }
}
