//! Jinja2's tests: what may follow `is`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{BinOp, CmpOp};
use super::call::Args;
use super::error::{Fault, Result};
use super::filters;
use super::methods::is_cased;
use super::ops::{binary, compare, defined};
use super::print::to_str;
use super::value::{Budget, Value, text_cost};

/// `value is name(args)`.
pub(super) fn perform(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<bool> {
    budget.spend(16)?;
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(CmpOp::Eq),
        "ne" | "!=" => Some(CmpOp::Ne),
        "lt" | "lessthan" | "<" => Some(CmpOp::Lt),
        "le" | "<=" => Some(CmpOp::Le),
        "gt" | "greaterthan" | ">" => Some(CmpOp::Gt),
        "ge" | ">=" => Some(CmpOp::Ge),
        "in" => Some(CmpOp::In),
        _ => None,
    };
    if let Some(op) = comparison {
        return compare(op, value, &args.one(name, "other")?, budget);
    }
    let remainder = |divisor: Value| -> Result<i128> {
        match binary(BinOp::Rem, value, &divisor, budget)? {
            Value::Int(i) => Ok(i),
            Value::Float(f) if f.fract() == 0.0 => Ok(f as i128),
            Value::Float(_) => Ok(-1),
            _ => Err(Fault::error("not all arguments converted during string formatting")),
        }
    };
    match name {
        "divisibleby" => return Ok(remainder(args.one(name, "num")?)? == 0),
        "sameas" => return Ok(same(value, &args.one(name, "other")?)),
        _ => args.none(name)?,
    }
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => {
            matches!(value, Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Range { .. } | Value::Undefined(_))
        }
        "iterable" => {
            !matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Func(_) | Value::Namespace(_))
        }
        "callable" => matches!(value, Value::Func(_) | Value::Undefined(_) | Value::Loop(_)),
        "odd" => {
            defined(value)?;
            remainder(Value::Int(2))? == 1
        }
        "even" => {
            defined(value)?;
            remainder(Value::Int(2))? == 0
        }
        "lower" | "upper" => {
            budget.spend(text_cost(value))?;
            is_cased(to_str(value, budget)?.as_str(), name == "lower")
        }
        "escaped" => false,
        "filter" => matches!(value, Value::Str(s) if filters::exists(s.as_str())),
        "test" => matches!(value, Value::Str(s) if exists(s.as_str())),
        _ => return Err(Fault::error(format!("no test named '{name}'"))),
    })
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a.as_str().cmp(b.as_str()) == Ordering::Equal,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Func(a), Value::Func(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

fn exists(name: &str) -> bool {
    const NAMES: &str = " defined undefined none boolean true false integer float number string mapping sequence iterable \
         callable odd even divisibleby sameas lower upper escaped filter test in eq equalto == ne != lt lessthan < le <= \
         gt greaterthan > ge >= ";
    NAMES.contains(&format!(" {name} "))
}
