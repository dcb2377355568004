//! Jinja2's filters, and `tojson` as transformers defines it.

mod sequences;
mod strings;

use std::cmp::Ordering;

use super::ast::BinOp;
use super::call::{Args, int, text};
use super::error::{Fault, Result};
use super::format::percent;
use super::lexer::is_space;
use super::methods;
use super::ops::{Num, attribute, binary, defined, dict, order, sign};
use super::print::{push_repr, push_str, to_str};
use super::value::{Budget, Str, StrBuf, Value, text_cost};

use sequences::{batch, by_attribute, groupby, keyed, map, select, sorted};
use strings::{escape, indent, striptags, title, tojson, truncate, urlencode};

/// Applies filter `name` to `value`.
pub(super) fn apply(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    // Many filters take as long as their text.
    budget.spend(16 + text_cost(value))?;
    match name {
        "upper" | "lower" | "capitalize" | "title" => {
            args.none(name)?;
            let s = to_str(value, budget)?;
            if name == "title" {
                budget.spend(s.as_str().len())?;
                return Ok(Value::Str(s.derived(title(s.as_str()))));
            }
            methods::call(&Value::Str(s), name, args, budget)
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            let positional = chars.filter(|c| c.truth()).into_iter().collect();
            let s = Value::Str(to_str(value, budget)?);
            methods::call(&s, "strip", &Args { positional, keyword: Vec::new() }, budget)
        }
        "string" | "safe" => Ok(Value::Str(to_str(value, budget)?)),
        "escape" | "e" | "forceescape" => escape(&to_str(value, budget)?, budget),
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else {
                return Err(Fault::error("replace needs 'old' and 'new'"));
            };
            let count = usize::try_from(int(count.as_ref(), -1, name)?).unwrap_or(usize::MAX);
            let s = to_str(value, budget)?;
            budget.spend(s.as_str().len())?;
            let (old, new) = (to_str(&old, budget)?, to_str(&new, budget)?);
            Ok(Value::Str(methods::replace(&s, old.as_str(), &new, count, budget)?))
        }
        "format" => {
            let given = match (args.positional.is_empty(), args.keyword.is_empty()) {
                (false, false) => return Err(Fault::error("can't handle positional and keyword arguments at the same time")),
                (true, false) => dict(args.keyword.iter().map(|(k, v)| (Value::str(k.clone()), v.clone())), budget)?,
                _ => Value::tuple(args.positional.clone())?,
            };
            Ok(Value::Str(percent(&to_str(value, budget)?, &given, budget)?))
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = usize::try_from(int(width.as_ref(), 80, name)?.max(0)).unwrap_or(usize::MAX);
            budget.spend(width)?;
            Ok(Value::Str(methods::pad(&to_str(value, budget)?, "center", width, ' ')))
        }
        "indent" => indent(value, args, budget),
        "truncate" => truncate(value, args, budget),
        "wordcount" => {
            let s = to_str(value, budget)?;
            budget.spend(s.as_str().len())?;
            let word = |c: char| c.is_alphanumeric() || c == '_';
            Ok(Value::int(s.as_str().split(|c| !word(c)).filter(|w| !w.is_empty()).count()))
        }
        "urlencode" => urlencode(value, budget),
        "striptags" => striptags(&to_str(value, budget)?, budget),
        "tojson" => tojson(value, args, budget),
        "pprint" => {
            let mut out = StrBuf::default();
            push_repr(&mut out, value, budget, 0)?;
            Ok(Value::Str(out.finish()))
        }
        "int" => to_int(value, args),
        "float" => to_float(value, args),
        "abs" => {
            defined(value)?;
            match Num::of(value) {
                Some(Num::Float(f)) => Ok(Value::Float(f.abs())),
                Some(Num::Int(i)) => sign(&Value::Int(i), i < 0),
                None => Err(Fault::error(format!("bad operand type for abs(): '{}'", value.type_name()))),
            }
        }
        "round" => round(value, args),
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let absent = matches!(value, Value::Undefined(_)) || (boolean.is_some_and(|b| b.truth()) && !value.truth());
            Ok(if absent { default.unwrap_or_else(|| Value::str("")) } else { value.clone() })
        }
        "length" | "count" => match value.len() {
            Some(n) if !matches!(value, Value::Namespace(_)) => Ok(Value::int(n)),
            _ => Err(Fault::error(format!("object of type '{}' has no len()", value.type_name()))),
        },
        "items" => match value {
            Value::Undefined(_) => Value::generator(Vec::new()),
            Value::Dict(_) => Value::generator(methods::call(value, "items", &Args::default(), budget)?.iterate(budget)?),
            _ => Err(Fault::error("Can only get item pairs from a mapping.")),
        },
        "list" => Value::list(value.iterate(budget)?),
        "attr" => {
            let name = args.one(name, "name")?;
            let name = text(&name, "attr")?.as_str();
            budget.spend(name.len())?;
            match value {
                Value::Dict(_) if methods::kind_of(value, name).is_none() => {
                    Ok(Value::undefined(format!("'dict object' has no attribute '{name}'")))
                }
                _ => attribute(value, name),
            }
        }
        "first" => match value {
            Value::Generator(g) => {
                let at = g.next.get();
                g.next.set(at.saturating_add(1));
                Ok(g.seq.items.get(at).cloned().unwrap_or_else(no_first))
            }
            Value::List(s) | Value::Tuple(s) | Value::View(_, s) => Ok(s.items.first().cloned().unwrap_or_else(no_first)),
            Value::Str(s) => Ok(s.as_str().chars().next().map_or_else(no_first, |c| Value::Str(s.slice(0, c.len_utf8())))),
            _ => Ok(value.iterate(budget)?.into_iter().next().unwrap_or_else(no_first)),
        },
        "last" => match value {
            Value::Generator(_) => Err(Fault::error("'generator' object is not reversible")),
            Value::Str(s) => {
                let last = s.as_str().chars().next_back().map_or(0, char::len_utf8);
                let len = s.as_str().len();
                Ok(if len == 0 { no_last() } else { Value::Str(s.slice(len - last, len)) })
            }
            Value::List(s) | Value::Tuple(s) => Ok(s.items.last().cloned().unwrap_or_else(no_last)),
            _ => Ok(value.iterate(budget)?.pop().unwrap_or_else(no_last)),
        },
        "min" | "max" => {
            let [case_sensitive, attr] = args.bind(name, ["case_sensitive", "attribute"])?;
            let items = keyed(value.iterate(budget)?, attr.as_ref(), case_sensitive.is_some_and(|c| c.truth()), budget)?;
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best: Option<(Value, Value)> = None;
            for (key, item) in items {
                match &best {
                    Some((top, _)) if order(&key, top, budget)? != Some(wanted) => {}
                    _ => best = Some((key, item)),
                }
            }
            Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
        }
        "sum" => {
            let [attr, start] = args.bind(name, ["attribute", "start"])?;
            let mut total = start.unwrap_or(Value::Int(0));
            for item in value.iterate(budget)? {
                total = binary(BinOp::Add, &total, &by_attribute(&item, attr.as_ref(), budget)?, budget)?;
            }
            Ok(total)
        }
        "join" => {
            let [separator, attr] = args.bind(name, ["d", "attribute"])?;
            let separator = separator.map_or_else(|| Ok(Str::trusted("")), |s| to_str(&s, budget))?;
            let mut out = StrBuf::default();
            for (i, item) in value.iterate(budget)?.iter().enumerate() {
                if i > 0 {
                    budget.spend(separator.as_str().len())?;
                    out.push(&separator);
                }
                push_str(&mut out, &by_attribute(item, attr.as_ref(), budget)?, budget)?;
            }
            Ok(Value::Str(out.finish()))
        }
        "reverse" => match value {
            Value::Str(s) => {
                budget.spend(s.as_str().len())?;
                Ok(Value::Str(s.derived(s.as_str().chars().rev().collect())))
            }
            Value::Generator(_) => Err(Fault::error("argument must be iterable")),
            _ => {
                let mut items = value.iterate(budget)?;
                items.reverse();
                Value::generator(items)
            }
        },
        "sort" => {
            let [reverse, case_sensitive, attr] = args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let items = keyed(value.iterate(budget)?, attr.as_ref(), case_sensitive.is_some_and(|c| c.truth()), budget)?;
            Value::list(sorted(items, reverse.is_some_and(|r| r.truth()), budget)?)
        }
        "dictsort" => {
            let [case_sensitive, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"])?;
            let Value::Dict(_) = value else {
                return Err(Fault::error(format!("'{}' object has no attribute 'items'", value.type_name())));
            };
            let at = match &by {
                None => 0,
                Some(Value::Str(s)) if s.as_str() == "key" => 0,
                Some(Value::Str(s)) if s.as_str() == "value" => 1,
                Some(_) => return Err(Fault::error("You can only sort by either \"key\" or \"value\"")),
            };
            let pairs = methods::call(value, "items", &Args::default(), budget)?.iterate(budget)?;
            let items = keyed(pairs, Some(&Value::Int(at)), case_sensitive.is_some_and(|c| c.truth()), budget)?;
            Value::list(sorted(items, reverse.is_some_and(|r| r.truth()), budget)?)
        }
        "unique" => {
            let [case_sensitive, attr] = args.bind(name, ["case_sensitive", "attribute"])?;
            let items = keyed(value.iterate(budget)?, attr.as_ref(), case_sensitive.is_some_and(|c| c.truth()), budget)?;
            let mut seen = super::value::Dict::default();
            let mut kept = Vec::new();
            for (key, item) in items {
                if seen.get(&key)?.is_none() {
                    seen.insert(key, Value::None)?;
                    kept.push(item);
                }
            }
            Value::generator(kept)
        }
        "groupby" => groupby(value, args, budget),
        "batch" | "slice" => batch(name, value, args, budget),
        "map" => map(value, args, budget),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, args, budget),
        _ => Err(Fault::error(format!("no filter named '{name}'"))),
    }
}

