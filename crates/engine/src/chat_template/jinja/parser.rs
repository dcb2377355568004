//! Jinja2's grammar over the lexer's tokens. Nesting is limited; chains are not recursive.

use std::sync::Arc;

use super::ast::{BinOp, Body, CallArgs, CmpOp, Expr, ForLoop, Literal, MacroDef, Postfix, Stmt, StmtKind, Target};
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

    // Statements.

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

    // Expressions, loosest first.

    /// One expression, or several with commas as a tuple. Without `ternary` an `if` ends it.
    fn tuple(&mut self, ternary: bool) -> Result<Expr> {
        let part = |p: &mut Self| if ternary { p.expression() } else { p.or() };
        let first = part(self)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            let ends = matches!(self.peek(), Token::BlockEnd | Token::PrintEnd | Token::Op(")"));
            if ends || self.is_name("recursive") {
                break;
            }
            items.push(part(self)?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expression(&mut self) -> Result<Expr> {
        self.nested(|p| {
            let mut value = p.or()?;
            while p.skip_name("if") {
                let test = Box::new(p.or()?);
                let otherwise = if p.skip_name("else") { Some(Box::new(p.expression()?)) } else { None };
                // `a if b if c` nests to the left; each round counts, as it deepens the tree.
                value = Expr::IfElse { test, then: Box::new(value), otherwise };
                p.deepen()?;
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Result<Expr> {
        self.list_of("or", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Expr> {
        self.list_of("and", Self::not, Expr::And)
    }

    fn list_of(&mut self, word: &str, part: fn(&mut Self) -> Result<Expr>, build: fn(Vec<Expr>) -> Expr) -> Result<Expr> {
        let first = part(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_name(word) {
            items.push(part(self)?);
        }
        Ok(build(items))
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Token::Op("==") => CmpOp::Eq,
                Token::Op("!=") => CmpOp::Ne,
                Token::Op("<") => CmpOp::Lt,
                Token::Op("<=") => CmpOp::Le,
                Token::Op(">") => CmpOp::Gt,
                Token::Op(">=") => CmpOp::Ge,
                Token::Name(n) if &**n == "in" => CmpOp::In,
                Token::Name(n) if &**n == "not" => {
                    if !matches!(&self.tokens.get(self.at + 1), Some((Token::Name(n), _)) if &**n == "in") {
                        break;
                    }
                    self.next();
                    CmpOp::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn binary(&mut self, ops: &[(&str, BinOp)], part: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some(&(_, op)) = ops.iter().find(|(text, _)| self.is_op(text)) {
            self.next();
            rest.push((op, part(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", BinOp::Add), ("-", BinOp::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op("~") {
            items.push(self.product()?);
        }
        Ok(Expr::Concat(items))
    }

    fn product(&mut self) -> Result<Expr> {
        let ops = [("*", BinOp::Mul), ("/", BinOp::Div), ("//", BinOp::FloorDiv), ("%", BinOp::Rem)];
        self.binary(&ops, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.binary(&[("**", BinOp::Pow)], |p| p.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let base = if self.skip_op("-") {
            Expr::Neg(Box::new(self.nested(|p| p.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Pos(Box::new(self.nested(|p| p.unary(false))?))
        } else {
            self.primary()?
        };
        let mut links = self.postfix()?;
        if with_filters {
            self.filters_and_tests(&mut links)?;
        }
        Ok(if links.is_empty() { base } else { Expr::Chain(Box::new(base), links) })
    }

    fn primary(&mut self) -> Result<Expr> {
        let token = self.peek().clone();
        match token {
            Token::Name(name) => {
                self.next();
                Ok(match &*name {
                    "true" | "True" => Expr::Literal(Literal::Bool(true)),
                    "false" | "False" => Expr::Literal(Literal::Bool(false)),
                    "none" | "None" => Expr::Literal(Literal::None),
                    _ => {
                        if let Some(used) = self.special_names.last_mut() {
                            used.caller |= &*name == "caller";
                            used.varargs |= &*name == "varargs";
                            used.kwargs |= &*name == "kwargs";
                        }
                        Expr::Name(name)
                    }
                })
            }
            Token::Str(first) => {
                self.next();
                if !matches!(self.peek(), Token::Str(_)) {
                    return Ok(Expr::Literal(Literal::Str(first)));
                }
                let mut text = String::from(&*first);
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Ok(Expr::Literal(Literal::Str(text.into())))
            }
            Token::Int(i) => {
                self.next();
                Ok(Expr::Literal(Literal::Int(i)))
            }
            Token::Float(f) => {
                self.next();
                Ok(Expr::Literal(Literal::Float(f)))
            }
            Token::Op("(") => {
                self.next();
                if self.skip_op(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let inner = self.nested(|p| p.tuple(true))?;
                self.expect_op(")")?;
                Ok(inner)
            }
            Token::Op("[") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_op("]") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                        if self.is_op("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                self.expect_op("]")?;
                Ok(Expr::List(items))
            }
            Token::Op("{") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_op("}") {
                    if !items.is_empty() {
                        self.expect_op(",")?;
                        if self.is_op("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect_op(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect_op("}")?;
                Ok(Expr::Dict(items))
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    /// Attributes, items and calls.
    fn postfix(&mut self) -> Result<Vec<Postfix>> {
        let mut links = Vec::new();
        loop {
            if self.skip_op(".") {
                links.push(match self.next() {
                    Token::Name(name) => Postfix::Attr(name),
                    Token::Int(i) => Postfix::Item(Expr::Literal(Literal::Int(i))),
                    _ => return self.fail("expected a name or a number after '.'"),
                });
            } else if self.skip_op("[") {
                links.push(self.subscript()?);
            } else if self.is_op("(") {
                links.push(Postfix::Call(self.call_args()?));
            } else {
                return Ok(links);
            }
        }
    }

    fn subscript(&mut self) -> Result<Postfix> {
        let start = if self.is_op(":") { None } else { Some(self.expression()?) };
        if !self.is_op(":") {
            let mut items: Vec<Expr> = start.into_iter().collect();
            let single = !self.is_op(",");
            while self.skip_op(",") {
                items.push(self.expression()?);
            }
            self.expect_op("]")?;
            return match items.pop() {
                Some(item) if single => Ok(Postfix::Item(item)),
                Some(last) => {
                    items.push(last);
                    Ok(Postfix::Item(Expr::Tuple(items)))
                }
                None => self.fail("expected an expression"),
            };
        }
        self.next();
        let part =
            |p: &mut Self| -> Result<Option<Expr>> { if p.is_op(":") || p.is_op("]") { Ok(None) } else { Ok(Some(p.expression()?)) } };
        let stop = part(self)?;
        let step = if self.skip_op(":") { part(self)? } else { None };
        self.expect_op("]")?;
        Ok(Postfix::Slice(start, stop, step))
    }

    fn call_args(&mut self) -> Result<CallArgs> {
        let mut args = CallArgs::default();
        self.expect_op("(")?;
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("**") {
                args.star_star = Some(Box::new(self.expression()?));
            } else if self.skip_op("*") {
                args.star = Some(Box::new(self.expression()?));
            } else if matches!(self.peek(), Token::Name(_)) && matches!(self.tokens.get(self.at + 1), Some((Token::Op("="), _))) {
                let name = self.name()?;
                self.next();
                args.keyword.push((name, self.expression()?));
            } else {
                if !args.keyword.is_empty() || args.star_star.is_some() {
                    return self.fail("positional argument after keyword argument");
                }
                args.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }

    fn filters_and_tests(&mut self, links: &mut Vec<Postfix>) -> Result<()> {
        loop {
            if self.is_op("|") {
                links.extend(self.filters(false)?);
            } else if self.skip_name("is") {
                links.push(self.test()?);
            } else if self.is_op("(") {
                links.push(Postfix::Call(self.call_args()?));
            } else {
                return Ok(());
            }
        }
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?).into();
        }
        Ok(name)
    }

    /// `|a|b(..)`; the first without its bar when `bare`.
    fn filters(&mut self, bare: bool) -> Result<Vec<Postfix>> {
        let mut filters = Vec::new();
        while (bare && filters.is_empty()) || self.skip_op("|") {
            let name = self.dotted_name()?;
            let args = if self.is_op("(") { self.call_args()? } else { CallArgs::default() };
            filters.push(Postfix::Filter(name, args));
        }
        Ok(filters)
    }

    fn test(&mut self) -> Result<Postfix> {
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let takes_argument = match self.peek() {
            Token::Name(n) => !matches!(&**n, "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{") => true,
            _ => false,
        };
        let mut args = CallArgs::default();
        if self.is_op("(") {
            args = self.call_args()?;
        } else if takes_argument {
            if self.is_name("is") {
                return self.fail("tests can't be chained with 'is'");
            }
            let value = self.nested(Self::primary)?;
            let links = self.postfix()?;
            args.positional.push(if links.is_empty() { value } else { Expr::Chain(Box::new(value), links) });
        }
        Ok(Postfix::Test { name, args, negated })
    }
}
