//! Jinja2's grammar over the lexer's tokens. Nesting is limited; chains are not recursive.

mod expressions;

use std::sync::Arc;

use super::ast::{Body, Expr, ForLoop, MacroDef, Postfix, Stmt, StmtKind, Target};
use super::error::{Fault, Limit, Result};
use super::lexer::{Spanned, Token, tokenize};

/// Deepest nesting of blocks and brackets.
const MAX_NESTING: usize = 120;

/// The statements of a template.
pub(super) fn parse(source: &str) -> Result<Body> {
    let mut parser = Parser { tokens: tokenize(source)?, at: 0, nesting: 0, special_names: Vec::new() };
    let body = parser.body(&[])?;
    match parser.peek() {
        Token::End => Ok(body),
        _ => Err(parser.unexpected("the end of the template")),
    }
}

/// Which of a macro's implicit variables its body names.
#[derive(Default)]
struct SpecialNames {
    caller: bool,
    varargs: bool,
    kwargs: bool,
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    nesting: usize,
    special_names: Vec<SpecialNames>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn line(&self) -> usize {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Fault::error(message).at(self.line()))
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.peek() {
            Token::Raw(_) => "text".into(),
            Token::BlockStart => "'{%'".into(),
            Token::BlockEnd => "'%}'".into(),
            Token::PrintStart => "'{{'".into(),
            Token::PrintEnd => "'}}'".into(),
            Token::Name(n) => format!("'{n}'"),
            Token::Str(s) => format!("{s:?}"),
            Token::Int(i) => i.to_string(),
            Token::Float(f) => f.to_string(),
            Token::Op(op) => format!("'{op}'"),
            Token::End => "end of template".into(),
        };
        Fault::error(format!("expected {wanted}, found {found}")).at(self.line())
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(o) if *o == op)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { Err(self.unexpected(&format!("'{op}'"))) }
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(n) if **n == *name)
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Token::Name(n) => {
                let name = n.clone();
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn expect_token(&mut self, token: &Token, wanted: &str) -> Result<()> {
        if self.peek() == token {
            self.next();
            Ok(())
        } else {
            Err(self.unexpected(wanted))
        }
    }

    fn block_end(&mut self) -> Result<()> {
        self.expect_token(&Token::BlockEnd, "'%}'")
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outside = self.nesting;
        self.deepen()?;
        let result = parse(self);
        self.nesting = outside;
        result
    }

    fn deepen(&mut self) -> Result<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING { Err(Fault::Limit(Limit::Depth)) } else { Ok(()) }
    }

    /// Statements up to a tag named in `ends`, whose name is left to be read.
    fn body(&mut self, ends: &[&str]) -> Result<Body> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.peek() {
                Token::Raw(text) => {
                    let text = text.clone();
                    self.next();
                    StmtKind::Raw(text)
                }
                Token::PrintStart => {
                    self.next();
                    let value = self.tuple(true)?;
                    self.expect_token(&Token::PrintEnd, "'}}'")?;
                    StmtKind::Print(value)
                }
                Token::BlockStart => {
                    self.next();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    self.nested(Self::statement)?
                }
                Token::End if ends.is_empty() => return Ok(body),
                _ => return Err(self.unexpected(&format!("'{{% {} %}}'", ends.join(" %}' or '{% ")))),
            };
            body.push(Stmt { line, kind });
        }
    }

    /// A body and its closing tag.
    fn closed_body(&mut self, end: &str) -> Result<Body> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.next();
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self) -> Result<StmtKind> {
        let tag = self.name()?;
        match &*tag {
            "if" => self.if_statement(),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "macro" => {
                let name = self.name()?;
                let params = self.params()?;
                Ok(StmtKind::Macro(self.macro_def(name, params, "endmacro")?))
            }
            "call" => {
                let params = if self.is_op("(") { self.params()? } else { Vec::new() };
                let callee = self.expression()?;
                if !matches!(&callee, Expr::Chain(_, links) if matches!(links.last(), Some(Postfix::Call(_)))) {
                    return self.fail("expected a call");
                }
                Ok(StmtKind::Call { callee, caller: self.macro_def("caller".into(), params, "endcall")? })
            }
            "filter" => {
                let filters = self.filters(true)?;
                Ok(StmtKind::Filter { filters, body: self.closed_body("endfilter")? })
            }
            "with" => {
                let mut bindings = Vec::new();
                while *self.peek() != Token::BlockEnd {
                    if !bindings.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target(false)?;
                    self.expect_op("=")?;
                    bindings.push((target, self.expression()?));
                }
                Ok(StmtKind::With { bindings, body: self.closed_body("endwith")? })
            }
            "generation" => Ok(StmtKind::Scoped(self.closed_body("endgeneration")?)),
            "autoescape" => {
                self.expression()?;
                Ok(StmtKind::Scoped(self.closed_body("endautoescape")?))
            }
            "block" => {
                self.name()?;
                while matches!(self.peek(), Token::Name(n) if matches!(&**n, "scoped" | "required")) {
                    self.next();
                }
                self.block_end()?;
                let body = self.body(&["endblock"])?;
                self.next();
                if matches!(self.peek(), Token::Name(_)) {
                    self.next();
                }
                self.block_end()?;
                Ok(StmtKind::Scoped(body))
            }
            "print" => {
                let value = self.tuple(true)?;
                self.block_end()?;
                Ok(StmtKind::Print(value))
            }
            "break" | "continue" => {
                self.block_end()?;
                Ok(if &*tag == "break" { StmtKind::Break } else { StmtKind::Continue })
            }
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.next();
                }
                self.block_end()?;
                Ok(StmtKind::NeedsLoader(match &*tag {
                    "include" => "include",
                    "extends" => "extends",
                    _ => "import",
                }))
            }
            _ => self.fail(format!("unknown tag '{tag}'")),
        }
    }

    fn if_statement(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple(false)?;
            self.block_end()?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            if self.skip_name("else") {
                self.block_end()?;
                otherwise = self.body(&["endif"])?;
            }
            self.next();
            self.block_end()?;
            return Ok(StmtKind::If { branches, otherwise });
        }
    }

    fn for_statement(&mut self) -> Result<StmtKind> {
        let target = self.target(false)?;
        if !self.skip_name("in") {
            return Err(self.unexpected("'in'"));
        }
        let iter = self.tuple(false)?;
        let filter = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        let body = self.body(&["else", "endfor"])?;
        let otherwise = if self.skip_name("else") {
            self.block_end()?;
            self.body(&["endfor"])?
        } else {
            Vec::new()
        };
        self.next();
        self.block_end()?;
        Ok(StmtKind::For(Arc::new(ForLoop { target, iter, filter, recursive, body, otherwise })))
    }

    fn set_statement(&mut self) -> Result<StmtKind> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            let value = self.tuple(true)?;
            self.block_end()?;
            return Ok(StmtKind::Set { target, value });
        }
        let filters = self.filters(false)?;
        Ok(StmtKind::SetBlock { target, filters, body: self.closed_body("endset")? })
    }

    fn target(&mut self, with_attr: bool) -> Result<Target> {
        let first = self.target_item(with_attr)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            if self.is_op("=") || self.is_name("in") {
                break;
            }
            items.push(self.target_item(with_attr)?);
        }
        Ok(Target::Unpack(items))
    }

    fn target_item(&mut self, with_attr: bool) -> Result<Target> {
        if self.skip_op("(") {
            let inner = self.nested(|p| p.target(with_attr))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail(format!("can't assign to '{name}'"));
        }
        if with_attr && self.skip_op(".") {
            return Ok(Target::Attr(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    fn params(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        let mut params: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|p| p.1.is_some()) {
                return self.fail("non-default argument follows default argument");
            }
            params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    fn macro_def(&mut self, name: Arc<str>, params: Vec<(Arc<str>, Option<Expr>)>, end: &str) -> Result<Arc<MacroDef>> {
        self.special_names.push(SpecialNames::default());
        let body = self.closed_body(end)?;
        let used = self.special_names.pop().unwrap_or_default();
        if let Some(outer) = self.special_names.last_mut() {
            outer.caller |= used.caller;
            outer.varargs |= used.varargs;
            outer.kwargs |= used.kwargs;
        }
        Ok(Arc::new(MacroDef { name, params, body, uses_caller: used.caller, uses_varargs: used.varargs, uses_kwargs: used.kwargs }))
    }
}
