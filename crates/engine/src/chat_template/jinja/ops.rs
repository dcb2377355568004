//! Python's operators on values, and lookups as Jinja2's sandbox does them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{BinOp, CmpOp};
use super::error::{Fault, Result};
use super::format::percent;
use super::methods;
use super::value::{Budget, Dict, Func, Str, StrBuf, Value, text_cost};

/// A number as Python's arithmetic sees it.
#[derive(Clone, Copy)]
pub(super) enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int((*b).into())),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Float(f) => Some(Self::Float(*f)),
            _ => None,
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(f) => f,
        }
    }

    fn cmp(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            _ => self.float().partial_cmp(&other.float()),
        }
    }
}

/// Fails with Jinja2's sentence if `value` is undefined.
pub(super) fn defined(value: &Value) -> Result<()> {
    match value {
        Value::Undefined(why) => Err(Fault::error(&**why)),
        _ => Ok(()),
    }
}

/// `a op b`.
pub(super) fn binary(op: BinOp, a: &Value, b: &Value, budget: &Budget) -> Result<Value> {
    if let (BinOp::Rem, Value::Str(template)) = (op, a) {
        return Ok(Value::Str(percent(template, b, budget)?));
    }
    defined(a)?;
    defined(b)?;
    if let (Some(x), Some(y)) = (Num::of(a), Num::of(b)) {
        return arithmetic(op, x, y);
    }
    match (op, a, b) {
        (BinOp::Add, Value::Str(x), Value::Str(y)) => concat([x, y], budget),
        (BinOp::Add, Value::List(x), Value::List(y)) => Value::list(joined(&x.items, &y.items, budget)?),
        (BinOp::Add, Value::Tuple(x), Value::Tuple(y)) => Value::tuple(joined(&x.items, &y.items, budget)?),
        (BinOp::Mul, Value::Str(_) | Value::List(_) | Value::Tuple(_), Value::Int(_) | Value::Bool(_)) => repeat(a, b, budget),
        (BinOp::Mul, Value::Int(_) | Value::Bool(_), Value::Str(_) | Value::List(_) | Value::Tuple(_)) => repeat(b, a, budget),
        _ => {
            let sign = match op {
                BinOp::Add => "+",
                BinOp::Sub => "-",
                BinOp::Mul => "*",
                BinOp::Div => "/",
                BinOp::FloorDiv => "//",
                BinOp::Rem => "%",
                BinOp::Pow => "** or pow()",
            };
            let (a, b) = (a.type_name(), b.type_name());
            Err(Fault::error(format!("unsupported operand type(s) for {sign}: '{a}' and '{b}'")))
        }
    }
}

fn joined(a: &[Value], b: &[Value], budget: &Budget) -> Result<Vec<Value>> {
    budget.spend((a.len() + b.len()) * size_of::<Value>())?;
    Ok([a, b].concat())
}

/// The strings one after the other.
pub(super) fn concat<'a>(parts: impl IntoIterator<Item = &'a Str>, budget: &Budget) -> Result<Value> {
    let mut out = StrBuf::default();
    for part in parts {
        budget.spend(part.as_str().len())?;
        out.push(part);
    }
    Ok(Value::Str(out.finish()))
}

fn repeat(what: &Value, times: &Value, budget: &Budget) -> Result<Value> {
    let times = match times {
        Value::Int(i) => usize::try_from((*i).max(0)).unwrap_or(usize::MAX),
        other => usize::from(other.truth()),
    };
    let spend = |size: usize| budget.spend(size.saturating_mul(times));
    match what {
        Value::Str(s) => {
            spend(s.as_str().len())?;
            let mut out = StrBuf::default();
            if !s.as_str().is_empty() {
                out.push_times(s, times);
            }
            Ok(Value::Str(out.finish()))
        }
        Value::List(s) | Value::Tuple(s) => {
            spend(s.items.len() * size_of::<Value>())?;
            let rounds = if s.items.is_empty() { 0 } else { times };
            let items = (0..rounds).flat_map(|_| s.items.iter().cloned()).collect();
            if matches!(what, Value::List(_)) { Value::list(items) } else { Value::tuple(items) }
        }
        _ => Ok(what.clone()),
    }
}

