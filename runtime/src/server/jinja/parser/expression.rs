//! Expressions, from the loosest binding to the tightest.

use std::sync::Arc;

use super::Parser;
use crate::server::jinja::JinjaError;
use crate::server::jinja::ast::{Arguments, Comparison, Expression, Operator};
use crate::server::jinja::lexer::Token;

type Parsed = Result<Expression, JinjaError>;

impl Parser {
    /// An expression, or several with commas between them. `conditional` says whether it may have an `if`.
    pub(super) fn tuple(&mut self, conditional: bool) -> Parsed {
        self.tuple_until(conditional, &[])
    }

    pub(super) fn tuple_until(&mut self, conditional: bool, ends: &[&str]) -> Parsed {
        self.items(conditional, ends, false)
    }

    fn items(&mut self, conditional: bool, ends: &[&str], in_brackets: bool) -> Parsed {
        let mut items = Vec::new();
        let mut several = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            let at_end = matches!(self.peek(), Some(Token::BlockEnd | Token::VariableEnd)) || self.is_operator(")");
            if at_end || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.deeper(Self::or)? });
            if !self.is_operator(",") {
                break;
            }
            several = true;
        }
        match items.pop() {
            None if in_brackets => Ok(Expression::Tuple(Vec::new())),
            None => Err(self.unexpected("an expression")),
            Some(only) if !several => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expression::Tuple(items))
            }
        }
    }

    pub(super) fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let (mut value, mut links) = (parser.or()?, 0);
            while parser.skip_name("if") {
                parser.links(&mut links)?;
                let condition = parser.or()?;
                let otherwise = if parser.skip_name("else") { Some(Box::new(parser.expression()?)) } else { None };
                value = Expression::If(Box::new(condition), Box::new(value), otherwise);
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Parsed {
        let (mut left, mut links) = (self.and()?, 0);
        while self.skip_name("or") {
            self.links(&mut links)?;
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let (mut left, mut links) = (self.not()?, 0);
        while self.skip_name("and") {
            self.links(&mut links)?;
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        if self.skip_name("not") {
            return Ok(Expression::Not(Box::new(self.deeper(Self::not)?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Some(Token::Operator("==")) => Comparison::Equal,
                Some(Token::Operator("!=")) => Comparison::NotEqual,
                Some(Token::Operator("<")) => Comparison::Less,
                Some(Token::Operator("<=")) => Comparison::LessOrEqual,
                Some(Token::Operator(">")) => Comparison::Greater,
                Some(Token::Operator(">=")) => Comparison::GreaterOrEqual,
                Some(Token::Name(name)) if name == "in" => Comparison::In,
                Some(Token::Name(name)) if name == "not" && self.peek_after(1) == Some(&Token::Name("in".into())) => {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Compare(Box::new(first), rest) })
    }

    fn binary(&mut self, operators: &[(&str, Operator)], next: fn(&mut Self) -> Parsed) -> Parsed {
        let (mut left, mut links) = (next(self)?, 0);
        while let Some((_, operator)) = operators.iter().find(|(text, _)| self.is_operator(text)) {
            self.links(&mut links)?;
            self.at += 1;
            left = Expression::Binary(*operator, Box::new(left), Box::new(next(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Parsed {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expression::Concat(parts))
    }

    fn product(&mut self) -> Parsed {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Modulo),
        ];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Parsed {
        self.binary(&[("**", Operator::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, filtered: bool) -> Parsed {
        self.deeper(|parser| {
            let value = if parser.skip_operator("-") {
                Expression::Negative(Box::new(parser.unary(false)?))
            } else if parser.skip_operator("+") {
                Expression::Positive(Box::new(parser.unary(false)?))
            } else {
                parser.primary()?
            };
            let value = parser.postfix(value)?;
            if filtered { parser.filters_and_tests(value) } else { Ok(value) }
        })
    }

    fn primary(&mut self) -> Parsed {
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("an expression")) };
        self.at += 1;
        match token {
            Token::Name(name) => Ok(match name.as_str() {
                "true" | "True" => Expression::Bool(true),
                "false" | "False" => Expression::Bool(false),
                "none" | "None" => Expression::None,
                _ => {
                    if let Some(takes) = self.macros.last_mut() {
                        takes.kwargs |= name == "kwargs";
                        takes.varargs |= name == "varargs";
                        takes.caller |= name == "caller";
                    }
                    Expression::Name(name)
                }
            }),
            Token::Text(mut text) => {
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(Expression::Text(Arc::from(text)))
            }
            Token::Integer(value) => Ok(Expression::Integer(value)),
            Token::Float(value) => Ok(Expression::Float(value)),
            Token::Operator("(") => {
                let value = self.deeper(|parser| parser.items(true, &[], true))?;
                self.expect_operator(")")?;
                Ok(value)
            }
            Token::Operator("[") => {
                let mut items = Vec::new();
                while !self.is_operator("]") {
                    if !items.is_empty() {
                        self.expect_operator(",")?;
                        if self.is_operator("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                self.expect_operator("]")?;
                Ok(Expression::List(items))
            }
            Token::Operator("{") => {
                let mut items = Vec::new();
                while !self.is_operator("}") {
                    if !items.is_empty() {
                        self.expect_operator(",")?;
                        if self.is_operator("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect_operator(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect_operator("}")?;
                Ok(Expression::Dict(items))
            }
            _ => {
                self.at -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    /// Operators, calls and filters that follow one another lie in one another too.
    fn links(&self, links: &mut usize) -> Result<(), JinjaError> {
        *links += 1;
        if *links > super::LONGEST {
            return Err(
                self.error(format!("more than {} operators, calls or filters follow one another", super::LONGEST))
            );
        }
        Ok(())
    }

    fn postfix(&mut self, mut value: Expression) -> Parsed {
        let mut links = 0;
        loop {
            if self.skip_operator(".") {
                value = match self.peek().cloned() {
                    Some(Token::Name(name)) => Expression::Attribute(Box::new(value), name),
                    Some(Token::Integer(index)) => {
                        Expression::Item(Box::new(value), Box::new(Expression::Integer(index)))
                    }
                    _ => return Err(self.unexpected("a name or a number")),
                };
                self.at += 1;
            } else if self.skip_operator("[") {
                value = self.subscript(value)?;
            } else if self.is_operator("(") {
                value = Expression::Call(Box::new(value), self.arguments()?);
            } else {
                return Ok(value);
            }
            self.links(&mut links)?;
        }
    }

    fn subscript(&mut self, value: Expression) -> Parsed {
        let mut parts: [Option<Box<Expression>>; 3] = [None, None, None];
        let (mut part, mut colons) = (0, 0);
        while !self.is_operator("]") {
            if self.is_operator(",") {
                return Err(self.unsupported("a subscript with a comma"));
            }
            if self.skip_operator(":") {
                colons += 1;
                part += 1;
                if part > 2 {
                    return Err(self.unexpected("]"));
                }
                continue;
            }
            if parts[part].is_some() {
                return Err(self.unexpected("]"));
            }
            parts[part] = Some(Box::new(self.expression()?));
        }
        self.expect_operator("]")?;
        if colons > 0 {
            return Ok(Expression::Slice(Box::new(value), parts));
        }
        match parts {
            [Some(index), None, None] => Ok(Expression::Item(Box::new(value), index)),
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn arguments(&mut self) -> Result<Arguments, JinjaError> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_operator(")") {
            if !first {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            first = false;
            let wrong = |parser: &Self| Err(parser.error("the arguments of a call are in a wrong order"));
            if self.skip_operator("*") {
                if arguments.further.is_some() || arguments.further_named.is_some() {
                    return wrong(self);
                }
                arguments.further = Some(Box::new(self.expression()?));
            } else if self.skip_operator("**") {
                if arguments.further_named.is_some() {
                    return wrong(self);
                }
                arguments.further_named = Some(Box::new(self.expression()?));
            } else if let (Some(Token::Name(name)), Some(Token::Operator("="))) = (self.peek(), self.peek_after(1)) {
                let name = name.clone();
                if arguments.further_named.is_some() {
                    return wrong(self);
                }
                self.at += 2;
                arguments.named.push((name, self.expression()?));
            } else {
                if arguments.further.is_some() || arguments.further_named.is_some() || !arguments.named.is_empty() {
                    return wrong(self);
                }
                arguments.positional.push(self.expression()?);
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }

    fn filters_and_tests(&mut self, mut value: Expression) -> Parsed {
        let mut links = 0;
        loop {
            if self.is_operator("|") {
                value = self.filters(Some(value), false)?;
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is_operator("(") {
                value = Expression::Call(Box::new(value), self.arguments()?);
            } else {
                return Ok(value);
            }
            self.links(&mut links)?;
        }
    }

    /// Filters of a value; of what a block gives if there is none. `inline` leaves out the first bar.
    pub(super) fn filters(&mut self, mut value: Option<Expression>, mut inline: bool) -> Parsed {
        let mut links = 0;
        while self.is_operator("|") || inline {
            self.at += usize::from(!inline);
            inline = false;
            let name = self.name()?;
            if self.is_operator(".") {
                return Err(self.error(format!("there is no filter {name}.")));
            }
            super::super::filters::check_name(&name)
                .map_err(|what| self.unsupported(what))?
                .then_some(())
                .ok_or_else(|| self.error(format!("there is no filter {name}")))?;
            let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
            value = Some(Expression::Filter(value.map(Box::new), name, arguments));
            self.links(&mut links)?;
        }
        value.ok_or_else(|| self.unexpected("a filter"))
    }

    fn test(&mut self, value: Expression) -> Parsed {
        let negated = self.skip_name("not");
        let name = self.name()?;
        if !super::super::tests::is_name(&name) {
            return Err(self.error(format!("there is no test {name}")));
        }
        let takes_one = match self.peek() {
            Some(Token::Name(next)) => !matches!(next.as_str(), "else" | "or" | "and"),
            Some(Token::Text(_) | Token::Integer(_) | Token::Float(_) | Token::Operator("[" | "{")) => true,
            _ => false,
        };
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else if takes_one {
            if self.is_name("is") {
                return Err(self.error("tests cannot be chained with is"));
            }
            let argument = self.primary()?;
            let argument = self.postfix(argument)?;
            Arguments { positional: vec![argument], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Expression::Test(Box::new(value), name, arguments);
        Ok(if negated { Expression::Not(Box::new(test)) } else { test })
    }
}
