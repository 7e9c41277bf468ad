//! Expressions.

use super::{Rendered, Renderer, ScopeId, attribute, item};
use crate::server::jinja::JinjaError;
use crate::server::jinja::ast::{Arguments, Comparison, Expression, Operator};
use crate::server::jinja::comparison::compare;
use crate::server::jinja::functions::Function;
use crate::server::jinja::items::slice;
use crate::server::jinja::operators;
use crate::server::jinja::value::{Dict, Value};
use crate::server::jinja::{tests, writing};

impl Renderer<'_> {
    pub(in super::super) fn evaluate(&mut self, expression: &Expression, scope: ScopeId) -> Rendered<Value> {
        self.budget.step()?;
        self.budget.enter()?;
        let value = self.value_of(expression, scope)?;
        self.budget.leave();
        Ok(value)
    }

    /// Each kind has a function of its own, so that none takes more of the stack than it needs: expressions lie in one
    /// another.
    fn value_of(&mut self, expression: &Expression, scope: ScopeId) -> Rendered<Value> {
        match expression {
            Expression::None => Ok(Value::None),
            Expression::Bool(value) => Ok(Value::Bool(*value)),
            Expression::Integer(value) => Ok(Value::integer(*value)),
            Expression::Float(value) => Ok(Value::Float(*value)),
            Expression::Text(text) => Ok(Value::Text(std::sync::Arc::clone(text))),
            Expression::Name(name) => self.name(name, scope),
            Expression::List(items) => self.values(items, scope).and_then(Value::list),
            Expression::Tuple(items) => self.values(items, scope).and_then(Value::tuple),
            Expression::Dict(pairs) => self.dict(pairs, scope),
            Expression::Attribute(of, name) => self.attribute_expression(of, name, scope),
            Expression::Item(of, key) => self.item_expression(of, key, scope),
            Expression::Slice(of, parts) => self.slice(of, parts, scope),
            Expression::Call(..) => self.call(expression, scope, None),
            Expression::Filter(of, name, arguments) => self.filter_expression(of.as_deref(), name, arguments, scope),
            Expression::Test(of, name, arguments) => self.test_expression(of, name, arguments, scope),
            Expression::Negative(value) => self.evaluate(value, scope).and_then(|value| operators::sign(&value, true)),
            Expression::Positive(value) => self.evaluate(value, scope).and_then(|value| operators::sign(&value, false)),
            Expression::Not(value) => self.evaluate(value, scope).map(|value| Value::Bool(!value.is_true())),
            Expression::Binary(operator, left, right) => self.binary(*operator, left, right, scope),
            Expression::Concat(parts) => self.concat(parts, scope),
            Expression::And(left, right) => self.either(left, right, false, scope),
            Expression::Or(left, right) => self.either(left, right, true, scope),
            Expression::Compare(first, rest) => self.compare(first, rest, scope),
            Expression::If(condition, value, otherwise) => self.choose(condition, value, otherwise.as_deref(), scope),
        }
    }

    #[inline(never)]
    fn name(&mut self, name: &str, scope: ScopeId) -> Rendered<Value> {
        let value = self.lookup(name, scope)?;
        if let Value::Undefined(_) = value
            && Function::is_unsupported(name)
        {
            return Err(JinjaError::unsupported(format!("the function {name}")));
        }
        Ok(value)
    }

    #[inline(never)]
    fn dict(&mut self, pairs: &[(Expression, Expression)], scope: ScopeId) -> Rendered<Value> {
        let mut made = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            made.push((self.evaluate(key, scope)?, self.evaluate(value, scope)?));
        }
        // Its keys, its values and itself.
        self.budget.items(made.len().saturating_mul(2).saturating_add(4))?;
        Ok(Value::Dict(Dict::new(made, &mut self.budget)?))
    }

    #[inline(never)]
    fn attribute_expression(&mut self, of: &Expression, name: &str, scope: ScopeId) -> Rendered<Value> {
        let of = self.evaluate(of, scope)?;
        self.attribute(&of, name)
    }

    #[inline(never)]
    fn item_expression(&mut self, of: &Expression, key: &Expression, scope: ScopeId) -> Rendered<Value> {
        let of = self.evaluate(of, scope)?;
        let key = self.evaluate(key, scope)?;
        self.item(&of, &key)
    }

    #[inline(never)]
    fn filter_expression(
        &mut self,
        of: Option<&Expression>,
        name: &str,
        arguments: &Arguments,
        scope: ScopeId,
    ) -> Rendered<Value> {
        let Some(of) = of else { return Err(JinjaError::failed("a filter has no value")) };
        let of = self.evaluate(of, scope)?;
        let passed = self.passed(arguments, scope)?;
        self.filter(name, &of, passed)
    }

    #[inline(never)]
    fn test_expression(
        &mut self,
        of: &Expression,
        name: &str,
        arguments: &Arguments,
        scope: ScopeId,
    ) -> Rendered<Value> {
        let of = self.evaluate(of, scope)?;
        let passed = self.passed(arguments, scope)?;
        tests::holds(name, &of, passed, &mut self.budget).map(Value::Bool)
    }

    #[inline(never)]
    fn binary(&mut self, operator: Operator, left: &Expression, right: &Expression, scope: ScopeId) -> Rendered<Value> {
        let left = self.evaluate(left, scope)?;
        let right = self.evaluate(right, scope)?;
        operators::binary(operator, &left, &right, &mut self.budget)
    }

    #[inline(never)]
    fn concat(&mut self, parts: &[Expression], scope: ScopeId) -> Rendered<Value> {
        let mut text = String::new();
        for part in parts {
            let part = self.evaluate(part, scope)?;
            if matches!(part, Value::Markup(_)) {
                return Err(JinjaError::unsupported("~ with text that is marked as safe"));
            }
            text.push_str(&writing::text_of(&part, &mut self.budget)?);
            self.budget.fits(text.len())?;
        }
        self.budget.text(text.len())?;
        Ok(Value::text(text))
    }

    /// `and`, or `or` where what is true decides.
    #[inline(never)]
    fn either(&mut self, left: &Expression, right: &Expression, decides: bool, scope: ScopeId) -> Rendered<Value> {
        let left = self.evaluate(left, scope)?;
        if left.is_true() == decides { Ok(left) } else { self.evaluate(right, scope) }
    }

    #[inline(never)]
    fn compare(&mut self, first: &Expression, rest: &[(Comparison, Expression)], scope: ScopeId) -> Rendered<Value> {
        let mut left = self.evaluate(first, scope)?;
        for (comparison, right) in rest {
            let right = self.evaluate(right, scope)?;
            if !compare(*comparison, &left, &right, &mut self.budget)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    #[inline(never)]
    fn choose(
        &mut self,
        condition: &Expression,
        value: &Expression,
        otherwise: Option<&Expression>,
        scope: ScopeId,
    ) -> Rendered<Value> {
        match (self.evaluate(condition, scope)?.is_true(), otherwise) {
            (true, _) => self.evaluate(value, scope),
            (false, Some(otherwise)) => self.evaluate(otherwise, scope),
            (false, None) => {
                Ok(Value::undefined("the inline if-expression evaluated to false and no else section was defined."))
            }
        }
    }

    #[inline(never)]
    pub(super) fn values(&mut self, expressions: &[Expression], scope: ScopeId) -> Rendered<Vec<Value>> {
        self.budget.items(expressions.len())?;
        expressions.iter().map(|expression| self.evaluate(expression, scope)).collect()
    }

    /// The value of a name, in this scope or around it.
    pub(in super::super) fn lookup(&mut self, name: &str, scope: ScopeId) -> Rendered<Value> {
        self.budget.look(name.len())?;
        let mut at = Some(scope);
        while let Some(scope) = at.and_then(|at| self.scopes.get(at)) {
            self.budget.names(scope.names.len())?;
            if let Some((_, value)) = scope.names.iter().find(|(known, _)| known == name) {
                return Ok(value.clone());
            }
            at = scope.outer;
        }
        let missing = || Value::undefined(format!("'{name}' is undefined"));
        Ok(Function::named(name).map_or_else(missing, Value::Function))
    }

    #[inline(never)]
    fn slice(&mut self, of: &Expression, parts: &[Option<Box<Expression>>; 3], scope: ScopeId) -> Rendered<Value> {
        let of = self.evaluate(of, scope)?;
        if let Value::Undefined(reason) = &of {
            return Err(JinjaError::failed(&**reason));
        }
        let mut bounds = [None; 3];
        let mut is_slice = true;
        for (bound, part) in bounds.iter_mut().zip(parts) {
            match part.as_ref().map(|part| self.evaluate(part, scope)).transpose()? {
                None | Some(Value::None) => {}
                Some(value) => {
                    *bound = value.as_integer();
                    is_slice &= bound.is_some();
                }
            }
        }
        let missing = || Value::undefined(format!("{} object has no such slice", of.type_name()));
        if !is_slice {
            return Ok(missing());
        }
        Ok(slice(&of, bounds, &mut self.budget)?.unwrap_or_else(missing))
    }

    #[inline(never)]
    fn attribute(&mut self, of: &Value, name: &str) -> Rendered<Value> {
        self.budget.look(name.len())?;
        let missing = || Value::undefined(format!("'{} object' has no attribute '{name}'", of.type_name()));
        match of {
            Value::Namespace(id) => {
                let members = &self.namespaces[*id];
                self.budget.names(members.len())?;
                let found = members.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                Ok(found.unwrap_or_else(missing))
            }
            Value::Loop(id) => Ok(self.loop_attribute(*id, name)?.unwrap_or_else(missing)),
            of => attribute(of, name),
        }
    }

    #[inline(never)]
    fn item(&mut self, of: &Value, key: &Value) -> Rendered<Value> {
        match (of, key) {
            (Value::Namespace(_) | Value::Loop(_), Value::Text(name)) => self.attribute(of, name),
            _ => item(of, key, &mut self.budget),
        }
    }
}
