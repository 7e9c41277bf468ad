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
    Integer(Whole),
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

/// A whole number, in a form that makes no value larger than a text is: a conversation has very many of them.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(8))]
pub(super) struct Whole(i128);

impl Whole {
    pub const fn get(self) -> i128 {
        self.0
    }
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

/// Keys in the order in which they were first set. Dictionaries that have the same share them.
#[derive(Debug, Default)]
pub(super) struct Keys {
    all: Vec<Value>,
    /// Places of keys that are text, which nearly all are, where there are more than are looked through.
    #[expect(clippy::box_collection, reason = "most have none, and there may be very many")]
    by_text: Option<Box<HashMap<Arc<str>, usize>>>,
    depth: u16,
}

/// Keys, each with a value.
#[derive(Debug)]
pub(super) struct Dict {
    /// `None` if it is empty, as very many may be.
    keys: Option<Rc<Keys>>,
    values: Box<[Value]>,
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
    deeper(values.into_iter().map(Value::depth).max().unwrap_or(0))
}

/// How deep lists lie in what holds values of such a depth.
const fn deeper(deepest: u16) -> Result<u16, JinjaError> {
    if deepest >= DEEPEST { Err(JinjaError::Limit("lists that lie in one another")) } else { Ok(deepest + 1) }
}

impl Items {
    pub fn new(values: Vec<Value>) -> Result<Rc<Self>, JinjaError> {
        let depth = depth_of(&values)?;
        Ok(Rc::new(Self { values, depth }))
    }
}

impl Keys {
    /// Of names that differ.
    pub fn of_names(names: impl IntoIterator<Item = Arc<str>>) -> Rc<Self> {
        let mut keys = Self::default();
        names.into_iter().for_each(|name| keys.push(Value::Text(name)));
        keys.all.shrink_to_fit();
        Rc::new(keys)
    }

    /// Each key, if it is a text.
    pub fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        self.all.iter().map(|key| key.as_text().map(|text| &**text))
    }

    fn push(&mut self, key: Value) {
        self.depth = self.depth.max(key.depth());
        if let (Some(places), Value::Text(text)) = (&mut self.by_text, &key) {
            places.insert(Arc::clone(text), self.all.len());
        }
        self.all.push(key);
        if self.all.len() > LOOKED_THROUGH && self.by_text.is_none() {
            let place = |(place, key): (usize, &Value)| Some((Arc::clone(key.as_text()?), place));
            self.by_text = Some(Box::new(self.all.iter().enumerate().filter_map(place).collect()));
        }
    }

    fn place(&self, key: &str) -> Option<usize> {
        match &self.by_text {
            Some(places) => places.get(key).copied(),
            None => self.all.iter().position(|known| known.as_text().is_some_and(|known| **known == *key)),
        }
    }

    fn index_of(&self, key: &Value, budget: &mut Budget) -> Result<Option<usize>, JinjaError> {
        key.check_hashable(budget)?;
        if let Value::Text(text) | Value::Markup(text) = key {
            budget.look(text.len())?;
            return Ok(self.place(text));
        }
        comparison::position(&self.all, key, budget)
    }
}

/// A dictionary that is being made.
#[derive(Debug, Default)]
struct Making {
    keys: Keys,
    values: Vec<Value>,
}

impl Making {
    /// Of equal keys the last value counts, in the place of the first.
    fn set(&mut self, known: Option<usize>, key: Value, value: Value) {
        if let Some(index) = known {
            self.values[index] = value;
        } else {
            self.keys.push(key);
            self.values.push(value);
        }
    }

    fn made(mut self) -> Result<Rc<Dict>, JinjaError> {
        self.keys.all.shrink_to_fit();
        Dict::of(Rc::new(self.keys), self.values)
    }
}

impl Dict {
    pub fn new(pairs: impl IntoIterator<Item = (Value, Value)>, budget: &mut Budget) -> Result<Rc<Self>, JinjaError> {
        let mut making = Making::default();
        for (key, value) in pairs {
            let known = making.keys.index_of(&key, budget)?;
            making.set(known, key, value);
        }
        making.made()
    }

    /// Of keys that are names, which are found without a search.
    pub fn of_names<N: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, Value)>) -> Result<Rc<Self>, JinjaError> {
        let mut making = Making::default();
        for (name, value) in pairs {
            let name = name.into();
            let known = making.keys.place(&name);
            making.set(known, Value::Text(name), value);
        }
        making.made()
    }

    /// Of a value for each key.
    pub fn of(keys: Rc<Keys>, values: Vec<Value>) -> Result<Rc<Self>, JinjaError> {
        debug_assert_eq!(keys.all.len(), values.len(), "a value for each key");
        let deepest = values.iter().map(Value::depth).max().unwrap_or(0).max(keys.depth);
        let keys = Some(keys).filter(|keys| !keys.all.is_empty());
        Ok(Rc::new(Self { keys, values: values.into(), depth: deeper(deepest)? }))
    }

    pub fn get(&self, key: &Value, budget: &mut Budget) -> Result<Option<&Value>, JinjaError> {
        let index = match &self.keys {
            Some(keys) => keys.index_of(key, budget)?,
            None => key.check_hashable(budget).map(|()| None)?,
        };
        Ok(index.map(|index| &self.values[index]))
    }

    pub fn get_text(&self, key: &str) -> Option<&Value> {
        self.keys.as_ref()?.place(key).map(|index| &self.values[index])
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.keys.iter().flat_map(|keys| &keys.all).zip(&self.values)
    }

    /// Whether both have the very same keys and texts, so that one can be in the place of the other.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let are_same = |values: (&Value, &Value)| match values {
            (Value::Text(one), Value::Text(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let has_same_keys = match (&self.keys, &other.keys) {
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        has_same_keys && self.values.iter().zip(&other.values).all(are_same)
    }
}

impl Value {
    pub const fn integer(value: i128) -> Self {
        Self::Integer(Whole(value))
    }

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
            Self::Integer(value) => value.get() != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) | Self::View(_, items) => {
                !items.values.is_empty()
            }
            Self::Dict(dict) => dict.len() > 0,
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
            Self::Integer(value) => Some(value.get()),
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
