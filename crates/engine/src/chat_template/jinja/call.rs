//! Arguments of calls, filters and tests, bound to names as Python does.

use std::sync::Arc;

use super::error::{Fault, Result};
use super::value::{Str, Value};

/// What a call was given.
#[derive(Clone, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) keyword: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// The values of the parameters `names`, in order; fails on others.
    pub(super) fn bind<const N: usize>(&self, function: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut bound: [Option<Value>; N] = [const { None }; N];
        if self.positional.len() > N {
            let given = self.positional.len();
            return Err(Fault::error(format!("{function}() takes at most {N} arguments ({given} given)")));
        }
        for (slot, value) in bound.iter_mut().zip(&self.positional) {
            *slot = Some(value.clone());
        }
        for (name, value) in &self.keyword {
            match names.iter().position(|n| **n == **name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value.clone()),
                _ => return Err(Fault::error(format!("{function}() got an unexpected argument '{name}'"))),
            }
        }
        Ok(bound)
    }

    /// As `bind`, where the first parameter must be given.
    pub(super) fn one(&self, function: &str, name: &str) -> Result<Value> {
        let [value] = self.bind(function, [name])?;
        value.ok_or_else(|| Fault::error(format!("{function}() is missing argument '{name}'")))
    }

    /// Fails if anything was given.
    pub(super) fn none(&self, function: &str) -> Result<()> {
        self.bind::<0>(function, []).map(|_| ())
    }
}

/// `value` as text, or Python's complaint.
pub(super) fn text<'v>(value: &'v Value, function: &str) -> Result<&'v Str> {
    match value {
        Value::Str(s) => Ok(s),
        Value::Undefined(why) => Err(Fault::error(&**why)),
        _ => Err(Fault::error(format!("{function}() argument must be str, not {}", value.type_name()))),
    }
}

/// `value` as a count or position; `None` and nothing give `default`.
pub(super) fn int(value: Option<&Value>, default: i64, function: &str) -> Result<i64> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(Value::Bool(b)) => Ok((*b).into()),
        Some(Value::Int(i)) => Ok(i64::try_from(*i).unwrap_or(if *i < 0 { i64::MIN } else { i64::MAX })),
        Some(Value::Undefined(why)) => Err(Fault::error(&**why)),
        Some(other) => Err(Fault::error(format!("{function}() needs an integer, not {}", other.type_name()))),
    }
}
