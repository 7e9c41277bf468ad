//! What a template is given. Made of a request as it is read, so that nothing lies between the two, and with what comes
//! again and again in memory once.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::JinjaError;
use super::value::{Dict, Keys, Value};

/// Names of the members of objects; clones share them.
#[derive(Clone, Debug)]
pub struct Names(Rc<Keys>);

impl Names {
    /// These, which differ.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self(Keys::of_names(names))
    }

    /// Whether they are these.
    #[must_use]
    pub fn are<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> bool {
        self.0.texts().all(|known| known.is_some() && known == names.next()) && names.next().is_none()
    }
}

/// A value that a template is given.
#[derive(Clone, Debug)]
pub struct Given(pub(super) Value);

impl Given {
    /// Python's None.
    pub const NONE: Self = Self(Value::None);

    /// A text; clones share it.
    #[must_use]
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self(Value::Text(text.into()))
    }

    /// True or false.
    #[must_use]
    pub const fn truth(value: bool) -> Self {
        Self(Value::Bool(value))
    }

    /// A list.
    ///
    /// # Errors
    /// If lists lie in one another deeper than any template could write out.
    pub fn list(items: Vec<Self>) -> Result<Self, JinjaError> {
        Value::list(items.into_iter().map(|Self(value)| value).collect()).map(Self)
    }

    /// An object. Of equal names the last one counts, in the place of the first.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn object<N: Into<Arc<str>>>(members: impl IntoIterator<Item = (N, Self)>) -> Result<Self, JinjaError> {
        let members = members.into_iter().map(|(name, Self(value))| (name, value));
        Ok(Self(Value::Dict(Dict::of_names(members)?)))
    }

    /// An object of names that other objects have too, with a value for each.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn object_of(names: &Names, values: Vec<Self>) -> Result<Self, JinjaError> {
        let values = values.into_iter().map(|Self(value)| value).collect();
        Ok(Self(Value::Dict(Dict::of(Rc::clone(&names.0), values)?)))
    }

    /// Whether both are objects of the same [`Names`] with the same texts, in memory once.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Value::Dict(one), Value::Dict(other)) if one.is_same_as(other))
    }

    /// Whether it is None.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self.0, Value::None)
    }

    /// Names and values, if it is an object.
    #[must_use]
    pub fn into_members(self) -> Option<Vec<(String, Self)>> {
        let Value::Dict(dict) = &self.0 else { return None };
        let member = |(name, value): (&Value, &Value)| Some((name.as_text()?.to_string(), Self(value.clone())));
        dict.entries().map(member).collect()
    }

    /// Bytes of text in it, about.
    pub(super) fn size(&self) -> usize {
        size_of(&self.0)
    }
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.values.iter().map(size_of).sum(),
        Value::Dict(dict) => dict.entries().map(|(name, value)| size_of(name) + size_of(value)).sum(),
        _ => 8,
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Given, E> {
        Ok(Given::NONE)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Given, E> {
        Ok(Given::truth(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Given, E> {
        Ok(Given(Value::integer(value.into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Given, E> {
        Ok(Given(Value::integer(value.into())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Given, E> {
        Ok(Given(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Given, E> {
        Ok(Given::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given, A::Error> {
        let mut values = Vec::new();
        while let Some(Given(value)) = list.next_element()? {
            values.push(value);
        }
        values.shrink_to_fit();
        Value::list(values).map(Given).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, Given>()? {
            members.push(member);
        }
        Given::object(members).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::jinja::Template;

    fn written(json: &str) -> String {
        let given: Given = serde_json::from_str(json).unwrap();
        let template = Template::parse("{{ x }}").unwrap();
        template.render(vec![("x".to_owned(), given)], 1 << 20, &jiff::Zoned::default(), &|| false).unwrap()
    }

    #[test]
    fn json_is_given_as_python_reads_it() {
        let json = r#"{"a": [1, -1, 18446744073709551615, 1.0, 1e3, null, true], "b": {"a": "x"}, "a": "é", "c": {}}"#;
        assert_eq!(written(json), "{'a': 'é', 'b': {'a': 'x'}, 'c': {}}");
        assert_eq!(
            written(r#"[1, -1, 18446744073709551615, 1.0, 1e3, null, true, "é"]"#),
            "[1, -1, 18446744073709551615, 1.0, 1000.0, None, True, 'é']"
        );
    }

    #[test]
    fn objects_of_many_names_are_as_those_of_few() {
        for names in [1, 8, 9, 100] {
            let members = (0..names).map(|name| (format!("n{name}"), Given::text(name.to_string())));
            let again = (0..names).map(|name| (format!("n{name}"), Given::text("last")));
            let members = Given::object(members.chain(again)).unwrap().into_members().unwrap();
            assert_eq!(members.len(), names);
            assert!(members.iter().enumerate().all(|(index, (name, _))| *name == format!("n{index}")));
            assert!(members.iter().all(|(_, value)| matches!(&value.0, Value::Text(text) if **text == *"last")));
        }
    }
}
