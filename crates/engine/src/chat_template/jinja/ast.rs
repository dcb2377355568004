//! The syntax tree. Chains (`a + b + c`, `x.y.z|f`, `elif`) are flat lists, so that its depth is bounded by
//! the nesting that the parser allows.

use std::sync::Arc;

/// A statement and the line it starts on.
pub(super) struct Stmt {
    pub(super) line: usize,
    pub(super) kind: StmtKind,
}

pub(super) type Body = Vec<Stmt>;

pub(super) enum StmtKind {
    Raw(Box<str>),
    Print(Expr),
    If {
        branches: Vec<(Expr, Body)>,
        otherwise: Body,
    },
    For(Arc<ForLoop>),
    Set {
        target: Target,
        value: Expr,
    },
    SetBlock {
        target: Target,
        filters: Vec<Postfix>,
        body: Body,
    },
    With {
        bindings: Vec<(Target, Expr)>,
        body: Body,
    },
    Macro(Arc<MacroDef>),
    Call {
        callee: Expr,
        caller: Arc<MacroDef>,
    },
    Filter {
        filters: Vec<Postfix>,
        body: Body,
    },
    /// A block with variables of its own: `block`, `generation`, `autoescape`.
    Scoped(Body),
    Break,
    Continue,
    /// A tag that needs other templates, of which there are none.
    NeedsLoader(&'static str),
}

pub(super) struct ForLoop {
    pub(super) target: Target,
    pub(super) iter: Expr,
    pub(super) filter: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

pub(super) struct MacroDef {
    pub(super) name: Arc<str>,
    pub(super) params: Vec<(Arc<str>, Option<Expr>)>,
    pub(super) body: Body,
    pub(super) uses_caller: bool,
    pub(super) uses_varargs: bool,
    pub(super) uses_kwargs: bool,
}

pub(super) enum Target {
    Name(Arc<str>),
    Attr(Arc<str>, Arc<str>),
    Unpack(Vec<Target>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
}

pub(super) enum Expr {
    Literal(Literal),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Left to right, of one precedence.
    Binary(Box<Expr>, Vec<(BinOp, Expr)>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(CmpOp, Expr)>),
    IfElse {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Chain(Box<Expr>, Vec<Postfix>),
}

pub(super) enum Postfix {
    Attr(Arc<str>),
    Item(Expr),
    Slice(Option<Expr>, Option<Expr>, Option<Expr>),
    Call(CallArgs),
    Filter(Arc<str>, CallArgs),
    Test { name: Arc<str>, args: CallArgs, negated: bool },
}

#[derive(Default)]
pub(super) struct CallArgs {
    pub(super) positional: Vec<Expr>,
    pub(super) keyword: Vec<(Arc<str>, Expr)>,
    pub(super) star: Option<Box<Expr>>,
    pub(super) star_star: Option<Box<Expr>>,
}
