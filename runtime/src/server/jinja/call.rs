//! The arguments of a call, once they have values, and how a function takes them.

use super::JinjaError;
use super::value::Value;

/// What is passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Passed {
    /// The parameters `names` of `function`, in order; what is not passed is left out.
    ///
    /// # Errors
    /// If more is passed, or something twice or by another name.
    pub fn take<const N: usize>(self, function: &str, names: [&str; N]) -> Result<[Option<Value>; N], JinjaError> {
        let mut taken = [const { None }; N];
        if self.positional.len() > N {
            return Err(JinjaError::failed(format!("{function} takes at most {N} arguments")));
        }
        for (place, value) in taken.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| *known == name) {
                Some(index) if taken[index].is_none() => taken[index] = Some(value),
                Some(_) => return Err(JinjaError::failed(format!("{function} got two values for {name}"))),
                None => return Err(JinjaError::failed(format!("{function} takes no argument named {name}"))),
            }
        }
        Ok(taken)
    }

    /// Positional arguments alone.
    pub fn positional<const N: usize>(self, function: &str) -> Result<[Option<Value>; N], JinjaError> {
        if let Some((name, _)) = self.named.first() {
            return Err(JinjaError::failed(format!("{function} takes no argument named {name}")));
        }
        self.take(function, [""; N])
    }
}

/// A parameter that has to be there.
pub(super) fn required(value: Option<Value>, function: &str, name: &str) -> Result<Value, JinjaError> {
    value.ok_or_else(|| JinjaError::failed(format!("{function} needs {name}")))
}

/// A whole number.
pub(super) fn integer(value: &Value, name: &str) -> Result<i128, JinjaError> {
    value
        .as_integer()
        .ok_or_else(|| JinjaError::failed(format!("{name} must be a whole number, not {}", value.type_name())))
}

/// A string.
pub(super) fn string<'v>(value: &'v Value, name: &str) -> Result<&'v str, JinjaError> {
    match value {
        Value::Text(text) | Value::Markup(text) => Ok(text),
        Value::Undefined(reason) => Err(JinjaError::failed(&**reason)),
        _ => Err(JinjaError::failed(format!("{name} must be str, not {}", value.type_name()))),
    }
}