fn no_first() -> Value {
    Value::undefined("No first item, sequence was empty.")
}

fn no_last() -> Value {
    Value::undefined("No last item, sequence was empty.")
}

fn to_int(value: &Value, args: &Args) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    defined(value)?;
    let base = int(base.as_ref(), 10, "int")?;
    Ok(match value {
        Value::Str(s) => {
            let trimmed = s.as_str().trim_matches(is_space).to_lowercase();
            let (negative, digits) = match trimmed.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, trimmed.strip_prefix('+').unwrap_or(&trimmed)),
            };
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let digits = digits.strip_prefix(prefix).unwrap_or(digits);
            let radix = u32::try_from(base).unwrap_or(10).clamp(2, 36);
            let signed = digits.starts_with(['+', '-']);
            match i128::from_str_radix(&digits.replace('_', ""), radix) {
                Ok(n) if !signed => Value::Int(if negative { -n } else { n }),
                _ => match trimmed.parse::<f64>() {
                    Ok(f) if f.is_finite() && base == 10 => Value::Int(f as i128),
                    _ => default,
                },
            }
        }
        Value::Float(f) if !f.is_finite() => default,
        _ => match Num::of(value) {
            Some(Num::Int(i)) => Value::Int(i),
            Some(Num::Float(f)) => Value::Int(f as i128),
            None => default,
        },
    })
}

