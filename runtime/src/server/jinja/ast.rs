//! A template as a tree.

use std::sync::Arc;

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    pub body: Vec<Node>,
}

/// A statement and its line.
#[derive(Debug)]
pub(super) struct Node {
    pub line: usize,
    pub statement: Statement,
}

#[derive(Debug)]
pub(super) enum Statement {
    Text(Arc<str>),
    Output(Expression),
    For(Arc<For>),
    /// Conditions with their bodies, and what is done if none holds.
    If(Vec<(Expression, Vec<Node>)>, Vec<Node>),
    Set(Target, Expression),
    /// `{% set x %}...{% endset %}`, perhaps through filters.
    SetBlock(Target, Option<Expression>, Vec<Node>),
    Macro(Arc<Macro>),
    /// `{% call(x) f() %}...{% endcall %}`.
    Call(Arc<Macro>, Expression),
    FilterBlock(Expression, Vec<Node>),
    With(Vec<(Target, Expression)>, Vec<Node>),
    /// `{% generation %}` marks what an assistant said; it renders as its body.
    Generation(Vec<Node>),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub target: Target,
    pub iterable: Expression,
    pub condition: Option<Expression>,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
    pub recursive: bool,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub name: String,
    /// Names, with a default where there is one.
    pub parameters: Vec<(String, Option<Expression>)>,
    pub body: Vec<Node>,
    /// Whether it names `kwargs`, `varargs` and `caller`: without, further arguments are errors.
    pub takes: Takes,
}

/// What a macro takes beside its parameters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Takes {
    pub kwargs: bool,
    pub varargs: bool,
    pub caller: bool,
}

/// What is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(String),
    /// `namespace.attribute`
    Member(String, String),
    Several(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Expression {
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Arc<str>),
    Name(String),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Attribute(Box<Expression>, String),
    Item(Box<Expression>, Box<Expression>),
    /// From, to and step.
    Slice(Box<Expression>, [Option<Box<Expression>>; 3]),
    Call(Box<Expression>, Arguments),
    /// What is filtered is left out at the beginning of a filter block.
    Filter(Option<Box<Expression>>, String, Arguments),
    Test(Box<Expression>, String, Arguments),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    Not(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    Concat(Vec<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    /// Condition, value, and the value if it does not hold.
    If(Box<Expression>, Box<Expression>, Option<Box<Expression>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// What is passed to a call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expression>,
    pub named: Vec<(String, Expression)>,
    pub further: Option<Box<Expression>>,
    pub further_named: Option<Box<Expression>>,
}
