//! Filters of sequences, and what they compare by.

use std::cmp::Ordering;

use super::super::call::{Args, int, text};
use super::super::error::{Fault, Limit, Result};
use super::super::ops::{equal, item, order};
use super::super::tests;
use super::super::value::{Budget, Value, text_cost};
use super::apply;

/// Most arguments that `map` hands on.
const MAX_MAP_ARGS: usize = 16;

/// `item.a.0.b` for the attribute `"a.0.b"`; the item itself without one.
pub(super) fn by_attribute(value: &Value, attr: Option<&Value>, budget: &Budget) -> Result<Value> {
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
pub(super) fn keyed(items: Vec<Value>, attr: Option<&Value>, case_sensitive: bool, budget: &Budget) -> Result<Vec<(Value, Value)>> {
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

pub(super) fn sorted(mut items: Vec<(Value, Value)>, reverse: bool, budget: &Budget) -> Result<Vec<Value>> {
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

pub(super) fn groupby(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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

pub(super) fn batch(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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

pub(super) fn map(value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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

pub(super) fn select(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value> {
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
