//! Methods of str. Each charges for its text before it works on it.

use std::collections::BTreeSet;

use super::super::call::{Args, int, text};
use super::super::error::{Fault, Result};
use super::super::format::format;
use super::super::lexer::is_space;
use super::super::value::{Budget, ELEMENT_COST, Str, StrBuf, Value};
use super::unsupported;

pub(super) fn str_method(s: &Str, name: &str, args: &Args, budget: &Budget) -> Result<Value> {
    let whole = s.as_str();
    // Searches and case mapping take several times as long as a copy.
    budget.spend(whole.len() * 4 + 16)?;
    let derived = |text: String| {
        budget.spend(text.len())?;
        Ok(Value::Str(s.derived(text)))
    };
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!whole.is_empty() && whole.chars().all(test)));
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"])?;
            let set: Option<BTreeSet<char>> = match &chars {
                None | Some(Value::None) => None,
                Some(chars) => {
                    let chars = text(chars, name)?.as_str();
                    budget.spend((chars.len() + whole.len()).saturating_mul(16))?;
                    Some(chars.chars().collect())
                }
            };
            let cut = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
            Ok(Value::Str(strip(s, name != "rstrip", name != "lstrip", cut)))
        }
        "upper" => derived(whole.to_uppercase()),
        "lower" | "casefold" => derived(whole.to_lowercase()),
        "capitalize" => derived(capitalize(whole)),
        "title" => derived(title(whole)),
        "swapcase" => derived(whole.chars().fold(String::new(), |mut out, c| {
            if c.is_uppercase() {
                out.extend(c.to_lowercase())
            } else {
                out.extend(c.to_uppercase())
            }
            out
        })),
        "split" | "rsplit" => {
            let [separator, limit] = args.bind(name, ["sep", "maxsplit"])?;
            let limit = usize::try_from(int(limit.as_ref(), -1, name)?).unwrap_or(usize::MAX);
            let parts = match &separator {
                None | Some(Value::None) => {
                    budget.spend(whole.split(is_space).take(limit).count() * ELEMENT_COST)?;
                    split_spaces(s, limit, name == "rsplit")
                }
                Some(separator) => {
                    let separator = text(separator, name)?.as_str();
                    if separator.is_empty() {
                        return Err(Fault::error("empty separator"));
                    }
                    budget.spend(whole.matches(separator).take(limit).count() * ELEMENT_COST)?;
                    split_on(s, separator, limit, name == "rsplit")
                }
            };
            Value::list(parts.into_iter().map(Value::Str).collect())
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            budget.spend(whole.chars().filter(|c| is_line_end(*c)).count() * ELEMENT_COST)?;
            let lines = split_lines(s, keep.is_some_and(|k| k.truth()));
            Value::list(lines.into_iter().map(Value::Str).collect())
        }
        "partition" | "rpartition" => {
            let separator = args.one(name, "sep")?;
            let wanted = text(&separator, name)?;
            if wanted.as_str().is_empty() {
                return Err(Fault::error("empty separator"));
            }
            let found = if name == "partition" { whole.find(wanted.as_str()) } else { whole.rfind(wanted.as_str()) };
            let empty = Str::trusted("");
            let parts = match found {
                Some(at) => {
                    let end = at + wanted.as_str().len();
                    [s.slice(0, at), wanted.clone(), s.slice(end, whole.len())]
                }
                None if name == "partition" => [s.clone(), empty.clone(), empty],
                None => [empty.clone(), empty, s.clone()],
            };
            Value::tuple(parts.into_iter().map(Value::Str).collect())
        }
        "startswith" | "endswith" => {
            let [prefix, start, end] = args.bind(name, ["prefix", "start", "end"])?;
            let prefix = prefix.ok_or_else(|| Fault::error(format!("{name} expected at least 1 argument, got 0")))?;
            let Some(window) = window(whole, start.as_ref(), end.as_ref(), name)? else {
                return Ok(Value::Bool(false));
            };
            let part = &whole[window];
            let options = match &prefix {
                Value::Tuple(t) => t.items.as_slice(),
                Value::List(_) => return Err(Fault::error(format!("{name} first arg must be str or a tuple of str, not list"))),
                one => std::slice::from_ref(one),
            };
            for option in options {
                let option = text(option, name)?.as_str();
                if if name == "startswith" { part.starts_with(option) } else { part.ends_with(option) } {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [wanted, start, end] = args.bind(name, ["sub", "start", "end"])?;
            let wanted = wanted.ok_or_else(|| Fault::error(format!("{name} expected at least 1 argument, got 0")))?;
            let wanted = text(&wanted, name)?.as_str();
            let window = window(whole, start.as_ref(), end.as_ref(), name)?;
            let part = window.clone().map_or("", |w| &whole[w]);
            if name == "count" {
                let found = if window.is_none() { 0 } else { part.matches(wanted).count() };
                return Ok(Value::int(found));
            }
            let found = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
            match (window, found) {
                (Some(w), Some(at)) => Ok(Value::int(whole[..w.start + at].chars().count())),
                _ if name.ends_with("index") => Err(Fault::error("substring not found")),
                _ => Ok(Value::Int(-1)),
            }
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else {
                return Err(Fault::error("replace expected at least 2 arguments"));
            };
            let count = usize::try_from(int(count.as_ref(), -1, name)?).unwrap_or(usize::MAX);
            Ok(Value::Str(replace(s, text(&old, name)?.as_str(), text(&new, name)?, count, budget)?))
        }
        "removeprefix" | "removesuffix" => {
            let affix = args.one(name, "affix")?;
            let affix = text(&affix, name)?.as_str();
            Ok(Value::Str(if name == "removeprefix" {
                whole.strip_prefix(affix).map_or_else(|| s.clone(), |r| s.slice(whole.len() - r.len(), whole.len()))
            } else {
                whole.strip_suffix(affix).map_or_else(|| s.clone(), |r| s.slice(0, r.len()))
            }))
        }
        "join" => {
            let items = args.one(name, "iterable")?.iterate(budget)?;
            let mut out = StrBuf::default();
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    budget.spend(whole.len())?;
                    out.push(s);
                }
                let Value::Str(item) = item else {
                    let found = item.type_name();
                    return Err(Fault::error(format!("sequence item {i}: expected str instance, {found} found")));
                };
                budget.spend(item.as_str().len())?;
                out.push(item);
            }
            Ok(Value::Str(out.finish()))
        }
        "format" => Ok(Value::Str(format(s, args, budget)?)),
        "format_map" => {
            let Value::Dict(mapping) = args.one(name, "mapping")? else {
                return Err(Fault::error("format_map() needs a mapping"));
            };
            let named = mapping.entries().iter().filter_map(|(k, v)| match k {
                Value::Str(k) => Some((k.as_str().into(), v.clone())),
                _ => None,
            });
            Ok(Value::Str(format(s, &Args { positional: Vec::new(), keyword: named.collect() }, budget)?))
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let [width, fill] = args.bind(name, ["width", "fillchar"])?;
            let width = usize::try_from(int(width.as_ref(), 0, name)?.max(0)).unwrap_or(usize::MAX);
            budget.spend(width)?;
            let fill = match &fill {
                None => ' ',
                Some(fill) => match text(fill, name)?.as_str().chars().collect::<Vec<_>>()[..] {
                    [c] => c,
                    _ => return Err(Fault::error("the fill character must be exactly one character long")),
                },
            };
            Ok(Value::Str(pad(s, name, width, fill)))
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            let size = usize::try_from(int(size.as_ref(), 8, name)?.clamp(0, 64)).unwrap_or(8);
            let mut column = 0;
            derived(whole.chars().fold(String::new(), |mut out, c| {
                match c {
                    '\t' if size > 0 => {
                        let spaces = size - column % size;
                        out.push_str(&" ".repeat(spaces));
                        column += spaces;
                    }
                    '\t' => {}
                    c => {
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                        out.push(c);
                    }
                }
                out
            }))
        }
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isascii" => Ok(Value::Bool(whole.is_ascii())),
        "islower" | "isupper" => Ok(Value::Bool(is_cased(whole, name == "islower"))),
        "istitle" => Ok(Value::Bool(is_cased_any(whole) && title(whole) == whole)),
        "isidentifier" => {
            let start = whole.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
            Ok(Value::Bool(start && whole.chars().all(|c| c.is_alphanumeric() || c == '_')))
        }
        "isprintable" => Ok(Value::Bool(!whole.chars().any(|c| c.is_control()))),
        _ => unsupported(&Value::Str(s.clone()), name),
    }
}

