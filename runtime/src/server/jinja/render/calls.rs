//! Calls: arguments, functions, methods, and the filters that call others.

use super::{Rendered, Renderer, ScopeId, check_member};
use crate::server::jinja::JinjaError;
use crate::server::jinja::ast::{Arguments, Expression};
use crate::server::jinja::call::{Passed, integer, required, string};
use crate::server::jinja::comparison::{equal, position};
use crate::server::jinja::functions::{self, Function};
use crate::server::jinja::items::{iterate, slice_of};
use crate::server::jinja::value::{Items, Value, View};
use crate::server::jinja::{clock, filters, strings, tests, writing};

impl Renderer<'_> {
    #[inline(never)]
    pub(super) fn passed(&mut self, arguments: &Arguments, scope: ScopeId) -> Rendered<Passed> {
        let mut positional = self.values(&arguments.positional, scope)?;
        let mut named = Vec::with_capacity(arguments.named.len());
        for (name, value) in &arguments.named {
            named.push((name.clone(), self.evaluate(value, scope)?));
        }
        if let Some(further) = &arguments.further {
            let further = self.evaluate(further, scope)?;
            positional.extend(iterate(&further, &mut self.budget)?);
        }
        if let Some(further) = &arguments.further_named {
            let Value::Dict(dict) = self.evaluate(further, scope)? else {
                return Err(JinjaError::failed("argument after ** must be a mapping"));
            };
            self.budget.items(dict.len())?;
            for (key, value) in dict.entries() {
                let name = string(key, "a keyword")?;
                self.budget.text(name.len())?;
                self.budget.names(named.len())?;
                if named.iter().any(|(known, _)| known == name) {
                    return Err(JinjaError::failed(format!("got two values for {name}")));
                }
                named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(Passed { positional, named })
    }

    /// A call, with what a call block passes as `caller`.
    #[inline(never)]
    pub(super) fn call(&mut self, call: &Expression, scope: ScopeId, caller: Option<Value>) -> Rendered<Value> {
        let Expression::Call(of, arguments) = call else { return Err(JinjaError::failed("a call is expected")) };
        let of = self.evaluate(of, scope)?;
        let mut passed = self.passed(arguments, scope)?;
        passed.named.extend(caller.map(|caller| ("caller".to_owned(), caller)));
        match of {
            Value::Macro(id) => self.call_macro(id, passed),
            Value::Loop(id) => {
                let [items] = passed.take("loop", ["iterable"])?;
                self.recurse(id, &required(items, "loop", "items")?)
            }
            Value::Method(method) => match &*method {
                (Value::Loop(id), name) => self.loop_method(*id, name, passed),
                (of, name) => self.call_method(of, name, passed),
            },
            Value::Function(function) => self.call_function(function, passed),
            Value::Undefined(reason) => Err(JinjaError::failed(&*reason)),
            other => Err(JinjaError::failed(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    #[inline(never)]
    fn call_function(&mut self, function: Function, passed: Passed) -> Rendered<Value> {
        match function {
            Function::Range => functions::range(passed),
            Function::Dict => functions::dict(passed, &mut self.budget),
            Function::Namespace => {
                let mut members: Vec<(String, Value)> = Vec::new();
                for (name, value) in functions::pairs(passed, "namespace", &mut self.budget)? {
                    let name = string(&name, "a member's name")?;
                    self.budget.text(name.len())?;
                    self.budget.names(members.len())?;
                    check_member(name)?;
                    match members.iter_mut().find(|(known, _)| known == name) {
                        Some(known) => known.1 = value,
                        None => members.push((name.to_owned(), value)),
                    }
                }
                self.budget.items(members.len() + 2)?;
                self.namespaces.push(members);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            Function::RaiseException => {
                let [message] = passed.take("raise_exception", ["message"])?;
                let message = required(message, "raise_exception", "a message")?;
                Err(JinjaError::Raised(writing::text_of(&message, &mut self.budget)?))
            }
            Function::StrftimeNow => {
                let [format] = passed.take("strftime_now", ["format"])?;
                let format = required(format, "strftime_now", "a format")?;
                clock::strftime(string(&format, "a format")?, self.now, &mut self.budget).map(Value::text)
            }
        }
    }

    #[inline(never)]
    fn call_method(&mut self, of: &Value, name: &str, passed: Passed) -> Rendered<Value> {
        match (of, name) {
            (Value::Text(text), _) => strings::call(text, name, passed, &mut self.budget),
            (Value::Dict(dict), "get") => {
                let [key, default] = passed.positional(name)?;
                let key = required(key, name, "a key")?;
                Ok(dict.get(&key, &mut self.budget)?.cloned().or(default).unwrap_or(Value::None))
            }
            (Value::Dict(dict), "items" | "keys" | "values") => {
                let [] = passed.positional(name)?;
                self.budget.items(dict.len())?;
                let entries = dict.entries();
                let (view, values): (View, Vec<Value>) = match name {
                    "keys" => (View::Keys, entries.map(|(key, _)| key.clone()).collect()),
                    "values" => (View::Values, entries.map(|(_, value)| value.clone()).collect()),
                    _ => {
                        let pairs = entries.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                        (View::Items, pairs.collect::<Rendered<_>>()?)
                    }
                };
                Ok(Value::View(view, Items::new(values)?))
            }
            (_, "copy") => {
                let [] = passed.positional(name)?;
                Ok(of.clone())
            }
            (_, "count") => {
                let [wanted] = passed.positional(name)?;
                let wanted = required(wanted, name, "a value")?;
                let values = of.as_items().unwrap_or_default();
                let mut found = 0;
                for value in values {
                    found += i128::from(equal(value, &wanted, &mut self.budget)?);
                }
                Ok(Value::integer(found))
            }
            _ => {
                let [wanted, start, stop] = passed.positional(name)?;
                let wanted = required(wanted, name, "a value")?;
                let values = of.as_items().unwrap_or_default();
                let bound = |value: Option<Value>| value.map(|value| integer(&value, "a place")).transpose();
                let within = slice_of(values.len(), [bound(start)?, bound(stop)?, None])?;
                let among = (0..within.len()).map(|at| &values[within.get(at) as usize]);
                position(among, &wanted, &mut self.budget)?
                    .map(|at| Value::integer(within.get(at)))
                    .ok_or_else(|| JinjaError::failed("the value is not in the list"))
            }
        }
    }

    #[inline(never)]
    pub(super) fn filter(&mut self, name: &str, of: &Value, passed: Passed) -> Rendered<Value> {
        match name {
            "map" => self.map(of, passed),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, of, passed),
            _ => filters::apply(name, of, passed, &mut self.budget),
        }
    }

    #[inline(never)]
    fn map(&mut self, of: &Value, passed: Passed) -> Rendered<Value> {
        let Passed { mut positional, named } = passed;
        let has_attribute = positional.is_empty() && named.iter().any(|(name, _)| name == "attribute");
        let items = iterate(of, &mut self.budget)?;
        self.budget.items(items.len())?;
        if has_attribute {
            let passed = Passed { positional, named };
            let [path, default] = passed.take("map", ["attribute", "default"])?;
            let path = required(path, "map", "an attribute")?;
            let default = default.filter(|default| !matches!(default, Value::None));
            let mapped =
                items.iter().map(|item| filters::attribute_of(item, &path, default.as_ref(), &mut self.budget));
            return Ok(Value::generator(mapped.collect::<Rendered<Vec<_>>>()?));
        }
        if positional.is_empty() {
            return Err(JinjaError::failed("map requires a filter argument"));
        }
        let filter = positional.remove(0);
        let filter = string(&filter, "the name of a filter")?;
        if !filters::check_name(filter).map_err(JinjaError::unsupported)? {
            return Err(JinjaError::failed(format!("there is no filter {filter}")));
        }
        let mut mapped = Vec::with_capacity(items.len());
        for item in items {
            self.budget.enter()?;
            let passed = Passed { positional: positional.clone(), named: named.clone() };
            mapped.push(self.filter(filter, &item, passed)?);
            self.budget.leave();
        }
        Ok(Value::generator(mapped))
    }

    #[inline(never)]
    fn select(&mut self, name: &str, of: &Value, passed: Passed) -> Rendered<Value> {
        let Passed { mut positional, named } = passed;
        if !of.is_true() {
            return Ok(Value::generator([]));
        }
        let path = if name.ends_with("attr") {
            if positional.is_empty() {
                return Err(JinjaError::failed("Missing parameter for attribute name"));
            }
            Some(positional.remove(0))
        } else {
            None
        };
        let test = if positional.is_empty() { None } else { Some(positional.remove(0)) };
        let test = test.as_ref().map(|test| string(test, "the name of a test")).transpose()?;
        if let Some(test) = test.filter(|test| !tests::is_name(test)) {
            return Err(JinjaError::failed(format!("there is no test {test}")));
        }
        let mut kept = Vec::new();
        for item in iterate(of, &mut self.budget)? {
            self.budget.step()?;
            let value = match &path {
                None => item.clone(),
                Some(path) => filters::attribute_of(&item, path, None, &mut self.budget)?,
            };
            let holds = match test {
                None => value.is_true(),
                Some(test) => {
                    let passed = Passed { positional: positional.clone(), named: named.clone() };
                    tests::holds(test, &value, passed, &mut self.budget)?
                }
            };
            if holds == name.starts_with("select") {
                kept.push(item);
            }
        }
        self.budget.items(kept.len())?;
        Ok(Value::generator(kept))
    }
}
