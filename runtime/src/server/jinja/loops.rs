//! How far a loop has come, and what `loop` tells of it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::JinjaError;
use super::ast::For;
use super::budget::Budget;
use super::call::Passed;
use super::comparison::all_equal;
use super::items::iterate;
use super::render::{Rendered, Renderer, ScopeId};
use super::value::{Items, Value};

/// Items that are left. Those of a list stay where they are: a conversation has many.
#[derive(Debug)]
pub(super) enum Rest {
    Of(Rc<Items>, usize),
    Own(VecDeque<Value>),
}

impl Rest {
    /// All of a value.
    pub fn of(value: &Value, budget: &mut Budget) -> Rendered<Self> {
        if let Value::List(items) | Value::Tuple(items) | Value::Group(items) | Value::View(_, items) = value {
            budget.items(items.values.len())?;
            return Ok(Self::Of(Rc::clone(items), 0));
        }
        Ok(Self::Own(iterate(value, budget)?.into()))
    }

    fn len(&self) -> usize {
        match self {
            Self::Of(items, at) => items.values.len() - at,
            Self::Own(items) => items.len(),
        }
    }

    fn next(&mut self) -> Option<Value> {
        match self {
            Self::Of(items, at) => {
                let item = items.values.get(*at)?.clone();
                *at += 1;
                Some(item)
            }
            Self::Own(items) => items.pop_front(),
        }
    }
}

/// What comes next in a loop.
#[derive(Clone, Debug)]
enum Ahead {
    Unknown,
    Item(Value),
    End,
}

/// A loop that runs or has run.
#[derive(Debug)]
pub(super) struct LoopState {
    source: Arc<For>,
    /// Where it stands in the template.
    scope: ScopeId,
    rest: Rest,
    /// Whether what is left has to meet the loop's condition, which may depend on what the loop does.
    filtered: bool,
    length: Option<usize>,
    /// Items begun.
    index: usize,
    /// What was taken ahead.
    ahead: Ahead,
    current: Option<Value>,
    before: Option<Value>,
    changed: Option<Vec<Value>>,
    depth: usize,
}

impl LoopState {
    pub fn new(source: &Arc<For>, scope: ScopeId, rest: Rest, sized: bool, depth: usize) -> Self {
        let filtered = source.condition.is_some();
        Self {
            source: Arc::clone(source),
            scope,
            length: (sized && !filtered).then_some(rest.len()),
            rest,
            filtered,
            index: 0,
            ahead: Ahead::Unknown,
            current: None,
            before: None,
            changed: None,
            depth,
        }
    }
}

impl Renderer<'_> {
    /// The next item that meets the condition.
    fn pull(&mut self, id: usize) -> Rendered<Option<Value>> {
        loop {
            self.budget.step()?;
            let state = &mut self.loops[id];
            let Some(item) = state.rest.next() else { return Ok(None) };
            if !state.filtered {
                return Ok(Some(item));
            }
            let (source, scope) = (Arc::clone(&state.source), state.scope);
            let Some(condition) = &source.condition else { return Ok(Some(item)) };
            let inner = self.scope_in(scope)?;
            self.assign(&source.target, item.clone(), inner)?;
            let holds = self.evaluate(condition, inner)?.is_true();
            self.leave_scope(inner);
            if holds {
                return Ok(Some(item));
            }
        }
    }

    /// Goes on to the next item.
    pub(super) fn advance(&mut self, id: usize) -> Rendered<Option<Value>> {
        let item = match std::mem::replace(&mut self.loops[id].ahead, Ahead::Unknown) {
            Ahead::Unknown => self.pull(id)?,
            Ahead::Item(item) => Some(item),
            Ahead::End => None,
        };
        let Some(item) = item else { return Ok(None) };
        let state = &mut self.loops[id];
        state.index += 1;
        state.before = state.current.replace(item.clone());
        Ok(Some(item))
    }

    fn look_ahead(&mut self, id: usize) -> Rendered<Option<Value>> {
        if matches!(self.loops[id].ahead, Ahead::Unknown) {
            let ahead = self.pull(id)?;
            self.loops[id].ahead = ahead.map_or(Ahead::End, Ahead::Item);
        }
        match &self.loops[id].ahead {
            Ahead::Item(item) => Ok(Some(item.clone())),
            Ahead::Unknown | Ahead::End => Ok(None),
        }
    }

    fn loop_length(&mut self, id: usize) -> Rendered<usize> {
        if let Some(length) = self.loops[id].length {
            return Ok(length);
        }
        let mut rest = VecDeque::new();
        while let Some(item) = self.pull(id)? {
            rest.push_back(item);
        }
        let state = &mut self.loops[id];
        let ahead = usize::from(matches!(state.ahead, Ahead::Item(_)));
        let length = rest.len() + state.index + ahead;
        (state.rest, state.filtered, state.length) = (Rest::Own(rest), false, Some(length));
        Ok(length)
    }

    /// `loop.name`; `None` if there is no such thing.
    pub(super) fn loop_attribute(&mut self, id: usize, name: &str) -> Rendered<Option<Value>> {
        let integer = |value: usize| Some(Value::integer(value as i128));
        let index = self.loops[id].index;
        Ok(match name {
            "index" => integer(index),
            "index0" => integer(index.saturating_sub(1)),
            "first" => Some(Value::Bool(index == 1)),
            "last" => Some(Value::Bool(self.look_ahead(id)?.is_none())),
            "length" => integer(self.loop_length(id)?),
            "revindex" => integer((self.loop_length(id)? + 1).saturating_sub(index)),
            "revindex0" => integer(self.loop_length(id)?.saturating_sub(index)),
            "depth" => integer(self.loops[id].depth + 1),
            "depth0" => integer(self.loops[id].depth),
            "previtem" => {
                let before = self.loops[id].before.clone().filter(|_| index > 1);
                Some(before.unwrap_or_else(|| Value::undefined("there is no previous item")))
            }
            "nextitem" => Some(self.look_ahead(id)?.unwrap_or_else(|| Value::undefined("there is no next item"))),
            "cycle" | "changed" => Some(Value::Method(Rc::new((Value::Loop(id), name.to_owned())))),
            _ => None,
        })
    }

    /// `loop.cycle(...)` and `loop.changed(...)`.
    pub(super) fn loop_method(&mut self, id: usize, name: &str, passed: Passed) -> Rendered<Value> {
        let values = passed.positional;
        let state = &mut self.loops[id];
        if name == "cycle" {
            let at = state.index.saturating_sub(1).checked_rem(values.len());
            return at.map(|at| values[at].clone()).ok_or_else(|| JinjaError::failed("no items for cycling given"));
        }
        let changed = match &state.changed {
            Some(known) => !all_equal(known, &values, &mut self.budget)?,
            None => true,
        };
        if changed {
            state.changed = Some(values);
        }
        Ok(Value::Bool(changed))
    }

    /// `loop(items)` of a recursive loop.
    pub(super) fn recurse(&mut self, id: usize, items: &Value) -> Rendered<Value> {
        let state = &self.loops[id];
        if !state.source.recursive {
            return Err(JinjaError::failed("the loop must be recursive to be called"));
        }
        let (source, scope, depth) = (Arc::clone(&state.source), state.scope, state.depth + 1);
        let text = self.captured(|renderer| renderer.run_loop(&source, items, scope, depth))?;
        Ok(Value::text(text))
    }
}