/// Whether all cased letters are lower (or upper) case, and there is one.
pub(in super::super) fn is_cased(text: &str, lower: bool) -> bool {
    let (has_lower, has_upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
    has_lower == lower && has_upper != lower
}

fn is_cased_any(text: &str) -> bool {
    text.chars().any(|c| c.is_lowercase() || c.is_uppercase())
}

pub(in super::super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect())
}

/// Python's `str.title`: a letter after anything but a letter is upper case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

pub(in super::super) fn strip(s: &Str, left: bool, right: bool, cut: impl Fn(char) -> bool) -> Str {
    let whole = s.as_str();
    let start = if left { whole.len() - whole.trim_start_matches(&cut).len() } else { 0 };
    let kept = if right { whole[start..].trim_end_matches(&cut) } else { &whole[start..] };
    s.slice(start, start + kept.len())
}

/// The bytes that `start` and `end`, in characters, pick; `None` if they exclude even the empty string.
fn window(text: &str, start: Option<&Value>, end: Option<&Value>, name: &str) -> Result<Option<std::ops::Range<usize>>> {
    if start.is_none() && end.is_none() {
        return Ok(Some(0..text.len()));
    }
    let n = text.chars().count() as i64;
    let clamp = |at: i64| if at < 0 { (at + n).max(0) } else { at };
    let start = clamp(int(start, 0, name)?);
    let end = clamp(int(end, n, name)?).min(n);
    if start > end {
        return Ok(None);
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(i, _)| i);
    Ok(Some(byte(start)..byte(end)))
}

