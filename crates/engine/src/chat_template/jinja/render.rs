//! Runs statements and evaluates expressions. Scopes, macros, loops and output are here; what operators,
//! methods, filters and tests do is in their own modules.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Body, CallArgs, Expr, ForLoop, Literal, MacroDef, Postfix, Stmt, StmtKind, Target};
use super::call::{Args, int};
use super::error::{Fault, Limit, Result};
use super::filters;
use super::methods;
use super::ops::{attribute, binary, compare, concat, defined, dict, item, sign, slice};
use super::print::{push_str, to_str};
use super::tests;
use super::value::{Budget, Dict, Func, Loop, Macro, Namespace, Scope, Str, StrBuf, Value, text_cost};

/// Deepest nesting of statements, expressions and calls while running.
const MAX_DEPTH: usize = 500;
/// Longest `range`, as in Jinja2's sandbox.
const MAX_RANGE: usize = 100_000;
/// Most bytes of output, captured or final.
const MAX_OUTPUT: usize = 32 << 20;
/// What a statement or expression costs of the budget, which is otherwise counted in bytes.
const STEP: usize = 32;
/// What calling or defining a macro costs on top.
const CALL: usize = 256;

/// Formats the time that `strftime_now` is asked for.
pub(super) type StrfTime<'c> = &'c dyn Fn(&str) -> String;

/// Runs `body` with `globals`; the output and its ranges from the caller.
pub(super) fn render(
    body: &Body,
    globals: Vec<(Arc<str>, Value)>,
    budget: Budget,
    strftime: StrfTime<'_>,
) -> Result<(String, Vec<(u32, u32)>)> {
    let scope = Rc::new(Scope::default());
    for (name, value) in globals {
        scope.set(&name, value);
    }
    let mut renderer = Renderer { budget, strftime, depth: 0, cyclic: Vec::new(), namespaces: Vec::new() };
    let mut out = StrBuf::default();
    let scope = Scope::child(&scope);
    renderer.cyclic.push(scope.clone());
    let result = renderer.run(body, &scope, &mut out);
    // Macros hold their scopes and namespaces can hold themselves: empty both, or they would never be freed.
    for scope in &renderer.cyclic {
        scope.vars.take().clear();
    }
    for namespace in &renderer.namespaces {
        namespace.take().clear();
    }
    result.map(|_| out.into_parts())
}

/// Whether a loop goes on after a statement.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Renderer<'c> {
    budget: Budget,
    strftime: StrfTime<'c>,
    depth: usize,
    cyclic: Vec<Rc<Scope>>,
    namespaces: Vec<Namespace>,
}

