//! Values of a template: Python's, as far as a template can make or be given them. Lists and dictionaries never change,
//! since transformers' sandbox refuses to change them; only namespaces do.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::JinjaError;
use super::budget::Budget;
use super::comparison;
use super::functions::Function;

/// Lists and dictionaries that may lie in one another: what is deeper could not be written out.
const DEEPEST: u16 = 250;
/// Keys that are looked through one by one: a table of so few would take many times their memory.
const LOOKED_THROUGH: usize = 8;
/// Bytes that are kept of why something is not there.
const LONGEST_REASON: usize = 200;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Not there; it says why.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Arc<str>),
    /// Text that is marked as safe, which only matters where it meets text that is not.
    Markup(Arc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    /// What `groupby` gives: a tuple of which the first is `grouper` and the second `list`.
    Group(Rc<Items>),
    Dict(Rc<Dict>),
    View(View, Rc<Items>),
    Range(Rc<Range>),
    /// Given out once, item by item.
    Generator(Rc<Generator>),
    Namespace(usize),
    Loop(usize),
    Macro(usize),
    Function(Function),
    /// A method that has not been called, and what it is of.
    Method(Rc<(Value, String)>),
}

/// What a dictionary's methods give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Items,
    Keys,
    Values,
}

/// Values in order, and how deep lists lie in them.
#[derive(Debug)]
pub(super) struct Items {
    pub values: Vec<Value>,
    depth: u16,
}

/// Pairs in the order in which their keys were first set.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    /// Places of keys that are text, which nearly all are, where there are more than are looked through.
    #[expect(clippy::box_collection, reason = "most dictionaries have none, and there may be very many")]
    by_text: Option<Box<HashMap<Arc<str>, usize>>>,
    depth: u16,
}

/// Values that are given out once, and how deep lists lay in them when it was made.
#[derive(Debug)]
pub(super) struct Generator {
    rest: RefCell<VecDeque<Value>>,
    depth: u16,
}

impl Generator {
    /// The next one.
    pub fn next(&self) -> Option<Value> {
        self.rest.borrow_mut().pop_front()
    }

    /// All that are left.
    pub fn take_all(&self) -> Vec<Value> {
        self.rest.take().into()
    }
}

/// Numbers from a first one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
}

impl Range {
    pub const fn len(&self) -> usize {
        let (span, step) =
            if self.step > 0 { (self.stop - self.start, self.step) } else { (self.start - self.stop, -self.step) };
        if span <= 0 { 0 } else { ((span + step - 1) / step) as usize }
    }

    pub const fn get(&self, index: usize) -> i128 {
        self.start + self.step * index as i128
    }
}

fn depth_of<'v>(values: impl IntoIterator<Item = &'v Value>) -> Result<u16, JinjaError> {
    let deepest = values.into_iter().map(Value::depth).max().unwrap_or(0);
    if deepest >= DEEPEST { Err(JinjaError::Limit("lists that lie in one another")) } else { Ok(deepest + 1) }
}

impl Items {
    pub fn new(values: Vec<Value>) -> Result<Rc<Self>, JinjaError> {
        let depth = depth_of(&values)?;
        Ok(Rc::new(Self { values, depth }))
    }
}

impl Dict {
    pub fn new(pairs: impl IntoIterator<Item = (Value, Value)>, budget: &mut Budget) -> Result<Rc<Self>, JinjaError> {
        let mut dict = Self::default();
        for (key, value) in pairs {
            let known = dict.index_of(&key, budget)?;
            dict.set(known, key, value);
        }
        dict.of_its_depth()
    }

