//! Expressions, loosest first. Precedence is Jinja2's, which is not always Python's: `~` binds tighter than
//! `+`, `**` is left-associative, and filters bind tighter than a sign.

use std::sync::Arc;

use super::super::ast::{BinOp, CallArgs, CmpOp, Expr, Literal, Postfix};
use super::super::error::Result;
use super::super::lexer::Token;
use super::Parser;

impl Parser {
    /// One expression, or several with commas as a tuple. Without `ternary` an `if` ends it.
    pub(super) fn tuple(&mut self, ternary: bool) -> Result<Expr> {
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

    pub(super) fn expression(&mut self) -> Result<Expr> {
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
    pub(super) fn filters(&mut self, bare: bool) -> Result<Vec<Postfix>> {
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
