//! Jinja2's filters, and `tojson` as transformers defines it.

use std::cmp::Ordering;

use super::ast::BinOp;
use super::call::{Args, int, text};
use super::error::{Fault, Limit, Result};
use super::format::percent;
use super::lexer::is_space;
use super::methods;
use super::ops::{Num, attribute, binary, defined, dict, equal, item, order, sign};
use super::print::{JsonStyle, push_json, push_repr, push_str, to_str};
use super::tests;
use super::value::{Budget, Str, StrBuf, Value, text_cost};

/// Most arguments that `map` hands on.
const MAX_MAP_ARGS: usize = 16;

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

/// `item.a.0.b` for the attribute `"a.0.b"`; the item itself without one.
fn by_attribute(value: &Value, attr: Option<&Value>, budget: &Budget) -> Result<Value> {
    budget.spend(16 + attr.map_or(0, text_cost) * 4)?;
    match attr {
        None | Some(Value::None) => Ok(value.clone()),
        Some(Value::Str(path)) => path
            .as_str()
            .split('.')
            .try_fold(value.clone(), |value, part| item(&value, &part.parse::<i128>().map_or_else(|_| Value::str(part), Value::Int))),
        Some(key) => item(value, key),
    }
}

/// Pairs of what to compare by, and item.
fn keyed(items: Vec<Value>, attr: Option<&Value>, case_sensitive: bool, budget: &Budget) -> Result<Vec<(Value, Value)>> {
    let fold = |value: Value| match value {
        Value::Str(s) if !case_sensitive => {
            budget.spend(s.as_str().len())?;
            Ok(Value::Str(s.derived(s.as_str().to_lowercase())))
        }
        other => Ok(other),
    };
    let key = |item: &Value| match attr {
        // Several attributes: the second decides where the first is equal.
        Some(Value::Str(names)) if names.as_str().contains(',') => {
            let parts = names.as_str().split(',').map(|name| fold(by_attribute(item, Some(&Value::str(name)), budget)?));
            Value::tuple(parts.collect::<Result<_>>()?)
        }
        attr => fold(by_attribute(item, attr, budget)?),
    };
    items.into_iter().map(|item| Ok((key(&item)?, item))).collect()
}

fn sorted(mut items: Vec<(Value, Value)>, reverse: bool, budget: &Budget) -> Result<Vec<Value>> {
    let mut failed = None;
    items.sort_by(|a, b| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        // Reversed operands, not a reversed list: equal items keep their order, as in Python.
        let (a, b) = if reverse { (&b.0, &a.0) } else { (&a.0, &b.0) };
        order(a, b, budget).map(|o| o.unwrap_or(Ordering::Equal)).unwrap_or_else(|fault| {
            failed = Some(fault);
            Ordering::Equal
        })
    });
    failed.map_or_else(|| Ok(items.into_iter().map(|(_, item)| item).collect()), Err)
}

/// Upper case after white space and opening brackets or hyphens, as the filter (unlike the method) does.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        start = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    out
}

fn escape(s: &Str, budget: &Budget) -> Result<Value> {
    budget.spend(s.as_str().len().saturating_mul(2))?;
    let escaped = s.as_str().chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
        out
    });
    Ok(Value::Str(s.derived(escaped)))
}

fn striptags(s: &Str, budget: &Budget) -> Result<Value> {
    budget.spend(s.as_str().len())?;
    let mut out = String::new();
    let mut rest = s.as_str();
    while let Some((before, tag)) = rest.split_once('<') {
        let Some((_, after)) = tag.split_once('>') else { break };
        out.push_str(before);
        rest = after;
    }
    out.push_str(rest);
    let words: Vec<&str> = out.split(is_space).filter(|w| !w.is_empty()).collect();
    Ok(Value::Str(s.derived(words.join(" "))))
}

fn urlencode(value: &Value, budget: &Budget) -> Result<Value> {
    let quote = |value: &Value, safe: &str| -> Result<String> {
        let s = to_str(value, budget)?;
        budget.spend(s.as_str().len().saturating_mul(3))?;
        Ok(s.as_str().bytes().fold(String::new(), |mut out, b| {
            let c = char::from(b);
            if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) {
                out.push(c);
            } else if c == ' ' && safe.is_empty() {
                out.push('+');
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
            out
        }))
    };
    let pairs = match value {
        Value::Dict(d) => d.entries().to_vec(),
        _ => {
            let s = to_str(value, budget)?;
            return Ok(Value::Str(s.derived(quote(value, "/")?)));
        }
    };
    let parts: Vec<String> = pairs.iter().map(|(k, v)| Ok(format!("{}={}", quote(k, "")?, quote(v, "")?))).collect::<Result<_>>()?;
    Ok(Value::Str(Str::user(&parts.join("&"))))
}