    /// Of keys that are names, which are found without a search.
    pub fn of_names<N: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, Value)>) -> Result<Rc<Self>, JinjaError> {
        let pairs = pairs.into_iter();
        let mut dict = Self { entries: Vec::with_capacity(pairs.size_hint().0), ..Self::default() };
        for (name, value) in pairs {
            let name = name.into();
            let known = dict.place(&name);
            dict.set(known, Value::Text(name), value);
        }
        dict.of_its_depth()
    }

    fn of_its_depth(mut self) -> Result<Rc<Self>, JinjaError> {
        self.depth = depth_of(self.entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Rc::new(self))
    }

    fn set(&mut self, known: Option<usize>, key: Value, value: Value) {
        if let Some(index) = known {
            self.entries[index].1 = value;
            return;
        }
        if let (Some(places), Value::Text(text)) = (&mut self.by_text, &key) {
            places.insert(Arc::clone(text), self.entries.len());
        }
        self.entries.push((key, value));
        if self.entries.len() > LOOKED_THROUGH && self.by_text.is_none() {
            let place = |(place, (key, _)): (usize, &(Value, Value))| Some((Arc::clone(key.as_text()?), place));
            self.by_text = Some(Box::new(self.entries.iter().enumerate().filter_map(place).collect()));
        }
    }

    fn place(&self, key: &str) -> Option<usize> {
        match &self.by_text {
            Some(places) => places.get(key).copied(),
            None => self.entries.iter().position(|(known, _)| known.as_text().is_some_and(|known| **known == *key)),
        }
    }

    fn index_of(&self, key: &Value, budget: &mut Budget) -> Result<Option<usize>, JinjaError> {
        key.check_hashable(budget)?;
        if let Value::Text(text) | Value::Markup(text) = key {
            budget.look(text.len())?;
            return Ok(self.place(text));
        }
        comparison::position(self.entries.iter().map(|(known, _)| known), key, budget)
    }

    pub fn get(&self, key: &Value, budget: &mut Budget) -> Result<Option<&Value>, JinjaError> {
        Ok(self.index_of(key, budget)?.map(|index| &self.entries[index].1))
    }

    pub fn get_text(&self, key: &str) -> Option<&Value> {
        self.place(key).map(|index| &self.entries[index].1)
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// What is not there, with the beginning of the reason: it may name what the template made.
    pub fn undefined(reason: impl AsRef<str>) -> Self {
        let reason = reason.as_ref();
        Self::Undefined(Rc::from(&reason[..reason.floor_char_boundary(LONGEST_REASON)]))
    }

    pub fn list(values: Vec<Self>) -> Result<Self, JinjaError> {
        Ok(Self::List(Items::new(values)?))
    }

    pub fn tuple(values: Vec<Self>) -> Result<Self, JinjaError> {
        Ok(Self::Tuple(Items::new(values)?))
    }

    pub fn generator(values: impl IntoIterator<Item = Self>) -> Self {
        let rest: VecDeque<Self> = values.into_iter().collect();
        let depth = rest.iter().map(Self::depth).max().unwrap_or(0) + 1;
        Self::Generator(Rc::new(Generator { rest: RefCell::new(rest), depth }))
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => items.depth,
            Self::Dict(dict) => dict.depth,
            Self::Generator(generator) => generator.depth,
            Self::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    fn check_hashable(&self, budget: &mut Budget) -> Result<(), JinjaError> {
        budget.step()?;
        match self {
            Self::List(_) | Self::Dict(_) => {
                Err(JinjaError::failed(format!("unhashable type: '{}'", self.type_name())))
            }
            Self::Tuple(items) | Self::Group(items) => {
                items.values.iter().try_for_each(|value| value.check_hashable(budget))
            }
            _ => Ok(()),
        }
    }

    /// Python's name of its type.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Integer(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Group(_) => "_GroupTuple",
            Self::Dict(_) => "dict",
            Self::View(View::Items, _) => "dict_items",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::Range(_) => "range",
            Self::Generator(_) => "generator",
            Self::Namespace(_) => "TemplateNamespace",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Function(_) => "function",
            Self::Method(_) => "builtin_function_or_method",
        }
    }

    /// Whether Python takes it as true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Integer(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => {
                !items.values.is_empty()
            }
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len() > 0,
            Self::Generator(_)
            | Self::Namespace(_)
            | Self::Loop(_)
            | Self::Macro(_)
            | Self::Function(_)
            | Self::Method(_) => true,
        }
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, of which true and false are two.
    pub const fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(*value as i128),
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// Items in a row: those of a list or a tuple.
    pub fn as_items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Group(items) => Some(&items.values),
            _ => None,
        }
    }
}