fn arithmetic(op: BinOp, a: Num, b: Num) -> Result<Value> {
    let too_large = || Fault::error("integer too large");
    let by_zero = || Fault::error("division by zero");
    if let (Num::Int(a), Num::Int(b)) = (a, b) {
        return Ok(Value::Int(match op {
            BinOp::Add => a.checked_add(b).ok_or_else(too_large)?,
            BinOp::Sub => a.checked_sub(b).ok_or_else(too_large)?,
            BinOp::Mul => a.checked_mul(b).ok_or_else(too_large)?,
            BinOp::Div if b == 0 => return Err(by_zero()),
            BinOp::Div => return Ok(Value::Float(a as f64 / b as f64)),
            BinOp::FloorDiv | BinOp::Rem if b == 0 => return Err(by_zero()),
            BinOp::FloorDiv => {
                let quotient = a.checked_div(b).ok_or_else(too_large)?;
                if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }
            }
            BinOp::Rem => {
                let rest = a.checked_rem(b).ok_or_else(too_large)?;
                if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
            }
            BinOp::Pow => match u32::try_from(b) {
                Ok(b) => a.checked_pow(b).ok_or_else(too_large)?,
                Err(_) if b > 0 && !(-1..=1).contains(&a) => return Err(too_large()),
                Err(_) if b > 0 => {
                    if a == -1 && b % 2 != 0 {
                        -1
                    } else {
                        a * a
                    }
                }
                Err(_) if a == 0 => return Err(by_zero()),
                Err(_) => return Ok(Value::Float((a as f64).powf(b as f64))),
            },
        }));
    }
    let (a, b) = (a.float(), b.float());
    if b == 0.0 && matches!(op, BinOp::Div | BinOp::FloorDiv | BinOp::Rem) {
        return Err(by_zero());
    }
    let floor_rem = || {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    Ok(Value::Float(match op {
        BinOp::Add => a + b,
        BinOp::Sub => a - b,
        BinOp::Mul => a * b,
        BinOp::Div => a / b,
        BinOp::FloorDiv => (a / b).floor(),
        BinOp::Rem => floor_rem(),
        BinOp::Pow => a.powf(b),
    }))
}

/// `-value`, or `+value`.
pub(super) fn sign(value: &Value, negate: bool) -> Result<Value> {
    defined(value)?;
    match Num::of(value) {
        Some(Num::Int(i)) => Ok(Value::Int(if negate { i.checked_neg().unwrap_or(i128::MAX) } else { i })),
        Some(Num::Float(f)) => Ok(Value::Float(if negate { -f } else { f })),
        None => Err(Fault::error(format!("bad operand type for unary sign: '{}'", value.type_name()))),
    }
}

