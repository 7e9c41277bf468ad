//! Runs a template: statements, scopes and macros. What single operators, filters and methods do is elsewhere.

mod calls;
mod evaluate;
mod members;

use std::sync::Arc;

use jiff::Zoned;
use plan::words::counted;

pub(super) use self::members::{attribute, item, method_of};
use super::JinjaError;
use super::ast::{Expression, For, Macro, Node, Statement, Target, Template};
use super::budget::{Budget, IsLate};
use super::call::Passed;
use super::given::Given;
use super::items::iterate;
use super::loops::{LoopState, Rest};
use super::value::{Dict, Value};
use super::writing::text_of;

pub(super) type Rendered<T> = Result<T, JinjaError>;
pub(super) type ScopeId = usize;

/// Names in one place of a template. A loop has one for each of its rounds.
#[derive(Debug, Default)]
struct Scope {
    outer: Option<ScopeId>,
    names: Vec<(String, Value)>,
}

/// A macro and where it was defined.
#[derive(Debug)]
struct Closure {
    definition: Arc<Macro>,
    scope: ScopeId,
}

/// How a row of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// A template that is being rendered. Scopes, namespaces, loops and macros live here and values name them by number, so
/// that nothing outlives the rendering, whatever refers to itself.
pub(super) struct Renderer<'n> {
    scopes: Vec<Scope>,
    /// Scopes that something may still name and that are kept therefore.
    kept: usize,
    pub(super) namespaces: Vec<Vec<(String, Value)>>,
    pub(super) loops: Vec<LoopState>,
    macros: Vec<Closure>,
    pub(super) budget: Budget<'n>,
    out: String,
    longest: usize,
    line: usize,
    now: &'n Zoned,
}

/// The text of a template for its variables.
pub(super) fn render(
    template: &Template,
    variables: Vec<(String, Given)>,
    longest: usize,
    now: &Zoned,
    is_late: IsLate<'_>,
) -> Rendered<String> {
    let input = variables.iter().map(|(_, value)| value.size()).sum();
    let names = variables.into_iter().map(|(name, Given(value))| (name, value)).collect();
    let mut renderer = Renderer {
        scopes: vec![Scope { outer: None, names }],
        kept: 1,
        namespaces: Vec::new(),
        loops: Vec::new(),
        macros: Vec::new(),
        budget: Budget::new(input, longest, is_late),
        out: String::new(),
        longest,
        line: 0,
        now,
    };
    renderer.run(&template.body, 0).map_err(|error| error.at(renderer.line))?;
    Ok(renderer.out)
}