fn indent(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let (first, blank) = (first.is_some_and(|f| f.truth()), blank.is_some_and(|b| b.truth()));
    let margin = match &width {
        Some(Value::Str(s)) => s.clone(),
        width => {
            let width = usize::try_from(int(width.as_ref(), 4, "indent")?.max(0)).unwrap_or(usize::MAX);
            budget.spend(width)?;
            Str::trusted(" ".repeat(width))
        }
    };
    let s = text(value, "indent")?.as_str();
    let split = methods::call(value, "splitlines", &Args::default(), budget)?;
    let mut lines = split.iterate(budget)?;
    // Jinja2 adds a newline before it splits, so that one at the end is kept.
    if s.is_empty() || s.ends_with('\n') {
        lines.push(Value::str(""));
    }
    let mut out = StrBuf::default();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push_trusted("\n");
        }
        let empty = matches!(line, Value::Str(l) if l.as_str().is_empty());
        if if i == 0 { first } else { blank || !empty } {
            budget.spend(margin.as_str().len())?;
            out.push(&margin);
        }
        push_str(&mut out, line, budget)?;
    }
    Ok(Value::Str(out.finish()))
}

fn truncate(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let [length, killwords, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = int(length.as_ref(), 255, "truncate")?;
    let leeway = int(leeway.as_ref(), 5, "truncate")?;
    let end = end.map_or_else(|| Ok(Str::trusted("...")), |e| to_str(&e, budget))?;
    let end_len = end.as_str().chars().count() as i64;
    if length < end_len || leeway < 0 {
        return Err(Fault::error(format!("expected length >= {end_len}, got {length}")));
    }
    let s = to_str(value, budget)?;
    budget.spend(s.as_str().len())?;
    if s.as_str().chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(Value::Str(s));
    }
    let cut = s.as_str().char_indices().nth((length - end_len) as usize).map_or(s.as_str().len(), |(i, _)| i);
    let cut = if killwords.is_some_and(|k| k.truth()) { cut } else { s.as_str()[..cut].rfind(' ').unwrap_or(cut) };
    let mut out = StrBuf::default();
    out.push_part(&s, 0, cut);
    out.push(&end);
    Ok(Value::Str(out.finish()))
}

