//! The values a template computes with: Python's, as far as templates reach them.
//!
//! Every string knows which of its bytes came from the caller (`taint`), so that the finished prompt can
//! tell a marker written by the template from the same spelling typed by a user. Containers are immutable,
//! as in Jinja2's `ImmutableSandboxedEnvironment`; only namespaces change.
//! Does not own operators, methods or printing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{ForLoop, MacroDef};
use super::error::{Fault, Limit, Result};

/// Deepest nesting of a list, tuple or dict.
const MAX_VALUE_DEPTH: u32 = 100;

/// What looking into `value` costs, where it takes as long as its text.
pub(super) fn text_cost(value: &Value) -> usize {
    match value {
        Value::Str(s) => s.text.len(),
        _ => 0,
    }
}

/// What one element of a list costs that is a string of its own.
pub(super) const ELEMENT_COST: usize = 160;

/// What one rendering may still spend. Steps, bytes made and bytes read all draw from one account, so that
/// it bounds time and memory together.
pub(super) struct Budget {
    left: Cell<u64>,
}

impl Budget {
    pub(super) fn new(units: u64) -> Self {
        Self { left: Cell::new(units) }
    }

    pub(super) fn spend(&self, units: usize) -> Result<()> {
        match self.left.get().checked_sub(units as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Fault::Limit(Limit::Work)),
        }
    }
}

/// Immutable text with the byte ranges that came from the caller, ascending and disjoint.
#[derive(Clone, Debug)]
pub(super) struct Str {
    text: Arc<str>,
    taint: Option<Rc<[(u32, u32)]>>,
}

