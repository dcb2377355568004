//! Python's two ways to fill text in: `'..' % values` and `'..'.format(..)`.

use super::call::Args;
use super::error::{Fault, Result};
use super::ops::{Num, attribute, item};
use super::print::{float_repr, push_repr, to_str};
use super::value::{Budget, Str, StrBuf, Value};

/// Widest field.
const MAX_WIDTH: usize = 1 << 20;

/// How one field is laid out.
#[derive(Default)]
struct Layout {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn bounded(digits: &str) -> Result<usize> {
    match digits.parse() {
        Ok(n) if n <= MAX_WIDTH => Ok(n),
        _ => Err(Fault::error("field is too wide")),
    }
}

/// `template % values`.
pub(super) fn percent(template: &Str, values: &Value, budget: &Budget) -> Result<Str> {
    let text = template.as_str();
    budget.spend(text.len())?;
    let mut out = StrBuf::default();
    let mut given = match values {
        Value::Tuple(t) => t.items.as_slice(),
        other => std::slice::from_ref(other),
    }
    .iter();
    let mut mapping_used = matches!(values, Value::Dict(_) | Value::List(_) | Value::Undefined(_));
    let mut at = 0;
    while let Some(found) = text[at..].find('%').map(|i| i + at) {
        out.push_part(template, at, found);
        let mut rest = &text[found + 1..];
        let mut named = None;
        if let Some(tail) = rest.strip_prefix('(') {
            let (name, tail) = tail.split_once(')').ok_or_else(|| Fault::error("incomplete format key"))?;
            named = Some(item(values, &Value::str(name)).and_then(|v| match v {
                Value::Undefined(_) => Err(Fault::error(format!("KeyError: '{name}'"))),
                v => Ok(v),
            })?);
            mapping_used = true;
            rest = tail;
        }
        let mut next = || given.next().ok_or_else(|| Fault::error("not enough arguments for format string"));
        let mut layout = Layout { align: Some('>'), ..Layout::default() };
        let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        for flag in rest[..flags].chars() {
            match flag {
                '-' => layout.align = Some('<'),
                '#' => layout.alternate = true,
                '0' => layout.zero = true,
                _ => layout.sign = Some(if layout.sign == Some('+') { '+' } else { flag }),
            }
        }
        rest = &rest[flags..];
        let mut number = |rest: &mut &str| -> Result<Option<i128>> {
            if let Some(tail) = rest.strip_prefix('*') {
                *rest = tail;
                return match next()? {
                    Value::Int(i) if i.unsigned_abs() <= MAX_WIDTH as u128 => Ok(Some(*i)),
                    _ => Err(Fault::error("* wants int")),
                };
            }
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let value = if digits == 0 { None } else { Some(bounded(&rest[..digits])? as i128) };
            *rest = &rest[digits..];
            Ok(value)
        };
        if let Some(width) = number(&mut rest)? {
            layout.width = width.unsigned_abs() as usize;
            if width < 0 {
                layout.align = Some('<');
            }
        }
        if let Some(tail) = rest.strip_prefix('.') {
            rest = tail;
            layout.precision = Some(number(&mut rest)?.unwrap_or(0).max(0) as usize);
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest.chars().next().ok_or_else(|| Fault::error("incomplete format"))?;
        at = text.len() - rest.len() + kind.len_utf8();
        if kind == '%' {
            out.push_trusted("%");
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?.clone(),
        };
        let shown = match kind {
            's' => to_str(&value, budget)?,
            'r' | 'a' => repr(&value, budget)?,
            'c' => match &value {
                Value::Int(i) => match u32::try_from(*i).ok().and_then(char::from_u32) {
                    Some(c) => Str::trusted(c.to_string()),
                    None => return Err(Fault::error("%c arg not in range(0x110000)")),
                },
                Value::Str(s) if s.as_str().chars().count() == 1 => s.clone(),
                _ => return Err(Fault::error("%c requires int or char")),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let Some(num) = Num::of(&value) else {
                    let found = value.type_name();
                    return Err(Fault::error(format!("%{kind} format: a real number is required, not {found}")));
                };
                let num = match (kind, num) {
                    ('d' | 'i' | 'u', Num::Float(f)) if f.is_finite() => Num::Int(f as i128),
                    ('x' | 'X' | 'o', Num::Float(_)) => return Err(Fault::error("an integer is required, not float")),
                    (_, num) => num,
                };
                layout.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
                layout.zero &= layout.align == Some('>');
                let precision = layout.precision;
                if matches!(num, Num::Int(_)) && matches!(kind, 'd' | 'i' | 'u' | 'x' | 'X' | 'o') {
                    layout.precision = None;
                }
                budget.spend(layout.width + precision.unwrap_or(0) + 64)?;
                let mut body = number_text(num, &layout)?;
                if let (None, Some(least)) = (layout.precision, precision) {
                    let sign = usize::from(body.starts_with(['-', '+', ' ']));
                    let missing = least.saturating_sub(body.len() - sign);
                    body.insert_str(sign, &"0".repeat(missing));
                }
                out.push_trusted(&pad_number(&body, &layout));
                continue;
            }
            _ => return Err(Fault::error(format!("unsupported format character {kind:?}"))),
        };
        push_padded(&mut out, &shown, &layout, budget)?;
    }
    out.push_part(template, at, text.len());
    if given.next().is_some() && !mapping_used {
        return Err(Fault::error("not all arguments converted during string formatting"));
    }
    Ok(out.finish())
}

fn repr(value: &Value, budget: &Budget) -> Result<Str> {
    let mut out = StrBuf::default();
    push_repr(&mut out, value, budget, 0)?;
    Ok(out.finish())
}

/// `template.format(..)`.
pub(super) fn format(template: &Str, args: &Args, budget: &Budget) -> Result<Str> {
    format_fields(template, args, &mut 0, true, budget)
}

/// `auto` numbers the fields that name no argument. Only an outer text may have fields within its fields.
fn format_fields(template: &Str, args: &Args, auto: &mut usize, outer: bool, budget: &Budget) -> Result<Str> {
    let text = template.as_str();
    budget.spend(text.len())?;
    let mut out = StrBuf::default();
    let mut at = 0;
    while let Some(found) = text[at..].find(['{', '}']).map(|i| i + at) {
        out.push_part(template, at, found);
        let rest = &text[found..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_part(template, found, found + 1);
            at = found + 2;
            continue;
        }
        if rest.starts_with('}') {
            return Err(Fault::error("Single '}' encountered in format string"));
        }
        let mut open = 0;
        let close = rest.char_indices().find(|(_, c)| {
            open += i32::from(*c == '{') - i32::from(*c == '}');
            open == 0
        });
        let Some((close, _)) = close else { return Err(Fault::error("expected '}' before end of string")) };
        let (field, spec) = rest[1..close].split_once(':').unwrap_or((&rest[1..close], ""));
        let (name, conversion) = field.split_once('!').map_or((field, None), |(n, c)| (n, Some(c)));
        let value = field_value(name, args, auto)?;
        let spec = match (spec.contains('{'), outer) {
            (false, _) => Str::trusted(spec),
            (true, true) => format_fields(&Str::trusted(spec), args, auto, false, budget)?,
            (true, false) => return Err(Fault::error("Max string recursion exceeded")),
        };
        let value = match conversion {
            None => value,
            Some("s") => Value::Str(to_str(&value, budget)?),
            Some("r" | "a") => Value::Str(repr(&value, budget)?),
            Some(other) => return Err(Fault::error(format!("unknown conversion specifier {other:?}"))),
        };
        push_formatted(&mut out, &value, spec.as_str(), budget)?;
        at = found + close + 1;
    }
    out.push_part(template, at, text.len());
    Ok(out.finish())
}

fn field_value(name: &str, args: &Args, auto: &mut usize) -> Result<Value> {
    let head = name.find(['.', '[']).unwrap_or(name.len());
    let positional = |i: usize| {
        let missing = || Fault::error("replacement index out of range for positional args tuple");
        args.positional.get(i).cloned().ok_or_else(missing)
    };
    let mut value = if head == 0 {
        *auto += 1;
        positional(*auto - 1)?
    } else if let Ok(i) = name[..head].parse::<usize>() {
        positional(i)?
    } else {
        let found = args.keyword.iter().find(|(k, _)| **k == name[..head]).map(|(_, v)| v.clone());
        found.ok_or_else(|| Fault::error(format!("KeyError: '{}'", &name[..head])))?
    };
    let mut rest = &name[head..];
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('.') {
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            value = attribute(&value, &tail[..end])?;
            rest = &tail[end..];
        } else {
            let (key, tail) = rest[1..].split_once(']').ok_or_else(|| Fault::error("expected ']'"))?;
            let key = key.parse::<i128>().map_or_else(|_| Value::str(key), Value::Int);
            value = item(&value, &key)?;
            rest = tail;
        }
    }
    Ok(value)
}

/// Python's `format(value, spec)`, pushed to `out`.
fn push_formatted(out: &mut StrBuf, value: &Value, spec: &str, budget: &Budget) -> Result<()> {
    let layout = parse_spec(spec)?;
    let number = match (value, layout.kind) {
        (Value::Bool(_), None) if spec.is_empty() => None,
        (Value::Int(_) | Value::Float(_) | Value::Bool(_), _) => Num::of(value),
        _ => None,
    };
    if let Some(num) = number {
        budget.spend(layout.width + layout.precision.unwrap_or(0) + 64)?;
        out.push_trusted(&pad_number(&number_text(num, &layout)?, &layout));
        return Ok(());
    }
    if !spec.is_empty() && !matches!(value, Value::Str(_)) {
        return Err(Fault::error(format!("unsupported format string passed to {}.__format__", value.type_name())));
    }
    if layout.kind.is_some_and(|k| k != 's') {
        return Err(Fault::error(format!("unknown format code for object of type '{}'", value.type_name())));
    }
    push_padded(out, &to_str(value, budget)?, &layout, budget)
}

fn parse_spec(spec: &str) -> Result<Layout> {
    let mut layout = Layout::default();
    let chars: Vec<char> = spec.chars().collect();
    let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
    let mut at = 0;
    if is_align(chars.get(1)) {
        (layout.fill, layout.align) = (chars.first().copied(), chars.get(1).copied());
        at = 2;
    } else if is_align(chars.first()) {
        layout.align = chars.first().copied();
        at = 1;
    }
    let mut take = |set: &[char]| {
        let found = chars.get(at).copied().filter(|c| set.contains(c));
        at += usize::from(found.is_some());
        found
    };
    layout.sign = take(&['+', '-', ' ']).filter(|c| *c != '-');
    layout.alternate = take(&['#']).is_some();
    layout.zero = take(&['0']).is_some();
    const DIGITS: &[char] = &['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
    let mut digits = String::new();
    while let Some(d) = take(DIGITS) {
        digits.push(d);
    }
    if !digits.is_empty() {
        layout.width = bounded(&digits)?;
    }
    layout.grouping = take(&[',', '_']);
    if take(&['.']).is_some() {
        let mut digits = String::new();
        while let Some(d) = take(DIGITS) {
            digits.push(d);
        }
        layout.precision = Some(bounded(&digits)?);
    }
    layout.kind = chars.get(at).copied();
    if chars.len() > at + 1 {
        return Err(Fault::error("invalid format specifier"));
    }
    Ok(layout)
}

fn number_text(num: Num, layout: &Layout) -> Result<String> {
    let (negative, body) = match (num, layout.kind) {
        (Num::Int(i), None | Some('d' | 'n')) => (i < 0, i.unsigned_abs().to_string()),
        (Num::Int(i), Some(kind @ ('x' | 'X' | 'o' | 'b'))) => {
            let n = i.unsigned_abs();
            let (prefix, digits) = match kind {
                'x' => ("0x", format!("{n:x}")),
                'X' => ("0X", format!("{n:X}")),
                'o' => ("0o", format!("{n:o}")),
                _ => ("0b", format!("{n:b}")),
            };
            (i < 0, if layout.alternate { format!("{prefix}{digits}") } else { digits })
        }
        (num, kind) => {
            let f = num.float();
            let a = f.abs();
            let body = match kind {
                _ if !f.is_finite() => float_repr(a),
                None if layout.precision.is_none() => float_repr(a),
                Some('f' | 'F') => format!("{a:.*}", layout.precision.unwrap_or(6)),
                Some('e' | 'E') => exponent(&format!("{a:.*e}", layout.precision.unwrap_or(6))),
                Some('%') => format!("{:.*}%", layout.precision.unwrap_or(6), a * 100.0),
                None | Some('g' | 'G') => general(a, layout.precision.unwrap_or(6).max(1), layout.alternate),
                Some(kind) => return Err(Fault::error(format!("unknown format code '{kind}' for a number"))),
            };
            (f.is_sign_negative() && !f.is_nan(), body)
        }
    };
    let body = if matches!(layout.kind, Some('E' | 'F' | 'G')) { body.to_uppercase() } else { body };
    let body = match layout.grouping {
        Some(separator) => grouped(&body, separator),
        None => body,
    };
    let sign = if negative { "-".into() } else { layout.sign.map_or(String::new(), String::from) };
    Ok(sign + &body)
}

/// Rust's `1.5e-7` as C's `1.5e-07`.
fn exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn general(f: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = format!("{f:.*e}", precision - 1);
    let exp: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exp < -4 || exp >= precision as i64 {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        return exponent(&format!("{}e{exp}", trim(mantissa)));
    }
    trim(&format!("{f:.*}", (precision as i64 - 1 - exp).max(0) as usize))
}

fn grouped(body: &str, separator: char) -> String {
    let whole = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    let mut out = String::new();
    for (i, digit) in body[..whole].chars().enumerate() {
        if i > 0 && (whole - i).is_multiple_of(3) {
            out.push(separator);
        }
        out.push(digit);
    }
    out + &body[whole..]
}

fn pad_number(body: &str, layout: &Layout) -> String {
    let missing = layout.width.saturating_sub(body.chars().count());
    let align = layout.align.unwrap_or('>');
    if (layout.zero && layout.fill.is_none() && align != '<') || align == '=' {
        let sign = usize::from(body.starts_with(['-', '+', ' ']));
        let fill = layout.fill.unwrap_or(if layout.zero { '0' } else { ' ' });
        return format!("{}{}{}", &body[..sign], String::from(fill).repeat(missing), &body[sign..]);
    }
    let fill = String::from(layout.fill.unwrap_or(' '));
    let left = match align {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    format!("{}{body}{}", fill.repeat(left), fill.repeat(missing - left))
}

fn push_padded(out: &mut StrBuf, s: &Str, layout: &Layout, budget: &Budget) -> Result<()> {
    let text = s.as_str();
    let end = match layout.precision {
        Some(n) => text.char_indices().nth(n).map_or(text.len(), |(i, _)| i),
        None => text.len(),
    };
    budget.spend(end + layout.width)?;
    let missing = match layout.width {
        0 => 0,
        width => width.saturating_sub(text[..end].chars().count()),
    };
    let fill = String::from(layout.fill.unwrap_or(' '));
    let left = match layout.align {
        Some('>') => missing,
        Some('^') => missing / 2,
        _ => 0,
    };
    out.push_trusted(&fill.repeat(left));
    out.push_part(s, 0, end);
    out.push_trusted(&fill.repeat(missing - left));
    Ok(())
}