fn split_on(s: &Str, separator: &str, limit: usize, from_right: bool) -> Vec<Str> {
    let whole = s.as_str();
    let mut cuts: Vec<usize> = if from_right {
        whole.rmatch_indices(separator).take(limit).map(|(i, _)| i).collect()
    } else {
        whole.match_indices(separator).take(limit).map(|(i, _)| i).collect()
    };
    if from_right {
        cuts.reverse();
    }
    let mut at = 0;
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    for cut in cuts {
        parts.push(s.slice(at, cut));
        at = cut + separator.len();
    }
    parts.push(s.slice(at, whole.len()));
    parts
}

fn split_spaces(s: &Str, limit: usize, from_right: bool) -> Vec<Str> {
    let whole = s.as_str();
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, whole.len());
    loop {
        if from_right {
            end = whole[..end].trim_end_matches(is_space).len();
        } else {
            start = whole.len() - whole[start..].trim_start_matches(is_space).len();
        }
        if start >= end {
            break;
        }
        let rest = &whole[start..end];
        if parts.len() == limit {
            parts.push(s.slice(end - rest.len(), end));
            break;
        }
        if from_right {
            let word = rest.rfind(is_space).map_or(start, |i| start + i + rest[i..].chars().next().map_or(1, char::len_utf8));
            parts.push(s.slice(word, end));
            end = word;
        } else {
            let word = rest.find(is_space).map_or(end, |i| start + i);
            parts.push(s.slice(start, word));
            start = word;
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn split_lines(s: &Str, keep_ends: bool) -> Vec<Str> {
    let whole = s.as_str();
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = whole.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        if is_line_end(c) {
            let mut end = i + c.len_utf8();
            if c == '\r' && chars.next_if(|n| n.1 == '\n').is_some() {
                end += 1;
            }
            lines.push(s.slice(start, if keep_ends { end } else { i }));
            start = end;
        }
    }
    if start < whole.len() {
        lines.push(s.slice(start, whole.len()));
    }
    lines
}

pub(in super::super) fn replace(s: &Str, old: &str, new: &Str, count: usize, budget: &Budget) -> Result<Str> {
    let whole = s.as_str();
    let mut out = StrBuf::default();
    let mut at = 0;
    for (i, _) in whole.match_indices(old).take(count) {
        budget.spend(i - at + new.as_str().len() + 1)?;
        out.push_part(s, at, i);
        out.push(new);
        at = i + old.len();
    }
    budget.spend(whole.len() - at)?;
    out.push_part(s, at, whole.len());
    Ok(out.finish())
}

pub(in super::super) fn pad(s: &Str, how: &str, width: usize, fill: char) -> Str {
    let missing = width.saturating_sub(s.as_str().chars().count());
    let (fill, left) = match how {
        "ljust" => (fill, 0),
        "rjust" => (fill, missing),
        "zfill" => ('0', missing),
        // Python puts the odd one to the left only where the width is odd.
        _ => (fill, missing / 2 + (missing & width & 1)),
    };
    let mut out = StrBuf::default();
    let sign = usize::from(how == "zfill" && s.as_str().starts_with(['-', '+']));
    out.push_part(s, 0, sign);
    out.push_trusted(&String::from(fill).repeat(left));
    out.push_part(s, sign, s.as_str().len());
    out.push_trusted(&String::from(fill).repeat(missing - left));
    out.finish()
}