impl Renderer<'_> {
    fn run(&mut self, nodes: &[Node], scope: ScopeId) -> Rendered<Flow> {
        self.budget.enter()?;
        for node in nodes {
            self.line = node.line;
            self.budget.step()?;
            let flow = self.statement(&node.statement, scope)?;
            if flow != Flow::On {
                self.budget.leave();
                return Ok(flow);
            }
        }
        self.budget.leave();
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &Statement, scope: ScopeId) -> Rendered<Flow> {
        match statement {
            Statement::Text(text) => self.write(text)?,
            Statement::Output(value) => self.output(value, scope)?,
            Statement::If(branches, otherwise) => return self.branch(branches, otherwise, scope),
            Statement::For(source) => {
                let items = self.evaluate(&source.iterable, scope)?;
                self.run_loop(source, &items, scope, 0)?;
            }
            Statement::Set(target, value) => {
                let value = self.evaluate(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Statement::SetBlock(target, filter, body) => self.set_block(target, filter.as_ref(), body, scope)?,
            Statement::FilterBlock(filter, body) => self.filter_block(filter, body, scope)?,
            Statement::Generation(body) => {
                let text = self.in_scope(scope, body)?;
                self.write(&text)?;
            }
            Statement::With(values, body) => return self.with(values, body, scope),
            Statement::Macro(definition) => {
                let closure = self.closure(definition, scope)?;
                self.assign_name(&definition.name, closure, scope)?;
            }
            Statement::Call(body, call) => self.call_block(body, call, scope)?,
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    #[inline(never)]
    fn output(&mut self, value: &Expression, scope: ScopeId) -> Rendered<()> {
        match self.evaluate(value, scope)? {
            Value::Text(text) | Value::Markup(text) => self.write(&text),
            value => {
                let text = text_of(&value, &mut self.budget)?;
                self.write(&text)
            }
        }
    }

    #[inline(never)]
    fn branch(&mut self, branches: &[(Expression, Vec<Node>)], otherwise: &[Node], scope: ScopeId) -> Rendered<Flow> {
        for (condition, body) in branches {
            if self.evaluate(condition, scope)?.is_true() {
                return self.run(body, scope);
            }
        }
        self.run(otherwise, scope)
    }

    #[inline(never)]
    fn set_block(
        &mut self,
        target: &Target,
        filter: Option<&Expression>,
        body: &[Node],
        scope: ScopeId,
    ) -> Rendered<()> {
        let text = self.in_scope(scope, body)?;
        let value = match filter {
            None => Value::text(text),
            Some(filter) => self.filtered(filter, Value::text(text), scope)?,
        };
        self.assign(target, value, scope)
    }

    #[inline(never)]
    fn filter_block(&mut self, filter: &Expression, body: &[Node], scope: ScopeId) -> Rendered<()> {
        let text = self.in_scope(scope, body)?;
        let value = self.filtered(filter, Value::text(text), scope)?;
        let text = text_of(&value, &mut self.budget)?;
        self.write(&text)
    }

    #[inline(never)]
    fn with(&mut self, values: &[(Target, Expression)], body: &[Node], scope: ScopeId) -> Rendered<Flow> {
        let mut made = Vec::with_capacity(values.len());
        for (_, value) in values {
            made.push(self.evaluate(value, scope)?);
        }
        let inner = self.scope_in(scope)?;
        for ((target, _), value) in values.iter().zip(made) {
            self.assign(target, value, inner)?;
        }
        let flow = self.run(body, inner)?;
        self.leave_scope(inner);
        Ok(flow)
    }

    #[inline(never)]
    fn call_block(&mut self, body: &Arc<Macro>, call: &Expression, scope: ScopeId) -> Rendered<()> {
        let caller = self.closure(body, scope)?;
        let value = self.call(call, scope, Some(caller))?;
        let text = text_of(&value, &mut self.budget)?;
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Rendered<()> {
        if self.out.len() + text.len() > self.longest {
            return Err(JinjaError::TooLong);
        }
        self.budget.text(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    /// What `run` writes.
    pub(super) fn captured(&mut self, run: impl FnOnce(&mut Self) -> Rendered<()>) -> Rendered<String> {
        let outer = std::mem::take(&mut self.out);
        self.budget.enter_captured()?;
        run(self)?;
        self.budget.leave_captured();
        Ok(std::mem::replace(&mut self.out, outer))
    }

    /// What statements write in a scope of their own.
    fn in_scope(&mut self, scope: ScopeId, body: &[Node]) -> Rendered<String> {
        self.captured(|renderer| {
            let inner = renderer.scope_in(scope)?;
            renderer.run(body, inner)?;
            renderer.leave_scope(inner);
            Ok(())
        })
    }

    pub(super) fn run_loop(&mut self, source: &Arc<For>, items: &Value, scope: ScopeId, depth: usize) -> Rendered<()> {
        let sized = !matches!(items, Value::Generator(_));
        let items = Rest::of(items, &mut self.budget)?;
        // The loop's own state.
        self.budget.items(6)?;
        let id = self.loops.len();
        self.loops.push(LoopState::new(source, scope, items, sized, depth));
        self.kept = self.kept.max(if source.recursive || source.condition.is_some() { scope + 1 } else { 0 });
        let mut is_empty = true;
        while let Some(item) = self.advance(id)? {
            is_empty = false;
            let round = self.scope_in(scope)?;
            self.assign(&source.target, item, round)?;
            self.assign_name("loop", Value::Loop(id), round)?;
            let flow = self.run(&source.body, round)?;
            self.leave_scope(round);
            if flow == Flow::Break {
                break;
            }
        }
        if is_empty && !source.otherwise.is_empty() {
            let inner = self.scope_in(scope)?;
            self.run(&source.otherwise, inner)?;
            self.leave_scope(inner);
        }
        Ok(())
    }

    /// A new scope inside another.
    pub(super) fn scope_in(&mut self, outer: ScopeId) -> Rendered<ScopeId> {
        self.budget.items(2)?;
        self.scopes.push(Scope { outer: Some(outer), names: Vec::new() });
        Ok(self.scopes.len() - 1)
    }

    /// Forgets a scope and those made after it, unless something may still name them.
    pub(super) fn leave_scope(&mut self, scope: ScopeId) {
        self.scopes.truncate(scope.max(self.kept));
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: ScopeId) -> Rendered<()> {
        match target {
            Target::Name(name) => self.assign_name(name, value, scope)?,
            Target::Member(name, member) => {
                let Value::Namespace(id) = self.lookup(name, scope)? else {
                    return Err(JinjaError::failed(format!(
                        "cannot assign attribute {member} on {name}, which is no namespace"
                    )));
                };
                check_member(member)?;
                self.budget.items(1)?;
                self.budget.look(member.len())?;
                let members = &mut self.namespaces[id];
                self.budget.names(members.len())?;
                match members.iter_mut().find(|(known, _)| known == member) {
                    Some(known) => known.1 = value,
                    None => members.push((member.clone(), value)),
                }
            }
            Target::Several(targets) => {
                let values = iterate(&value, &mut self.budget)?;
                if values.len() != targets.len() {
                    return Err(JinjaError::failed(format!(
                        "{} cannot be unpacked to {}",
                        counted(values.len(), "value"),
                        counted(targets.len(), "name")
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn assign_name(&mut self, name: &str, value: Value, scope: ScopeId) -> Rendered<()> {
        let names = &mut self.scopes[scope].names;
        self.budget.names(names.len())?;
        if let Some(known) = names.iter_mut().find(|(known, _)| known == name) {
            known.1 = value;
        } else {
            self.budget.items(1)?;
            self.budget.text(name.len())?;
            names.push((name.to_owned(), value));
        }
        Ok(())
    }

    fn closure(&mut self, definition: &Arc<Macro>, scope: ScopeId) -> Rendered<Value> {
        self.budget.items(1)?;
        self.kept = self.kept.max(scope + 1);
        self.macros.push(Closure { definition: Arc::clone(definition), scope });
        Ok(Value::Macro(self.macros.len() - 1))
    }

    fn call_macro(&mut self, id: usize, passed: Passed) -> Rendered<Value> {
        let Closure { definition, scope } = &self.macros[id];
        let (definition, scope) = (Arc::clone(definition), *scope);
        let Macro { name, parameters, body, takes } = &*definition;
        let Passed { mut positional, mut named } = passed;
        self.budget.items(positional.len() + named.len() + parameters.len())?;
        self.budget.names(named.len().saturating_mul(parameters.len() + 1))?;
        let mut take = |name: &str| {
            let at = named.iter().position(|(known, _)| known == name);
            at.map(|at| named.remove(at).1)
        };
        let further = positional.split_off(parameters.len().min(positional.len()));
        let mut given: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        for (parameter, _) in &parameters[given.len()..] {
            given.push(take(parameter));
        }
        let caller = if takes.caller { Some(take("caller")) } else { None };
        if let Some((unknown, _)) = named.first().filter(|_| !takes.kwargs) {
            return Err(JinjaError::failed(format!("macro '{name}' takes no keyword argument '{unknown}'")));
        }
        if !further.is_empty() && !takes.varargs {
            let message = format!("macro '{name}' takes not more than {} argument(s)", parameters.len());
            return Err(JinjaError::failed(message));
        }
        let inner = self.scope_in(scope)?;
        // A default may name what comes before it.
        for ((parameter, default), value) in parameters.iter().zip(given) {
            let value = match (value, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.evaluate(default, inner)?,
                (None, None) => Value::undefined(format!("parameter '{parameter}' was not provided")),
            };
            self.assign_name(parameter, value, inner)?;
        }
        if let Some(caller) = caller {
            let caller = caller.unwrap_or_else(|| Value::undefined("No caller defined"));
            self.assign_name("caller", caller, inner)?;
        }
        if takes.kwargs {
            let kwargs = Value::Dict(Dict::of_names(named)?);
            self.assign_name("kwargs", kwargs, inner)?;
        }
        if takes.varargs {
            let varargs = Value::tuple(further)?;
            self.assign_name("varargs", varargs, inner)?;
        }
        let line = self.line;
        let text = self.captured(|renderer| renderer.run(body, inner).map(|_| ()))?;
        self.line = line;
        self.leave_scope(inner);
        Ok(Value::text(text))
    }

    /// The value of filters whose innermost is given a value.
    fn filtered(&mut self, filter: &Expression, value: Value, scope: ScopeId) -> Rendered<Value> {
        let Expression::Filter(inner, name, arguments) = filter else {
            return Err(JinjaError::failed("a filter is expected"));
        };
        let value = match inner {
            None => value,
            Some(inner) => self.filtered(inner, value, scope)?,
        };
        let passed = self.passed(arguments, scope)?;
        self.filter(name, &value, passed)
    }
}

/// Namespaces of transformers have no private members.
fn check_member(name: &str) -> Rendered<()> {
    if name.starts_with('_') {
        return Err(JinjaError::failed(format!("a namespace cannot have a member named {name:?}")));
    }
    Ok(())
}