impl Renderer<'_> {
    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.budget.spend(STEP)?;
        if self.depth == MAX_DEPTH {
            return Err(Fault::Limit(Limit::Depth));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn run(&mut self, body: &Body, scope: &Rc<Scope>, out: &mut StrBuf) -> Result<Flow> {
        for stmt in body {
            let flow = self.deeper(|r| r.statement(stmt, scope, out)).map_err(|fault| fault.at(stmt.line))?;
            if out.len() > MAX_OUTPUT {
                return Err(Fault::Limit(Limit::Output));
            }
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut StrBuf) -> Result<Flow> {
        match &stmt.kind {
            StmtKind::Raw(text) => {
                self.budget.spend(text.len())?;
                out.push_trusted(text);
            }
            StmtKind::Print(expr) => {
                let value = self.eval(expr, scope)?;
                push_str(out, &value, &self.budget)?;
            }
            StmtKind::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.eval(test, scope)?.truth() {
                        return self.run(body, scope, out);
                    }
                }
                return self.run(otherwise, scope, out);
            }
            StmtKind::For(for_loop) => {
                let items = self.eval(&for_loop.iter, scope)?;
                self.for_loop(for_loop, &items, 0, scope, out)?;
            }
            StmtKind::Set { target, value } => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::SetBlock { target, filters, body } => {
                let mut captured = StrBuf::default();
                self.run(body, &Scope::child(scope), &mut captured)?;
                let value = self.links(Value::Str(captured.finish()), filters, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::Filter { filters, body } => {
                let mut captured = StrBuf::default();
                self.run(body, &Scope::child(scope), &mut captured)?;
                let value = self.links(Value::Str(captured.finish()), filters, scope)?;
                push_str(out, &value, &self.budget)?;
            }
            StmtKind::With { bindings, body } => {
                let inner = Scope::child(scope);
                for (target, value) in bindings {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.run(body, &inner, out);
            }
            StmtKind::Scoped(body) => return self.run(body, &Scope::child(scope), out),
            StmtKind::Macro(def) => {
                let value = self.macro_value(def, scope)?;
                scope.set(&def.name, value);
            }
            StmtKind::Call { callee, caller } => {
                let caller = self.macro_value(caller, scope)?;
                let Expr::Chain(base, links) = callee else { return Ok(Flow::Next) };
                let Some((Postfix::Call(args), links)) = links.split_last() else { return Ok(Flow::Next) };
                let callee = self.eval(base, scope)?;
                let callee = self.links(callee, links, scope)?;
                let mut args = self.args(args, scope)?;
                args.keyword.push(("caller".into(), caller));
                let value = self.call(&callee, args)?;
                push_str(out, &value, &self.budget)?;
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::NeedsLoader(tag) => {
                return Err(Fault::error(format!("'{tag}' needs other templates, and there are none")));
            }
        }
        Ok(Flow::Next)
    }

    fn macro_value(&mut self, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Result<Value> {
        self.budget.spend(CALL)?;
        if !self.cyclic.last().is_some_and(|last| Rc::ptr_eq(last, scope)) {
            self.cyclic.push(scope.clone());
        }
        Ok(Value::Func(Rc::new(Func::Macro(Rc::new(Macro { def: def.clone(), scope: scope.clone() })))))
    }

    fn for_loop(&mut self, for_loop: &Arc<ForLoop>, over: &Value, depth: usize, scope: &Rc<Scope>, out: &mut StrBuf) -> Result<()> {
        let mut items = over.iterate(&self.budget)?;
        if let Some(filter) = &for_loop.filter {
            let mut kept = Vec::new();
            for item in items {
                let inner = Scope::child(scope);
                self.assign(&for_loop.target, item.clone(), &inner)?;
                if self.eval(filter, &inner)?.truth() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            self.run(&for_loop.otherwise, &Scope::child(scope), out)?;
            return Ok(());
        }
        let Value::List(items) = Value::list(items)? else { return Ok(()) };
        let state = Rc::new(Loop {
            items: items.clone(),
            at: Cell::new(0),
            depth,
            changed: RefCell::default(),
            recurse: for_loop.recursive.then(|| (for_loop.clone(), scope.clone())),
        });
        let name: Arc<str> = "loop".into();
        for (i, item) in items.items.iter().enumerate() {
            state.at.set(i);
            let inner = Scope::child(scope);
            inner.set(&name, Value::Loop(state.clone()));
            self.assign(&for_loop.target, item.clone(), &inner)?;
            if self.run(&for_loop.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        self.budget.spend(STEP)?;
        match target {
            Target::Name(name) => {
                scope.set(name, value);
                Ok(())
            }
            Target::Attr(object, name) => match scope.get(object, &self.budget)? {
                Some(Value::Namespace(namespace)) => namespace.borrow_mut().insert(Value::str(name.clone()), value),
                _ => Err(Fault::error("cannot assign attribute on non-namespace object")),
            },
            Target::Unpack(targets) => {
                let items = value.iterate(&self.budget)?;
                if items.len() != targets.len() {
                    let (wanted, got) = (targets.len(), items.len());
                    return Err(Fault::error(format!("cannot unpack {got} values into {wanted} names")));
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item, scope))
            }
        }
    }

    fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.deeper(|r| r.expression(expr, scope))
    }

    fn all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        exprs.iter().map(|e| self.eval(e, scope)).collect()
    }

    fn expression(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expr {
            Expr::Literal(literal) => Ok(match literal {
                Literal::None => Value::None,
                Literal::Bool(b) => Value::Bool(*b),
                Literal::Int(i) => Value::Int(*i),
                Literal::Float(f) => Value::Float(*f),
                Literal::Str(s) => Value::Str(Str::trusted(s.clone())),
            }),
            Expr::Name(name) => self.lookup(name, scope),
            Expr::List(items) => Value::list(self.all(items, scope)?),
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?),
            Expr::Dict(entries) => {
                let mut pairs = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    pairs.push((self.eval(key, scope)?, self.eval(value, scope)?));
                }
                dict(pairs, &self.budget)
            }
            Expr::Not(inner) => Ok(Value::Bool(!self.eval(inner, scope)?.truth())),
            Expr::Neg(inner) => sign(&self.eval(inner, scope)?, true),
            Expr::Pos(inner) => sign(&self.eval(inner, scope)?, false),
            Expr::And(items) | Expr::Or(items) => {
                let stop_at = matches!(expr, Expr::Or(_));
                let mut value = Value::None;
                for item in items {
                    value = self.eval(item, scope)?;
                    if value.truth() == stop_at {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Binary(first, rest) => {
                let mut value = self.eval(first, scope)?;
                for (op, operand) in rest {
                    let operand = self.eval(operand, scope)?;
                    value = binary(*op, &value, &operand, &self.budget)?;
                }
                Ok(value)
            }
            Expr::Concat(items) => {
                let mut parts = Vec::with_capacity(items.len());
                for item in items {
                    parts.push(to_str(&self.eval(item, scope)?, &self.budget)?);
                }
                concat(&parts, &self.budget)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (op, operand) in rest {
                    let right = self.eval(operand, scope)?;
                    if !compare(*op, &left, &right, &self.budget)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfElse { test, then, otherwise } => {
                if self.eval(test, scope)?.truth() {
                    return self.eval(then, scope);
                }
                match otherwise {
                    Some(otherwise) => self.eval(otherwise, scope),
                    None => Ok(Value::undefined("the inline if-expression evaluated to false and no else section was defined.")),
                }
            }
            Expr::Chain(base, links) => {
                let value = self.eval(base, scope)?;
                self.links(value, links, scope)
            }
        }
    }

    fn lookup(&self, name: &Arc<str>, scope: &Rc<Scope>) -> Result<Value> {
        if let Some(value) = scope.get(name, &self.budget)? {
            return Ok(value);
        }
        Ok(match GLOBALS.iter().find(|global| ***global == **name) {
            Some(global) => Value::Func(Rc::new(Func::Global(global))),
            None => Value::undefined(format!("'{name}' is undefined")),
        })
    }

    fn links(&mut self, mut value: Value, links: &[Postfix], scope: &Rc<Scope>) -> Result<Value> {
        for link in links {
            self.budget.spend(STEP)?;
            value = match link {
                Postfix::Attr(name) => attribute(&value, name)?,
                Postfix::Item(key) => {
                    let key = self.eval(key, scope)?;
                    self.budget.spend(text_cost(&value) + text_cost(&key))?;
                    item(&value, &key)?
                }
                Postfix::Slice(start, stop, step) => {
                    let mut bounds = [None, None, None];
                    for (bound, expr) in bounds.iter_mut().zip([start, stop, step]) {
                        if let Some(expr) = expr {
                            *bound = Some(self.eval(expr, scope)?);
                        }
                    }
                    slice(&value, bounds, &self.budget)?
                }
                Postfix::Call(args) => {
                    let args = self.args(args, scope)?;
                    self.deeper(|r| r.call(&value, args))?
                }
                Postfix::Filter(name, args) => {
                    let args = self.args(args, scope)?;
                    filters::apply(name, &value, &args, &self.budget)?
                }
                Postfix::Test { name, args, negated } => {
                    let args = self.args(args, scope)?;
                    Value::Bool(tests::perform(name, &value, &args, &self.budget)? != *negated)
                }
            };
        }
        Ok(value)
    }

    fn args(&mut self, given: &CallArgs, scope: &Rc<Scope>) -> Result<Args> {
        let mut args = Args { positional: self.all(&given.positional, scope)?, keyword: Vec::new() };
        if let Some(star) = &given.star {
            args.positional.extend(self.eval(star, scope)?.iterate(&self.budget)?);
        }
        for (name, value) in &given.keyword {
            args.keyword.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(star_star) = &given.star_star {
            let Value::Dict(more) = self.eval(star_star, scope)? else {
                return Err(Fault::error("argument after ** must be a mapping"));
            };
            for (key, value) in more.entries() {
                let Value::Str(key) = key else { return Err(Fault::error("keywords must be strings")) };
                args.keyword.push((key.as_str().into(), value.clone()));
            }
        }
        Ok(args)
    }

    fn call(&mut self, callee: &Value, args: Args) -> Result<Value> {
        defined(callee)?;
        match callee {
            Value::Func(f) => match &**f {
                Func::Global(name) => self.global(name, &args),
                Func::Method(value, name) => methods::call(value, name, &args, &self.budget),
                Func::Macro(m) => self.call_macro(m, args),
                Func::Joiner(separator, used) => Ok(if used.replace(true) { Value::Str(separator.clone()) } else { Value::str("") }),
                Func::Cycler(..) => Err(Fault::error("'Cycler' object is not callable")),
            },
            Value::Loop(l) => {
                let over = args.one("loop", "iterable")?;
                let Some((for_loop, scope)) = &l.recurse else {
                    return Err(Fault::error("The loop must have the 'recursive' marker to be called recursively."));
                };
                let mut out = StrBuf::default();
                self.for_loop(for_loop, &over, l.depth + 1, scope, &mut out)?;
                Ok(Value::Str(out.finish()))
            }
            _ => Err(Fault::error(format!("'{}' object is not callable", callee.type_name()))),
        }
    }

    fn call_macro(&mut self, m: &Macro, args: Args) -> Result<Value> {
        let def = &m.def;
        self.budget.spend(CALL + def.params.len() * (args.keyword.len() + 4) * 8)?;
        let scope = Scope::child(&m.scope);
        let mut keyword = args.keyword;
        let mut positional = args.positional.into_iter();
        let mut take = |name: &str| keyword.iter().position(|(k, _)| **k == *name).map(|at| keyword.remove(at).1);
        for (name, default) in &def.params {
            let value = match (positional.next(), default) {
                (Some(value), _) => value,
                (None, default) => match (take(name), default) {
                    (Some(value), _) => value,
                    (None, Some(default)) => self.eval(default, &scope)?,
                    (None, None) => Value::undefined(format!("parameter '{name}' was not provided")),
                },
            };
            scope.set(name, value);
        }
        let caller = take("caller");
        if def.uses_caller && !def.params.iter().any(|p| &*p.0 == "caller") {
            scope.set(&"caller".into(), caller.unwrap_or_else(|| Value::undefined("No caller defined")));
        } else if caller.is_some() {
            return Err(Fault::error(format!("macro '{}' takes no caller", def.name)));
        }
        if def.uses_kwargs {
            let extra = keyword.drain(..).map(|(k, v)| (Value::str(k), v));
            scope.set(&"kwargs".into(), dict(extra, &self.budget)?);
        } else if let Some((name, _)) = keyword.first() {
            return Err(Fault::error(format!("macro '{}' takes no keyword argument '{name}'", def.name)));
        }
        if def.uses_varargs {
            scope.set(&"varargs".into(), Value::tuple(positional.collect())?);
        } else if positional.next().is_some() {
            let n = def.params.len();
            return Err(Fault::error(format!("macro '{}' takes not more than {n} argument(s)", def.name)));
        }
        let mut out = StrBuf::default();
        self.run(&def.body, &scope, &mut out)?;
        Ok(Value::Str(out.finish()))
    }

    fn global(&mut self, name: &str, args: &Args) -> Result<Value> {
        match name {
            "raise_exception" => {
                let message = to_str(&args.one(name, "message")?, &self.budget)?;
                Err(Fault::Raised(message.as_str().into()))
            }
            "strftime_now" => {
                let format = to_str(&args.one(name, "format")?, &self.budget)?;
                self.budget.spend(format.as_str().len().saturating_mul(128))?;
                Ok(Value::Str(format.derived((self.strftime)(format.as_str()))))
            }
            "range" => {
                let [a, b, step] = args.bind(name, ["start", "stop", "step"])?;
                let Some(a) = a else { return Err(Fault::error("range expected at least 1 argument, got 0")) };
                let a = int(Some(&a), 0, name)?;
                let (start, stop) = match &b {
                    Some(b) => (a, int(Some(b), 0, name)?),
                    None => (0, a),
                };
                let step = int(step.as_ref(), 1, name)?;
                if step == 0 {
                    return Err(Fault::error("range() arg 3 must not be zero"));
                }
                let range = Value::Range { start, stop, step };
                match range.len() {
                    Some(0..=MAX_RANGE) => Ok(range),
                    _ => Err(Fault::error(format!("range too big: its maximum size is {MAX_RANGE}"))),
                }
            }
            "namespace" | "dict" => {
                let mut pairs = Vec::new();
                if let Some(first) = args.positional.first() {
                    match first {
                        Value::Dict(d) => pairs.extend(d.entries().iter().cloned()),
                        other => {
                            for pair in other.iterate(&self.budget)? {
                                match &pair.iterate(&self.budget)?[..] {
                                    [key, value] => pairs.push((key.clone(), value.clone())),
                                    _ => return Err(Fault::error("dictionary update sequence element is not a pair")),
                                }
                            }
                        }
                    }
                }
                pairs.extend(args.keyword.iter().map(|(k, v)| (Value::str(k.clone()), v.clone())));
                if name == "dict" {
                    return dict(pairs, &self.budget);
                }
                let mut attributes = Dict::default();
                self.budget.spend(256 + pairs.len() * size_of::<Value>() * 2)?;
                for (key, value) in pairs {
                    attributes.insert(key, value)?;
                }
                let namespace: Namespace = Rc::new(RefCell::new(attributes));
                self.namespaces.push(namespace.clone());
                Ok(Value::Namespace(namespace))
            }
            "cycler" => {
                let Value::Tuple(items) = Value::tuple(args.positional.clone())? else { return Ok(Value::None) };
                Ok(Value::Func(Rc::new(Func::Cycler(items, Cell::new(0)))))
            }
            "joiner" => {
                let [separator] = args.bind(name, ["sep"])?;
                let separator = separator.map_or_else(|| Ok(Str::trusted(", ")), |s| to_str(&s, &self.budget))?;
                Ok(Value::Func(Rc::new(Func::Joiner(separator, Cell::new(false)))))
            }
            _ => Err(Fault::error(format!("'{name}' is not supported"))),
        }
    }
}

const GLOBALS: [&str; 8] = ["raise_exception", "strftime_now", "range", "namespace", "dict", "cycler", "joiner", "lipsum"];
