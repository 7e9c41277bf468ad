//! From tokens to a tree: statements. The grammar is that of Python's Jinja; what it has and this has not is refused by
//! name.

mod expression;

use std::sync::Arc;

use super::JinjaError;
use super::ast::{Expression, For, Macro, Node, Statement, Takes, Target, Template};
use super::lexer::{self, Token};

/// Tags, brackets and other parts of expressions that may lie in one another; a pair of brackets is three of them. Each
/// takes some of the stack.
const DEEPEST: usize = 60;
/// Operators, calls and filters that may follow one another.
const LONGEST: usize = 120;

pub(super) struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// Loops around, inside the innermost macro.
    loops: usize,
    /// What the macros around take, the innermost last.
    macros: Vec<Takes>,
}

/// Parses a source.
pub(super) fn parse(source: &str) -> Result<Template, JinjaError> {
    let mut parser = Parser { tokens: lexer::tokens(source)?, at: 0, depth: 0, loops: 0, macros: Vec::new() };
    let body = parser.nodes(&[])?;
    Ok(Template { body })
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn peek_after(&self, tokens: usize) -> Option<&Token> {
        self.tokens.get(self.at + tokens).map(|(token, _)| token)
    }

    fn line(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |(_, line)| *line)
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(found)) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn expect_operator(&mut self, operator: &str) -> Result<(), JinjaError> {
        if self.skip_operator(operator) { Ok(()) } else { Err(self.unexpected(operator)) }
    }

    fn expect(&mut self, token: &Token, name: &str) -> Result<(), JinjaError> {
        if self.peek() == Some(token) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(name))
    }

    fn name(&mut self) -> Result<String, JinjaError> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn error(&self, reason: impl Into<String>) -> JinjaError {
        JinjaError::Syntax { line: self.line(), reason: reason.into() }
    }

    fn unsupported(&self, what: impl Into<String>) -> JinjaError {
        JinjaError::Unsupported { line: self.line(), what: what.into() }
    }

    fn unexpected(&self, expected: &str) -> JinjaError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Operator(operator)) => (*operator).to_owned(),
            Some(Token::VariableEnd | Token::BlockEnd) => "the end of a tag".to_owned(),
            Some(_) => "something else".to_owned(),
        };
        self.error(format!("{expected} is expected, not {found}"))
    }

    /// Runs one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, JinjaError>) -> Result<T, JinjaError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error(format!("more than {DEEPEST} brackets or tags lie in one another")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to a tag that begins with one of `ends`, whose name is next then.
    fn nodes(&mut self, ends: &[&str]) -> Result<Vec<Node>, JinjaError> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            let statement = match self.peek() {
                None if ends.is_empty() => return Ok(nodes),
                None => return Err(self.error(format!("{} is missing", ends.join(" or ")))),
                Some(Token::Data(text)) => {
                    let text = Arc::from(text.as_str());
                    self.at += 1;
                    Statement::Text(text)
                }
                Some(Token::VariableBegin) => {
                    self.at += 1;
                    let value = self.tuple(true)?;
                    self.expect(&Token::VariableEnd, "}}")?;
                    Statement::Output(value)
                }
                Some(_) => {
                    self.expect(&Token::BlockBegin, "{%")?;
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(nodes);
                    }
                    let statement = self.deeper(Self::statement)?;
                    self.expect(&Token::BlockEnd, "%}")?;
                    statement
                }
            };
            nodes.push(Node { line, statement });
        }
    }

    /// The rest of a tag and what follows, up to one of `ends`.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Node>, JinjaError> {
        self.skip_operator(":");
        self.expect(&Token::BlockEnd, "%}")?;
        self.nodes(ends)
    }

    /// The same with a single end, which is taken.
    fn body_to(&mut self, end: &str) -> Result<Vec<Node>, JinjaError> {
        let body = self.body(&[end])?;
        self.at += 1;
        Ok(body)
    }

    fn statement(&mut self) -> Result<Statement, JinjaError> {
        let name = self.name()?;
        match name.as_str() {
            "for" => self.for_loop(),
            "if" => self.condition(),
            "set" => self.set(),
            "macro" => self.macro_definition(),
            "call" => self.call_block(),
            "filter" => {
                let filter = self.filters(None, true)?;
                let body = self.body_to("endfilter")?;
                Ok(Statement::FilterBlock(filter, body))
            }
            "with" => self.with(),
            "print" => {
                let value = self.expression()?;
                if self.is_operator(",") {
                    return Err(self.unsupported("print with several values"));
                }
                Ok(Statement::Output(value))
            }
            "generation" => {
                let loops = std::mem::take(&mut self.loops);
                let body = self.body_to("endgeneration")?;
                self.loops = loops;
                Ok(Statement::Generation(body))
            }
            "break" | "continue" if self.loops == 0 => Err(self.error(format!("{name} is outside of a loop"))),
            "break" => Ok(Statement::Break),
            "continue" => Ok(Statement::Continue),
            "autoescape" | "block" | "extends" | "from" | "import" | "include" => {
                Err(self.unsupported(format!("the tag {name}")))
            }
            _ => Err(self.error(format!("there is no tag {name}"))),
        }
    }

    fn for_loop(&mut self) -> Result<Statement, JinjaError> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("in"));
        }
        let iterable = self.tuple_until(false, &["recursive"])?;
        let condition = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let body = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = if self.skip_name("else") { self.body_to("endfor")? } else { self.taken(Vec::new()) };
        Ok(Statement::For(Arc::new(For { target, iterable, condition, body, otherwise, recursive })))
    }

    /// Takes the name that ends a statement.
    fn taken<T>(&mut self, value: T) -> T {
        self.at += 1;
        value
    }

    fn condition(&mut self) -> Result<Statement, JinjaError> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false)?;
            let body = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") { self.body_to("endif")? } else { self.taken(Vec::new()) };
            return Ok(Statement::If(branches, otherwise));
        }
    }

    fn set(&mut self) -> Result<Statement, JinjaError> {
        let target = self.target(&[], true)?;
        if self.skip_operator("=") {
            return Ok(Statement::Set(target, self.tuple(true)?));
        }
        let filter = if self.is_operator("|") { Some(self.filters(None, false)?) } else { None };
        Ok(Statement::SetBlock(target, filter, self.body_to("endset")?))
    }

    fn with(&mut self) -> Result<Statement, JinjaError> {
        let mut values = Vec::new();
        while self.peek() != Some(&Token::BlockEnd) {
            if !values.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_operator("=")?;
            values.push((target, self.expression()?));
        }
        Ok(Statement::With(values, self.body_to("endwith")?))
    }

    fn macro_definition(&mut self) -> Result<Statement, JinjaError> {
        let name = self.name()?;
        let parameters = self.parameters()?;
        Ok(Statement::Macro(Arc::new(self.macro_body(name, parameters, "endmacro")?)))
    }

    fn call_block(&mut self) -> Result<Statement, JinjaError> {
        let parameters = if self.is_operator("(") { self.parameters()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expression::Call(..)) {
            return Err(self.error("a call is expected"));
        }
        let body = self.macro_body("caller".to_owned(), parameters, "endcall")?;
        Ok(Statement::Call(Arc::new(body), call))
    }

    fn macro_body(
        &mut self,
        name: String,
        parameters: Vec<(String, Option<Expression>)>,
        end: &str,
    ) -> Result<Macro, JinjaError> {
        let loops = std::mem::take(&mut self.loops);
        self.macros.push(Takes::default());
        let body = self.body_to(end);
        let takes = self.macros.pop().unwrap_or_default();
        if let Some(outer) = self.macros.last_mut() {
            outer.kwargs |= takes.kwargs;
            outer.varargs |= takes.varargs;
            outer.caller |= takes.caller;
        }
        self.loops = loops;
        Ok(Macro { name, parameters, body: body?, takes })
    }

    fn parameters(&mut self) -> Result<Vec<(String, Option<Expression>)>, JinjaError> {
        self.expect_operator("(")?;
        let mut parameters: Vec<(String, Option<Expression>)> = Vec::new();
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.name()?;
            if name == "caller" {
                return Err(self.unsupported("a parameter named caller"));
            }
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.iter().any(|(_, default)| default.is_some()) {
                return Err(self.error("a parameter without default follows one with"));
            }
            parameters.push((name, default));
        }
        self.expect_operator(")")?;
        Ok(parameters)
    }

    /// What is assigned to: a name, a member of a namespace where those may be, or several.
    fn target(&mut self, ends: &[&str], members: bool) -> Result<Target, JinjaError> {
        let mut targets = Vec::new();
        let mut several = false;
        loop {
            if !targets.is_empty() {
                self.expect_operator(",")?;
            }
            let at_end = matches!(self.peek(), Some(Token::BlockEnd | Token::VariableEnd)) || self.is_operator(")");
            if at_end || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            targets.push(self.deeper(|parser| parser.one_target(members))?);
            if !self.is_operator(",") {
                break;
            }
            several = true;
        }
        match targets.pop() {
            None => Err(self.unexpected("a name")),
            Some(only) if !several => Ok(only),
            Some(last) => {
                targets.push(last);
                Ok(Target::Several(targets))
            }
        }
    }

    fn one_target(&mut self, members: bool) -> Result<Target, JinjaError> {
        if self.skip_operator("(") {
            let inner = self.target(&[], false)?;
            self.expect_operator(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(self.error(format!("{name} cannot be assigned to")));
        }
        if members && self.skip_operator(".") {
            return Ok(Target::Member(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}
