//! What callers may ask of a grammar, checked before it is read.

use serde_json::Value;

use crate::error::Error;

/// Values inside values.
const MAX_DEPTH: usize = 64;
/// Values of a schema, all levels together.
const MAX_VALUES: usize = 20_000;
/// Bytes of a schema's strings and keys, or of a grammar's text.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// References of a schema, or rules of a grammar: a chain of them is followed recursively.
const MAX_STEPS: usize = 1000;
/// Brackets inside brackets in a grammar's text.
const MAX_BRACKETS: usize = 32;

/// Refuses a schema that is too large or too deep, or refers to another document.
pub(super) fn check_schema(what: &'static str, schema: &Value) -> Result<(), Error> {
    let mut seen = Seen::default();
    seen.visit(schema, MAX_DEPTH).map_err(|reason| Error::Format { what, reason })
}

#[derive(Default)]
struct Seen {
    values: usize,
    bytes: usize,
    references: usize,
}

impl Seen {
    fn visit(&mut self, value: &Value, depth_left: usize) -> Result<(), String> {
        let deeper = depth_left.checked_sub(1).ok_or_else(|| format!("the schema is nested deeper than {MAX_DEPTH} levels"))?;
        self.count(1, 0)?;
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.count(0, key.len())?;
                    if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef")
                        && let Value::String(target) = value
                    {
                        self.refer(target)?;
                    }
                    self.visit(value, deeper)?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(item, deeper)),
            Value::String(text) => self.count(0, text.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn count(&mut self, values: usize, bytes: usize) -> Result<(), String> {
        self.values += values;
        self.bytes += bytes;
        if self.values > MAX_VALUES {
            return Err(format!("the schema has more than {MAX_VALUES} values"));
        }
        if self.bytes > MAX_BYTES {
            return Err(format!("the schema's texts are longer than {MAX_BYTES} bytes"));
        }
        Ok(())
    }

    fn refer(&mut self, target: &str) -> Result<(), String> {
        self.references += 1;
        if self.references > MAX_STEPS {
            return Err(format!("the schema has more than {MAX_STEPS} references"));
        }
        if !target.starts_with('#') {
            let shown: String = target.chars().take(100).collect();
            return Err(format!("$ref `{shown}` leaves the schema, and nothing is fetched; put its target under $defs"));
        }
        Ok(())
    }
}

/// Refuses a Lark grammar that is too long, too deep or has too many rules.
pub(super) fn check_lark(what: &'static str, text: &str) -> Result<(), Error> {
    let too = |reason: String| Err(Error::Format { what, reason });
    if text.len() > MAX_BYTES {
        return too(format!("the grammar has {} bytes; at most {MAX_BYTES} are allowed", text.len()));
    }
    if text.bytes().filter(|byte| *byte == b':').count() > MAX_STEPS {
        return too(format!("the grammar has more than {MAX_STEPS} rules"));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return too(format!("the grammar has brackets nested deeper than {MAX_BRACKETS} levels"));
        }
    }
    Ok(())
}