fn tojson(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let [ensure_ascii, indent, separators, sort_keys] = args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match &indent {
        None | Some(Value::None) => None,
        Some(Value::Str(s)) => Some(s.as_str().to_owned()),
        Some(n) => Some(" ".repeat(int(Some(n), 0, "tojson")?.clamp(0, 1024) as usize)),
    };
    let (item_separator, key_separator) = match &separators {
        None | Some(Value::None) => (Str::trusted(if indent.is_some() { "," } else { ", " }), Str::trusted(": ")),
        Some(pair) => match &pair.iterate(budget)?[..] {
            [Value::Str(item), Value::Str(key)] => (item.clone(), key.clone()),
            _ => return Err(Fault::error("separators must be two strings")),
        },
    };
    let style = JsonStyle {
        ensure_ascii: ensure_ascii.is_some_and(|e| e.truth()),
        indent,
        item_separator,
        key_separator,
        sort_keys: sort_keys.is_some_and(|s| s.truth()),
    };
    let mut out = StrBuf::default();
    push_json(&mut out, value, &style, budget, 0)?;
    Ok(Value::Str(out.finish()))
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

fn groupby(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let [attr, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let case_sensitive = case_sensitive.is_some_and(|c| c.truth());
    let mut items = keyed(value.iterate(budget)?, attr.as_ref(), case_sensitive, budget)?;
    if let Some(default) = &default {
        for (key, _) in &mut items {
            if matches!(key, Value::Undefined(_)) {
                *key = default.clone();
            }
        }
    }
    let pairs = items.into_iter().map(|(k, v)| Ok((k.clone(), Value::tuple(vec![k, v])?))).collect::<Result<Vec<_>>>()?;
    // What is compared, what is shown, and the items. Names that differ in case only are one group, shown as
    // its first item has it.
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for pair in sorted(pairs, false, budget)? {
        let Value::Tuple(pair) = pair else { continue };
        let (key, item) = (&pair.items[0], pair.items[1].clone());
        match groups.last_mut() {
            Some((last, _, group)) if equal(last, key, budget)? => group.push(item),
            _ => {
                let shown = if case_sensitive { key.clone() } else { by_attribute(&item, attr.as_ref(), budget)? };
                let absent = matches!(shown, Value::Undefined(_));
                groups.push((key.clone(), if absent { key.clone() } else { shown }, vec![item]));
            }
        }
    }
    let group = |(_, shown, items)| Value::tuple(vec![shown, Value::list(items)?]);
    Value::list(groups.into_iter().map(group).collect::<Result<_>>()?)
}

fn batch(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let [count, fill] = args.bind(name, [if name == "batch" { "linecount" } else { "slices" }, "fill_with"])?;
    let count = usize::try_from(int(count.as_ref(), 0, name)?).unwrap_or(0);
    let fill = fill.filter(|f| !matches!(f, Value::None));
    let items = value.iterate(budget)?;
    if count == 0 {
        return Err(Fault::error(format!("{name} needs a positive count")));
    }
    let mut groups: Vec<Vec<Value>> = Vec::new();
    if name == "batch" {
        groups.extend(items.chunks(count).map(<[Value]>::to_vec));
        if let (Some(fill), Some(last)) = (&fill, groups.last_mut()) {
            budget.spend((count - last.len()).saturating_mul(size_of::<Value>()))?;
            last.resize(count, fill.clone());
        }
    } else {
        budget.spend(count.saturating_mul(size_of::<Value>()))?;
        let (each, extra) = (items.len() / count, items.len() % count);
        let mut rest = &items[..];
        for i in 0..count {
            let (group, tail) = rest.split_at(each + usize::from(i < extra));
            rest = tail;
            groups.push(group.to_vec());
            if let (Some(fill), true, Some(group)) = (&fill, i >= extra, groups.last_mut()) {
                group.push(fill.clone());
            }
        }
    }
    Value::generator(groups.into_iter().map(Value::list).collect::<Result<_>>()?)
}

fn map(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let items = value.iterate(budget)?;
    let mut out = Vec::with_capacity(items.len());
    if let (true, Some((_, attr))) = (args.positional.is_empty(), args.keyword.iter().find(|(k, _)| &**k == "attribute")) {
        let default = args.keyword.iter().find(|(k, _)| &**k == "default").map(|(_, v)| v);
        for item in &items {
            budget.spend(16)?;
            out.push(match (by_attribute(item, Some(attr), budget)?, default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                (found, _) => found,
            });
        }
        return Value::generator(out);
    }
    let Some((name, rest)) = args.positional.split_first() else {
        return Err(Fault::error("map requires a filter argument"));
    };
    // The filter may be `map` with the arguments that are left.
    if rest.len() > MAX_MAP_ARGS {
        return Err(Fault::Limit(Limit::Depth));
    }
    let name = text(name, "map")?.as_str();
    let inner = Args { positional: rest.to_vec(), keyword: args.keyword.clone() };
    for item in &items {
        out.push(apply(name, item, &inner, budget)?);
    }
    Value::generator(out)
}

fn select(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
    let wanted = name.starts_with("select");
    let mut rest = &args.positional[..];
    let attr = if name.ends_with("attr") {
        let Some((attr, tail)) = rest.split_first() else {
            return Err(Fault::error(format!("{name}: missing parameter for attribute name")));
        };
        rest = tail;
        Some(attr)
    } else {
        None
    };
    let inner = Args { positional: rest.get(1..).unwrap_or_default().to_vec(), keyword: args.keyword.clone() };
    let test = rest.first().map(|test| text(test, name)).transpose()?;
    let mut kept = Vec::new();
    for item in value.iterate(budget)? {
        budget.spend(16)?;
        let subject = by_attribute(&item, attr, budget)?;
        let passed = match test {
            Some(test) => tests::perform(test.as_str(), &subject, &inner, budget)?,
            None => subject.truth(),
        };
        if passed == wanted {
            kept.push(item);
        }
    }
    Value::generator(kept)
}

/// Whether there is a filter of this name, for `is filter`.
pub(super) fn exists(name: &str) -> bool {
    const NAMES: &str = " upper lower capitalize title trim string safe escape e forceescape replace format center indent \
         truncate wordcount urlencode striptags tojson pprint int float abs round default d length count items list attr \
         first last min max sum join reverse sort dictsort unique groupby batch slice map select reject selectattr \
         rejectattr ";
    NAMES.contains(&format!(" {name} "))
}