impl Str {
    /// Text of the template itself.
    pub(super) fn trusted(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), taint: None }
    }

    /// Text given by the caller.
    pub(super) fn user(text: &str) -> Self {
        let taint = (!text.is_empty()).then(|| Rc::from([(0, text.len() as u32)]));
        Self { text: text.into(), taint }
    }

    /// `text` computed from `self` in a way that keeps no positions: from the caller if any of `self` was.
    pub(super) fn derived(&self, text: String) -> Self {
        if self.taint.is_some() { Self::user(&text) } else { Self::trusted(text) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_tainted(&self) -> bool {
        self.taint.is_some()
    }

    /// The bytes `start..end`, which must lie on character boundaries.
    pub(super) fn slice(&self, start: usize, end: usize) -> Self {
        if start == 0 && end == self.text.len() {
            return self.clone();
        }
        let mut buf = StrBuf::default();
        buf.push_part(self, start, end);
        buf.finish()
    }
}

/// Text under construction, with the ranges that came from the caller.
#[derive(Default)]
pub(super) struct StrBuf {
    text: String,
    taint: Vec<(u32, u32)>,
}

impl StrBuf {
    pub(super) fn push_trusted(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn push_user(&mut self, text: &str) {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        self.mark(start, self.text.len() as u32);
    }

    pub(super) fn push(&mut self, s: &Str) {
        self.push_part(s, 0, s.text.len());
    }

    /// Pushes `s` so many times.
    pub(super) fn push_times(&mut self, s: &Str, times: usize) {
        match &s.taint {
            None => self.text.push_str(&s.text.repeat(times)),
            Some(taint) if **taint == [(0, s.text.len() as u32)] => self.push_user(&s.text.repeat(times)),
            Some(_) => (0..times).for_each(|_| self.push(s)),
        }
    }

    /// Pushes `text` made from `source`, from the caller if any of `source` was.
    pub(super) fn push_derived(&mut self, source: &Str, text: &str) {
        if source.is_tainted() { self.push_user(text) } else { self.push_trusted(text) }
    }

    pub(super) fn push_part(&mut self, s: &Str, start: usize, end: usize) {
        let base = self.text.len() as u32;
        self.text.push_str(&s.text[start..end]);
        if let Some(taint) = &s.taint {
            let (start, end) = (start as u32, end as u32);
            let first = taint.partition_point(|r| r.1 <= start);
            for &(from, to) in taint[first..].iter().take_while(|r| r.0 < end) {
                self.mark(base + from.max(start) - start, base + to.min(end) - start);
            }
        }
    }

    fn mark(&mut self, from: u32, to: u32) {
        match self.taint.last_mut() {
            _ if from >= to => {}
            Some(last) if last.1 == from => last.1 = to,
            _ => self.taint.push((from, to)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn finish(self) -> Str {
        let taint = (!self.taint.is_empty()).then(|| Rc::from(self.taint));
        Str { text: self.text.into(), taint }
    }

    /// The text and its ranges from the caller, in bytes.
    pub(super) fn into_parts(self) -> (String, Vec<(u32, u32)>) {
        (self.text, self.taint)
    }
}

/// The items of a list or tuple.
pub(super) struct Seq {
    pub(super) items: Vec<Value>,
    depth: u32,
}

/// A dict in insertion order; small ones are searched, larger ones indexed.
#[derive(Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: u32,
}

/// A hashable value, equal where Python's are (`1 == 1.0 == True`).
#[derive(PartialEq, Eq, Hash, Clone)]
pub(super) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Arc<str>),
    Tuple(Vec<Key>),
    Identity(usize),
}

/// From how many entries on a dict is indexed.
const INDEX_FROM: usize = 12;
/// Most values in one dict key.
const MAX_KEY_NODES: usize = 32;

impl Dict {
    pub(super) fn insert(&mut self, key: Value, value: Value) -> Result<()> {
        let hashed = key.key()?;
        self.depth = self.depth.max(key.depth() + 1).max(value.depth() + 1);
        if self.depth > MAX_VALUE_DEPTH {
            return Err(Fault::Limit(Limit::Depth));
        }
        if let Some(at) = self.position(&hashed) {
            self.entries[at].1 = value;
            return Ok(());
        }
        self.entries.push((key, value));
        if self.entries.len() == INDEX_FROM {
            for (at, (key, _)) in self.entries.iter().enumerate() {
                self.index.insert(key.key()?, at);
            }
        } else if self.entries.len() > INDEX_FROM {
            self.index.insert(hashed, self.entries.len() - 1);
        }
        Ok(())
    }

    fn position(&self, key: &Key) -> Option<usize> {
        if self.entries.len() >= INDEX_FROM {
            return self.index.get(key).copied();
        }
        self.entries.iter().position(|(k, _)| match (k, key) {
            (Value::Str(a), Key::Str(b)) => *a.text == **b,
            _ => k.key().is_ok_and(|k| k == *key),
        })
    }

    pub(super) fn get(&self, key: &Value) -> Result<Option<&Value>> {
        Ok(self.position(&key.key()?).map(|at| &self.entries[at].1))
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        if self.entries.len() >= INDEX_FROM {
            return self.index.get(&Key::Str(key.into())).map(|&at| &self.entries[at].1);
        }
        self.entries.iter().find(|(k, _)| matches!(k, Value::Str(s) if &*s.text == key)).map(|(_, v)| v)
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Attributes of a namespace, or of `loop`, by their text.
pub(super) type Namespace = Rc<RefCell<Dict>>;

/// A Python value.
#[derive(Clone)]
pub(super) enum Value {
    /// Jinja2's `Undefined`, with the sentence it fails with when used.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Str),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Namespace(Namespace),
    Range {
        start: i64,
        stop: i64,
        step: i64,
    },
    /// `dict.items()` and its like: sized, iterable, not indexable.
    View(&'static str, Rc<Seq>),
    /// What filters such as `map` give: consumed by its first reader.
    Generator(Rc<Generator>),
    Loop(Rc<Loop>),
    Func(Rc<Func>),
}

/// An iterator that was computed ahead.
pub(super) struct Generator {
    pub(super) seq: Rc<Seq>,
    pub(super) next: Cell<usize>,
}

/// Anything that can be called.
pub(super) enum Func {
    Global(&'static str),
    Method(Value, Box<str>),
    Macro(Rc<Macro>),
    Cycler(Rc<Seq>, Cell<usize>),
    Joiner(Str, Cell<bool>),
}

/// A macro and the scope it was defined in.
pub(super) struct Macro {
    pub(super) def: Arc<MacroDef>,
    pub(super) scope: Rc<Scope>,
}

/// The `loop` of a `for`.
pub(super) struct Loop {
    pub(super) items: Rc<Seq>,
    pub(super) at: Cell<usize>,
    pub(super) depth: usize,
    /// What `loop.changed(..)` saw last, as its repr: a value here could hold the loop itself.
    pub(super) changed: RefCell<Option<String>>,
    /// For `recursive` loops: what `loop(..)` runs again, and where.
    pub(super) recurse: Option<(Arc<ForLoop>, Rc<Scope>)>,
}

/// Variables of one block, and the scope around it.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) parent: Option<Rc<Scope>>,
    pub(super) vars: RefCell<HashMap<Arc<str>, Value>>,
}

impl Scope {
    pub(super) fn child(parent: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { parent: Some(parent.clone()), vars: RefCell::default() })
    }

    /// The innermost variable of this name.
    pub(super) fn get(&self, name: &str, budget: &Budget) -> Result<Option<Value>> {
        let mut scope = Some(self);
        while let Some(s) = scope {
            budget.spend(8)?;
            if let Some(value) = s.vars.borrow().get(name) {
                return Ok(Some(value.clone()));
            }
            scope = s.parent.as_deref();
        }
        Ok(None)
    }

    pub(super) fn set(&self, name: &Arc<str>, value: Value) {
        self.vars.borrow_mut().insert(name.clone(), value);
    }
}

fn seq(items: Vec<Value>) -> Result<Rc<Seq>> {
    let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
    if depth > MAX_VALUE_DEPTH {
        return Err(Fault::Limit(Limit::Depth));
    }
    Ok(Rc::new(Seq { items, depth }))
}

impl Value {
    pub(super) fn undefined(why: impl Into<Rc<str>>) -> Self {
        Self::Undefined(why.into())
    }

    pub(super) fn str(text: impl Into<Arc<str>>) -> Self {
        Self::Str(Str::trusted(text))
    }

    pub(super) fn list(items: Vec<Value>) -> Result<Self> {
        Ok(Self::List(seq(items)?))
    }

    pub(super) fn tuple(items: Vec<Value>) -> Result<Self> {
        Ok(Self::Tuple(seq(items)?))
    }

    pub(super) fn view(kind: &'static str, items: Vec<Value>) -> Result<Self> {
        Ok(Self::View(kind, seq(items)?))
    }

    pub(super) fn generator(items: Vec<Value>) -> Result<Self> {
        Ok(Self::Generator(Rc::new(Generator { seq: seq(items)?, next: Cell::new(0) })))
    }

    pub(super) fn int(n: usize) -> Self {
        Self::Int(n as i128)
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(s) | Self::Tuple(s) | Self::View(_, s) => s.depth,
            Self::Dict(d) => d.depth.max(1),
            Self::Generator(g) => g.seq.depth,
            Self::Loop(l) => l.items.depth,
            Self::Func(f) => match &**f {
                Func::Method(of, _) => of.depth() + 1,
                Func::Cycler(s, _) => s.depth,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Converts what the caller gave; all of its text counts as the caller's when `tainted`.
    pub(super) fn from_json(json: &serde_json::Value, tainted: bool, budget: &Budget, depth: u32) -> Result<Self> {
        if depth > MAX_VALUE_DEPTH {
            return Err(Fault::Limit(Limit::Depth));
        }
        let text = |s: &str| {
            budget.spend(s.len() + 48)?;
            Ok(Self::Str(if tainted { Str::user(s) } else { Str::trusted(s) }))
        };
        budget.spend(48)?;
        Ok(match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), _, _) => Self::Int(i.into()),
                (_, Some(u), _) => Self::Int(u.into()),
                (_, _, f) => Self::Float(f.unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => text(s)?,
            serde_json::Value::Array(a) => {
                Self::list(a.iter().map(|v| Self::from_json(v, tainted, budget, depth + 1)).collect::<Result<_>>()?)?
            }
            serde_json::Value::Object(o) => {
                let mut dict = Dict::default();
                for (k, v) in o {
                    dict.insert(text(k)?, Self::from_json(v, tainted, budget, depth + 1)?)?;
                }
                Self::Dict(Rc::new(dict))
            }
        })
    }

    fn key(&self) -> Result<Key> {
        self.key_within(&mut { MAX_KEY_NODES })
    }

    /// Fails for tuples of more than `left` values: shared ones can stand for exponentially many.
    fn key_within(&self, left: &mut usize) -> Result<Key> {
        *left = left.checked_sub(1).ok_or(Fault::Limit(Limit::Depth))?;
        Ok(match self {
            Self::None => Key::None,
            Self::Bool(b) => Key::Int((*b).into()),
            Self::Int(i) => Key::Int(*i),
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 1e30 => Key::Int(*f as i128),
            Self::Float(f) => Key::Float(f.to_bits()),
            Self::Str(s) => Key::Str(s.text.clone()),
            Self::Tuple(t) => Key::Tuple(t.items.iter().map(|v| v.key_within(left)).collect::<Result<_>>()?),
            Self::Undefined(_) => Key::Identity(0),
            Self::Namespace(n) => Key::Identity(Rc::as_ptr(n).addr()),
            Self::Func(f) => Key::Identity(Rc::as_ptr(f).addr()),
            Self::Loop(l) => Key::Identity(Rc::as_ptr(l).addr()),
            Self::Generator(g) => Key::Identity(Rc::as_ptr(g).addr()),
            Self::Range { .. } | Self::List(_) | Self::Dict(_) | Self::View(..) => {
                return Err(Fault::error(format!("unhashable type: '{}'", self.type_name())));
            }
        })
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "Namespace",
            Self::Range { .. } => "range",
            Self::View(kind, _) => kind,
            Self::Generator(_) => "generator",
            Self::Loop(_) => "LoopContext",
            Self::Func(f) => match &**f {
                Func::Macro(_) => "Macro",
                Func::Method(..) => "builtin_function_or_method",
                _ => "function",
            },
        }
    }

    /// Python's truth of the value.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.text.is_empty(),
            _ => self.len().is_none_or(|n| n > 0),
        }
    }

    /// Python's `len`, for values that have one.
    pub(super) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(s) => s.text.chars().count(),
            Self::List(s) | Self::Tuple(s) | Self::View(_, s) => s.items.len(),
            Self::Dict(d) => d.entries.len(),
            Self::Range { start, stop, step } => range_len(*start, *stop, *step),
            Self::Loop(l) => l.items.items.len(),
            _ => return None,
        })
    }

    /// What iterating over the value gives; fails where Python's `iter` does.
    pub(super) fn iterate(&self, budget: &Budget) -> Result<Vec<Value>> {
        let spend = |n: usize| budget.spend(n * size_of::<Value>());
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(s) => {
                budget.spend(s.text.len() * ELEMENT_COST)?;
                s.text.char_indices().map(|(i, c)| Self::Str(s.slice(i, i + c.len_utf8()))).collect()
            }
            Self::List(s) | Self::Tuple(s) | Self::View(_, s) => {
                spend(s.items.len())?;
                s.items.clone()
            }
            Self::Dict(d) => {
                spend(d.entries.len())?;
                d.entries.iter().map(|(k, _)| k.clone()).collect()
            }
            Self::Range { start, stop, step } => {
                let n = range_len(*start, *stop, *step);
                spend(n)?;
                (0..n as i128).map(|i| Self::Int(i128::from(*start) + i * i128::from(*step))).collect()
            }
            Self::Generator(g) => {
                let rest = g.seq.items.get(g.next.replace(usize::MAX)..).unwrap_or_default();
                spend(rest.len())?;
                rest.to_vec()
            }
            _ => return Err(Fault::error(format!("'{}' object is not iterable", self.type_name()))),
        })
    }
}

fn range_len(start: i64, stop: i64, step: i64) -> usize {
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = if step > 0 { stop - start } else { start - stop };
    usize::try_from((span + step.abs() - 1).div_euclid(step.abs()).max(0)).unwrap_or(usize::MAX)
}