/// Python's `a == b`.
pub(super) fn equal(a: &Value, b: &Value, budget: &Budget) -> Result<bool> {
    budget.spend(16)?;
    if let (Some(x), Some(y)) = (Num::of(a), Num::of(b)) {
        return Ok(x.cmp(y) == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::Str(x), Value::Str(y)) => {
            budget.spend(x.as_str().len().min(y.as_str().len()))?;
            x.as_str() == y.as_str()
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            x.items.len() == y.items.len() && all_equal(&x.items, &y.items, budget)?
        }
        (Value::Dict(x), Value::Dict(y)) => {
            if x.entries().len() != y.entries().len() {
                return Ok(false);
            }
            for (key, value) in x.entries() {
                match y.get(key)? {
                    Some(other) if equal(value, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range { .. }, Value::Range { .. }) => all_equal(&a.iterate(budget)?, &b.iterate(budget)?, budget)?,
        (Value::Namespace(x), Value::Namespace(y)) => Rc::ptr_eq(x, y),
        (Value::Func(x), Value::Func(y)) => Rc::ptr_eq(x, y),
        (Value::Loop(x), Value::Loop(y)) => Rc::ptr_eq(x, y),
        (Value::Generator(x), Value::Generator(y)) => Rc::ptr_eq(x, y),
        (Value::View(x, a), Value::View(y, b)) if x == y && *x != "dict_values" => all_equal(&a.items, &b.items, budget)?,
        _ => false,
    })
}

fn all_equal(a: &[Value], b: &[Value], budget: &Budget) -> Result<bool> {
    for (x, y) in a.iter().zip(b) {
        if !equal(x, y, budget)? {
            return Ok(false);
        }
    }
    Ok(a.len() == b.len())
}

/// The order of two values, where Python has one; `None` for NaN.
pub(super) fn order(a: &Value, b: &Value, budget: &Budget) -> Result<Option<Ordering>> {
    budget.spend(32)?;
    defined(a)?;
    defined(b)?;
    if let (Some(x), Some(y)) = (Num::of(a), Num::of(b)) {
        return Ok(x.cmp(y));
    }
    match (a, b) {
        (Value::Str(x), Value::Str(y)) => {
            budget.spend(x.as_str().len().min(y.as_str().len()))?;
            Ok(Some(x.as_str().cmp(y.as_str())))
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (x, y) in x.items.iter().zip(&y.items) {
                if !equal(x, y, budget)? {
                    return order(x, y, budget);
                }
            }
            Ok(Some(x.items.len().cmp(&y.items.len())))
        }
        _ => {
            let (a, b) = (a.type_name(), b.type_name());
            Err(Fault::error(format!("'<' not supported between instances of '{a}' and '{b}'")))
        }
    }
}

/// `a op b` of a comparison.
pub(super) fn compare(op: CmpOp, a: &Value, b: &Value, budget: &Budget) -> Result<bool> {
    Ok(match op {
        CmpOp::Eq => equal(a, b, budget)?,
        CmpOp::Ne => !equal(a, b, budget)?,
        CmpOp::Lt => order(a, b, budget)? == Some(Ordering::Less),
        CmpOp::Le => matches!(order(a, b, budget)?, Some(Ordering::Less | Ordering::Equal)),
        CmpOp::Gt => order(a, b, budget)? == Some(Ordering::Greater),
        CmpOp::Ge => matches!(order(a, b, budget)?, Some(Ordering::Greater | Ordering::Equal)),
        CmpOp::In => contains(b, a, budget)?,
        CmpOp::NotIn => !contains(b, a, budget)?,
    })
}

fn contains(container: &Value, item: &Value, budget: &Budget) -> Result<bool> {
    match container {
        Value::Str(text) => {
            let Value::Str(item) = item else {
                defined(item)?;
                let found = item.type_name();
                return Err(Fault::error(format!("'in <string>' requires string as left operand, not {found}")));
            };
            budget.spend(text.as_str().len())?;
            Ok(text.as_str().contains(item.as_str()))
        }
        Value::Dict(d) => {
            budget.spend(text_cost(item))?;
            Ok(d.get(item)?.is_some())
        }
        Value::Namespace(_) | Value::Loop(_) | Value::Func(_) | Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            Err(Fault::error(format!("argument of type '{}' is not iterable", container.type_name())))
        }
        _ => {
            for x in container.iterate(budget)? {
                if equal(&x, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// `value.name`: an attribute, or else an item.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value> {
    defined(value)?;
    if let Some(found) = own_attribute(value, name) {
        return Ok(found);
    }
    if let Value::Dict(d) = value
        && let Some(found) = d.get_str(name)
    {
        return Ok(found.clone());
    }
    Ok(missing(value, name))
}

/// `value[key]`: an item, or else an attribute.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value> {
    defined(value)?;
    let found = match (value, key) {
        (Value::Dict(d), _) => d.get(key).ok().flatten().cloned(),
        (Value::Str(s), Value::Int(_) | Value::Bool(_)) => {
            let at = index(key, s.as_str().chars().count());
            at.and_then(|at| s.as_str().char_indices().nth(at)).map(|(i, c)| Value::Str(s.slice(i, i + c.len_utf8())))
        }
        (Value::List(s) | Value::Tuple(s), Value::Int(_) | Value::Bool(_)) => index(key, s.items.len()).map(|at| s.items[at].clone()),
        (Value::Range { start, step, .. }, Value::Int(_) | Value::Bool(_)) => {
            index(key, value.len().unwrap_or(0)).map(|at| Value::Int(i128::from(*start) + at as i128 * i128::from(*step)))
        }
        _ => None,
    };
    Ok(match (found, key) {
        (Some(found), _) => found,
        (None, Value::Str(name)) => own_attribute(value, name.as_str()).unwrap_or_else(|| missing(value, name.as_str())),
        (None, Value::Int(i)) => Value::undefined(format!("{} object has no element {i}", value.type_name())),
        _ => Value::undefined(format!("{} object has no such element", value.type_name())),
    })
}

fn index(key: &Value, len: usize) -> Option<usize> {
    let at = match key {
        Value::Int(i) => *i,
        other => i128::from(other.truth()),
    };
    let at = if at < 0 { at + len as i128 } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

fn missing(value: &Value, name: &str) -> Value {
    let kind = value.type_name();
    let of = if matches!(value, Value::None) { "None".into() } else { format!("{kind} object") };
    Value::undefined(format!("'{of}' has no attribute '{name}'"))
}

/// Attributes that the type itself has: methods, and what `loop` and namespaces hold.
fn own_attribute(value: &Value, name: &str) -> Option<Value> {
    match value {
        Value::Namespace(n) => n.borrow().get_str(name).cloned(),
        Value::Loop(_) => methods::loop_attribute(value, name),
        Value::Func(f) => match (&**f, name) {
            (Func::Macro(m), "name") => Some(Value::str(m.def.name.clone())),
            (Func::Cycler(seq, at), "current") => seq.items.get(at.get() % seq.items.len().max(1)).cloned(),
            (Func::Cycler(..), "next" | "reset") => Some(Value::Func(Rc::new(Func::Method(value.clone(), name.into())))),
            _ => None,
        },
        _ => match methods::kind_of(value, name)? {
            methods::Kind::Allowed => Some(Value::Func(Rc::new(Func::Method(value.clone(), name.into())))),
            methods::Kind::Mutating => {
                let kind = value.type_name();
                Some(Value::undefined(format!("access to attribute '{name}' of '{kind}' object is unsafe.")))
            }
        },
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, bounds: [Option<Value>; 3], budget: &Budget) -> Result<Value> {
    defined(value)?;
    let mut at = [None; 3];
    for (bound, at) in bounds.iter().zip(&mut at) {
        *at = match bound {
            None | Some(Value::None) => None,
            Some(Value::Int(i)) => Some(*i),
            Some(Value::Bool(b)) => Some((*b).into()),
            Some(_) => return Err(Fault::error("slice indices must be integers or None")),
        };
    }
    if at[2] == Some(0) {
        return Err(Fault::error("slice step cannot be zero"));
    }
    match value {
        Value::Str(s) => {
            let text = s.as_str();
            budget.spend(text.len())?;
            let offsets: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let picked = picked(offsets.len() - 1, at);
            if at[2].unwrap_or(1) == 1 {
                let range = picked.first().map_or(0..0, |&from| offsets[from]..offsets[from + picked.len()]);
                return Ok(Value::Str(s.slice(range.start, range.end)));
            }
            let mut out = StrBuf::default();
            picked.iter().for_each(|&i| out.push_part(s, offsets[i], offsets[i + 1]));
            Ok(Value::Str(out.finish()))
        }
        Value::List(_) | Value::Tuple(_) | Value::Range { .. } => {
            let items = value.iterate(budget)?;
            let items = picked(items.len(), at).into_iter().map(|i| items[i].clone()).collect();
            if matches!(value, Value::Tuple(_)) { Value::tuple(items) } else { Value::list(items) }
        }
        _ => Err(Fault::error(format!("'{}' object can't be sliced", value.type_name()))),
    }
}

/// The indices that Python's `slice(..).indices(len)` walks.
fn picked(len: usize, [start, stop, step]: [Option<i128>; 3]) -> Vec<usize> {
    let n = len as i128;
    let step = step.unwrap_or(1);
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let clamp = |at: i128| if at < 0 { at.saturating_add(n).max(low) } else { at.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let mut out = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        out.push(at as usize);
        at = at.saturating_add(step);
    }
    out
}

/// A dict of pairs.
pub(super) fn dict(pairs: impl IntoIterator<Item = (Value, Value)>, budget: &Budget) -> Result<Value> {
    let mut dict = Dict::default();
    for (key, value) in pairs {
        budget.spend(2 * size_of::<Value>() + text_cost(&key))?;
        dict.insert(key, value)?;
    }
    Ok(Value::Dict(Rc::new(dict)))
}
