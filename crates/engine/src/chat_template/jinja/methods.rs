//! Methods of str, dict, list and tuple, and the attributes of `loop`.

mod strings;

use std::rc::Rc;

use super::call::Args;
use super::error::{Fault, Result};
use super::ops::{dict, equal};
use super::print::push_repr;
use super::value::{Budget, Func, Loop, StrBuf, Value, text_cost};

use strings::str_method;
pub(super) use strings::{is_cased, pad, replace};

/// Whether Jinja2's immutable sandbox lets a method be used.
pub(super) enum Kind {
    Allowed,
    Mutating,
}

const STR_METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// What `name` is on values of this type, if the type has such a method.
pub(super) fn kind_of(value: &Value, name: &str) -> Option<Kind> {
    let (allowed, mutating): (&[&str], &[&str]) = match value {
        Value::Str(_) => (&STR_METHODS, &[]),
        Value::Dict(_) => (&["copy", "fromkeys", "get", "items", "keys", "values"], &["clear", "pop", "popitem", "setdefault", "update"]),
        Value::List(_) => (&["copy", "count", "index"], &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]),
        Value::Tuple(_) | Value::Range { .. } => (&["count", "index"], &[]),
        Value::Float(_) => (&["is_integer"], &[]),
        _ => return None,
    };
    match name {
        _ if allowed.contains(&name) => Some(Kind::Allowed),
        _ if mutating.contains(&name) => Some(Kind::Mutating),
        _ => None,
    }
}

/// Calls method `name` of `value`.
pub(super) fn call(value: &Value, name: &str, args: &Args, budget: &Budget) -> Result<Value> {
    match value {
        Value::Str(s) => str_method(s, name, args, budget),
        Value::Dict(d) => {
            budget.spend(16)?;
            let entries = d.entries().iter().cloned();
            match name {
                "get" => {
                    let [key, default] = args.bind(name, ["key", "default"])?;
                    let key = key.ok_or_else(|| Fault::error("get expected at least 1 argument, got 0"))?;
                    budget.spend(text_cost(&key))?;
                    Ok(d.get(&key)?.cloned().or(default).unwrap_or(Value::None))
                }
                "copy" => Ok(value.clone()),
                "keys" => {
                    args.none(name)?;
                    budget.spend(d.entries().len() * size_of::<Value>())?;
                    Value::view("dict_keys", entries.map(|(k, _)| k).collect())
                }
                "values" => {
                    args.none(name)?;
                    budget.spend(d.entries().len() * size_of::<Value>())?;
                    Value::view("dict_values", entries.map(|(_, v)| v).collect())
                }
                "items" => {
                    args.none(name)?;
                    budget.spend(d.entries().len() * 4 * size_of::<Value>())?;
                    Value::view("dict_items", entries.map(|(k, v)| Value::tuple(vec![k, v])).collect::<Result<_>>()?)
                }
                "fromkeys" => {
                    let [keys, value] = args.bind(name, ["keys", "value"])?;
                    let value = value.unwrap_or(Value::None);
                    let keys = keys.unwrap_or(Value::None).iterate(budget)?;
                    dict(keys.into_iter().map(|k| (k, value.clone())), budget)
                }
                _ => unsupported(value, name),
            }
        }
        Value::List(_) | Value::Tuple(_) | Value::Range { .. } => match name {
            "copy" => Ok(value.clone()),
            "count" | "index" => {
                let wanted = args.one(name, "value")?;
                let mut found = 0;
                for (i, item) in value.iterate(budget)?.iter().enumerate() {
                    if equal(item, &wanted, budget)? {
                        if name == "index" {
                            return Ok(Value::int(i));
                        }
                        found += 1;
                    }
                }
                if name == "index" { Err(Fault::error("value is not in the sequence")) } else { Ok(Value::int(found)) }
            }
            _ => unsupported(value, name),
        },
        Value::Float(f) if name == "is_integer" => Ok(Value::Bool(f.fract() == 0.0)),
        Value::Loop(l) => loop_method(l, name, args, budget),
        Value::Func(f) => match (&**f, name) {
            (Func::Cycler(seq, at), "next") => {
                let turn = at.replace((at.get() + 1) % seq.items.len().max(1));
                seq.items.get(turn).cloned().ok_or_else(|| Fault::error("no items for cycling given"))
            }
            (Func::Cycler(_, at), "reset") => {
                at.set(0);
                Ok(Value::None)
            }
            _ => unsupported(value, name),
        },
        _ => unsupported(value, name),
    }
}

fn unsupported(value: &Value, name: &str) -> Result<Value> {
    Err(Fault::error(format!("method '{name}' of '{}' is not supported", value.type_name())))
}

/// An attribute of `loop`.
pub(super) fn loop_attribute(value: &Value, name: &str) -> Option<Value> {
    let Value::Loop(l) = value else { return None };
    let (at, len) = (l.at.get(), l.items.items.len());
    let neighbour = |at: Option<usize>, which: &str| {
        at.and_then(|at| l.items.items.get(at)).cloned().unwrap_or_else(|| Value::undefined(format!("there is no {which} item")))
    };
    Some(match name {
        "index" => Value::int(at + 1),
        "index0" => Value::int(at),
        "revindex" => Value::int(len - at),
        "revindex0" => Value::int(len - at - 1),
        "first" => Value::Bool(at == 0),
        "last" => Value::Bool(at + 1 == len),
        "length" => Value::int(len),
        "depth" => Value::int(l.depth + 1),
        "depth0" => Value::int(l.depth),
        "previtem" => neighbour(at.checked_sub(1), "previous"),
        "nextitem" => neighbour(Some(at + 1), "next"),
        "cycle" | "changed" => Value::Func(Rc::new(Func::Method(value.clone(), name.into()))),
        _ => return None,
    })
}

fn loop_method(l: &Loop, name: &str, args: &Args, budget: &Budget) -> Result<Value> {
    if name == "cycle" {
        let n = args.positional.len();
        return match n {
            0 => Err(Fault::error("no items for cycling given")),
            n => Ok(args.positional[l.at.get() % n].clone()),
        };
    }
    let mut shown = StrBuf::default();
    for value in &args.positional {
        push_repr(&mut shown, value, budget, 0)?;
        shown.push_trusted(",");
    }
    let (shown, _) = shown.into_parts();
    let changed = l.changed.borrow().as_ref() != Some(&shown);
    l.changed.replace(Some(shown));
    Ok(Value::Bool(changed))
}