fn to_float(value: &Value, args: &Args) -> Result<Value> {
    let [default] = args.bind("float", ["default"])?;
    let default = default.unwrap_or(Value::Float(0.0));
    defined(value)?;
    Ok(match (value, Num::of(value)) {
        (_, Some(num)) => Value::Float(num.float()),
        (Value::Str(s), _) => s.as_str().trim_matches(is_space).replace('_', "").parse().map_or(default, Value::Float),
        _ => default,
    })
}

fn round(value: &Value, args: &Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = int(precision.as_ref(), 0, "round")?.clamp(-300, 300) as i32;
    let method = method.as_ref().map_or(Ok("common"), |m| text(m, "round").map(Str::as_str))?;
    defined(value)?;
    let Some(num) = Num::of(value) else {
        return Err(Fault::error(format!("type {} doesn't define __round__ method", value.type_name())));
    };
    let scale = 10f64.powi(precision);
    let f = num.float();
    let rounded = match (method, num) {
        // Python rounds ints to ints, and halves to even.
        ("common", Num::Int(i)) if precision >= 0 => return Ok(Value::Int(i)),
        ("common", Num::Int(_)) => return Ok(Value::Int(((f * scale).round_ties_even() / scale) as i128)),
        ("common", _) if precision >= 0 => format!("{f:.*}", precision as usize).parse().unwrap_or(f),
        ("common", _) => (f * scale).round_ties_even() / scale,
        ("ceil", _) => (f * scale).ceil() / scale,
        ("floor", _) => (f * scale).floor() / scale,
        _ => return Err(Fault::error("method must be common, ceil or floor")),
    };
    Ok(Value::Float(rounded))
}

/// Whether there is a filter of this name, for `is filter`.
pub(super) fn exists(name: &str) -> bool {
    const NAMES: &str = " upper lower capitalize title trim string safe escape e forceescape replace format center indent \
         truncate wordcount urlencode striptags tojson pprint int float abs round default d length count items list attr \
         first last min max sum join reverse sort dictsort unique groupby batch slice map select reject selectattr \
         rejectattr ";
    NAMES.contains(&format!(" {name} "))
}
