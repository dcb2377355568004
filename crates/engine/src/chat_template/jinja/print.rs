//! Values as text: Python's `str`, `repr` and JSON as `json.dumps` writes it.

use std::fmt::Write as _;

use super::error::{Fault, Limit, Result};
use super::value::{Budget, Dict, Func, Str, StrBuf, Value, text_cost};

/// Deepest nesting printed; namespaces can hold themselves.
const MAX_PRINT_DEPTH: usize = 150;

/// Python's `str(value)`, pushed to `out`.
pub(super) fn push_str(out: &mut StrBuf, value: &Value, budget: &Budget) -> Result<()> {
    match value {
        Value::Str(s) => {
            budget.spend(s.as_str().len())?;
            out.push(s);
            Ok(())
        }
        Value::Undefined(_) => Ok(()),
        _ => push_repr(out, value, budget, 0),
    }
}

/// Python's `str(value)`.
pub(super) fn to_str(value: &Value, budget: &Budget) -> Result<Str> {
    if let Value::Str(s) = value {
        return Ok(s.clone());
    }
    let mut out = StrBuf::default();
    push_str(&mut out, value, budget)?;
    Ok(out.finish())
}

/// Python's `repr(value)`, pushed to `out`.
pub(super) fn push_repr(out: &mut StrBuf, value: &Value, budget: &Budget, depth: usize) -> Result<()> {
    budget.spend(32)?;
    if depth > MAX_PRINT_DEPTH {
        return Err(Fault::Limit(Limit::Depth));
    }
    let mut sequence = |open: &str, items: &[Value], close: &str| {
        out.push_trusted(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_trusted(", ");
            }
            push_repr(out, item, budget, depth + 1)?;
        }
        out.push_trusted(close);
        Ok(())
    };
    match value {
        Value::Undefined(_) => out.push_trusted("Undefined"),
        Value::None => out.push_trusted("None"),
        Value::Bool(true) => out.push_trusted("True"),
        Value::Bool(false) => out.push_trusted("False"),
        Value::Int(i) => out.push_trusted(&i.to_string()),
        Value::Float(f) => out.push_trusted(&float_repr(*f)),
        Value::Str(s) => {
            budget.spend(s.as_str().len())?;
            out.push_derived(s, &str_repr(s.as_str()));
        }
        Value::List(s) => sequence("[", &s.items, "]")?,
        Value::Tuple(s) => sequence("(", &s.items, if s.items.len() == 1 { ",)" } else { ")" })?,
        Value::View(kind, s) => sequence(&format!("{kind}(["), &s.items, "])")?,
        Value::Dict(d) => push_dict(out, d, budget, depth)?,
        Value::Namespace(n) => {
            out.push_trusted("<Namespace ");
            push_dict(out, &n.borrow(), budget, depth)?;
            out.push_trusted(">");
        }
        Value::Range { start, stop, step: 1 } => out.push_trusted(&format!("range({start}, {stop})")),
        Value::Range { start, stop, step } => out.push_trusted(&format!("range({start}, {stop}, {step})")),
        Value::Generator(_) => out.push_trusted("<generator object>"),
        Value::Loop(l) => out.push_trusted(&format!("<LoopContext {}/{}>", l.at.get() + 1, l.items.items.len())),
        Value::Func(f) => match &**f {
            Func::Macro(m) => out.push_trusted(&format!("<Macro '{}'>", m.def.name)),
            Func::Method(of, name) => {
                out.push_trusted(&format!("<built-in method {name} of {} object>", of.type_name()));
            }
            Func::Global(name) => out.push_trusted(&format!("<function {name}>")),
            Func::Cycler(..) => out.push_trusted("<Cycler>"),
            Func::Joiner(..) => out.push_trusted("<Joiner>"),
        },
    }
    Ok(())
}

fn push_dict(out: &mut StrBuf, dict: &Dict, budget: &Budget, depth: usize) -> Result<()> {
    out.push_trusted("{");
    for (i, (key, value)) in dict.entries().iter().enumerate() {
        if i > 0 {
            out.push_trusted(", ");
        }
        push_repr(out, key, budget, depth + 1)?;
        out.push_trusted(": ");
        push_repr(out, value, budget, depth + 1)?;
    }
    out.push_trusted("}");
    Ok(())
}

/// Python's shortest `repr` of a float.
pub(super) fn float_repr(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{f:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if f != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let mut plain = f.to_string();
    if !plain.contains('.') {
        plain.push_str(".0");
    }
    plain
}

fn str_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// Python's `str.isprintable` of one character, without its tables of unassigned characters.
fn is_printable(c: char) -> bool {
    let format_or_private = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || format_or_private)
}

