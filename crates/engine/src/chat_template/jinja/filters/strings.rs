//! Filters of text.

use super::super::call::{Args, int, text};
use super::super::error::{Fault, Result};
use super::super::lexer::is_space;
use super::super::methods;
use super::super::print::{JsonStyle, push_json, push_str, to_str};
use super::super::value::{Budget, Str, StrBuf, Value};

/// Upper case after white space and opening brackets or hyphens, as the filter (unlike the method) does.
pub(super) fn title(text: &str) -> String {
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

pub(super) fn escape(s: &Str, budget: &Budget) -> Result<Value> {
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

pub(super) fn striptags(s: &Str, budget: &Budget) -> Result<Value> {
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

pub(super) fn urlencode(value: &Value, budget: &Budget) -> Result<Value> {
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

pub(super) fn indent(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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

pub(super) fn truncate(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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

pub(super) fn tojson(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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