/// How `tojson` lays its text out.
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    /// One level of indentation; `None` for a single line.
    pub(super) indent: Option<String>,
    pub(super) item_separator: Str,
    pub(super) key_separator: Str,
    pub(super) sort_keys: bool,
}

/// `json.dumps(value)`, pushed to `out`.
pub(super) fn push_json(out: &mut StrBuf, value: &Value, style: &JsonStyle, budget: &Budget, depth: usize) -> Result<()> {
    budget.spend(32)?;
    if depth > MAX_PRINT_DEPTH {
        return Err(Fault::Limit(Limit::Depth));
    }
    match value {
        Value::None => out.push_trusted("null"),
        Value::Bool(b) => out.push_trusted(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_trusted(&i.to_string()),
        Value::Float(f) => out.push_trusted(&json_float(*f)),
        Value::Str(s) => push_json_str(out, s, style, budget)?,
        Value::List(s) | Value::Tuple(s) => {
            let items = s.items.iter();
            push_json_items(out, ("[", "]"), items, style, budget, depth, |out, item| push_json(out, item, style, budget, depth + 1))?;
        }
        Value::Dict(d) => {
            let mut entries: Vec<&(Value, Value)> = d.entries().iter().collect();
            if style.sort_keys {
                let cost: usize = entries.iter().map(|(key, _)| 8 + text_cost(key)).sum();
                budget.spend(cost.saturating_mul(usize::BITS as usize))?;
                entries.sort_by(|a, b| match (&a.0, &b.0) {
                    (Value::Str(a), Value::Str(b)) => a.as_str().cmp(b.as_str()),
                    _ => std::cmp::Ordering::Equal,
                });
            }
            push_json_items(out, ("{", "}"), entries.into_iter(), style, budget, depth, |out, (key, value)| {
                match key {
                    Value::Str(s) => push_json_str(out, s, style, budget)?,
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        out.push_trusted("\"");
                        push_json(out, key, style, budget, depth + 1)?;
                        out.push_trusted("\"");
                    }
                    _ => return Err(Fault::error(format!("keys must be str, not {}", key.type_name()))),
                }
                out.push(&style.key_separator);
                push_json(out, value, style, budget, depth + 1)
            })?;
        }
        _ => return Err(Fault::error(format!("Object of type {} is not JSON serializable", value.type_name()))),
    }
    Ok(())
}

fn push_json_items<T>(
    out: &mut StrBuf,
    (open, close): (&str, &str),
    items: impl ExactSizeIterator<Item = T>,
    style: &JsonStyle,
    budget: &Budget,
    depth: usize,
    mut push: impl FnMut(&mut StrBuf, T) -> Result<()>,
) -> Result<()> {
    let empty = items.len() == 0;
    let new_line = |out: &mut StrBuf, depth: usize| -> Result<()> {
        let Some(indent) = style.indent.as_ref().filter(|_| !empty) else { return Ok(()) };
        budget.spend(indent.len() * depth + 1)?;
        out.push_trusted("\n");
        out.push_trusted(&indent.repeat(depth));
        Ok(())
    };
    out.push_trusted(open);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(&style.item_separator);
        }
        new_line(out, depth + 1)?;
        push(out, item)?;
    }
    new_line(out, depth)?;
    out.push_trusted(close);
    Ok(())
}

fn json_float(f: f64) -> String {
    match f {
        f if f.is_nan() => "NaN".into(),
        f if f.is_infinite() => if f > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        f => float_repr(f),
    }
}

fn push_json_str(out: &mut StrBuf, s: &Str, style: &JsonStyle, budget: &Budget) -> Result<()> {
    budget.spend(s.as_str().len())?;
    let mut text = String::with_capacity(s.as_str().len() + 2);
    text.push('"');
    for c in s.as_str().chars() {
        let _ = match c {
            '"' => write!(text, "\\\""),
            '\\' => write!(text, "\\\\"),
            '\n' => write!(text, "\\n"),
            '\r' => write!(text, "\\r"),
            '\t' => write!(text, "\\t"),
            '\u{8}' => write!(text, "\\b"),
            '\u{c}' => write!(text, "\\f"),
            c if c < ' ' => write!(text, "\\u{:04x}", u32::from(c)),
            c if style.ensure_ascii && !(' '..='~').contains(&c) => {
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(text, "\\u{unit:04x}"))
            }
            c => {
                text.push(c);
                Ok(())
            }
        };
    }
    text.push('"');
    out.push_derived(s, &text);
    Ok(())
}
