//! The few shapes that fields have, as JSON Schema. An empty description is left out.

use serde_json::{Map, Value, json};

pub(super) fn text(words: &str) -> Value {
    described(json!({"type": "string"}), words)
}

pub(super) fn flag(words: &str) -> Value {
    described(json!({"type": "boolean"}), words)
}

/// A whole number that is not negative.
pub(super) fn count(words: &str) -> Value {
    described(json!({"type": "integer", "minimum": 0}), words)
}

/// A whole number within these bounds.
pub(super) fn whole(least: i64, most: i64, words: &str) -> Value {
    described(json!({"type": "integer", "minimum": least, "maximum": most}), words)
}

/// A number within these bounds.
pub(super) fn number(least: impl Into<Value>, most: impl Into<Value>, words: &str) -> Value {
    described(json!({"type": "number", "minimum": least.into(), "maximum": most.into()}), words)
}

/// One of these texts.
pub(super) fn one_of(texts: &[&str], words: &str) -> Value {
    described(json!({"type": "string", "enum": texts}), words)
}

pub(super) fn list(of: Value, words: &str) -> Value {
    described(json!({"type": "array", "items": of}), words)
}

/// An object with keys of its own, such as a JSON schema.
pub(super) fn map(words: &str) -> Value {
    described(json!({"type": "object"}), words)
}

pub(super) fn anything(words: &str) -> Value {
    described(json!({}), words)
}

/// A value of one of these schemas.
pub(super) fn either<const N: usize>(schemas: [Value; N], words: &str) -> Value {
    described(json!({"anyOf": schemas.as_slice()}), words)
}

/// A value of this schema, or null; `words` are of both.
pub(super) fn or_null(schema: Value, words: &str) -> Value {
    either([schema, json!({"type": "null"})], words)
}

/// A text, or a list of at most `most` texts.
pub(super) fn texts(text: Value, most: usize, words: &str) -> Value {
    either([text.clone(), with(list(text, ""), "maxItems", most)], words)
}

/// The schema of this name among the components.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// `schema` with one more keyword.
pub(super) fn with(mut schema: Value, keyword: &str, value: impl Into<Value>) -> Value {
    schema[keyword] = value.into();
    schema
}

/// `schema` of a field that means `value` where it is absent.
pub(super) fn or(schema: Value, value: impl Into<Value>) -> Value {
    with(schema, "default", value)
}

/// An object with these groups of fields, of which some are required.
pub(super) fn object(required: &[&str], groups: &[Value]) -> Value {
    let object = json!({"type": "object", "properties": merged(groups)});
    if required.is_empty() { object } else { with(object, "required", required) }
}

/// An object of the server's: all of its fields are there, but for these that may be absent.
pub(super) fn answer(optional: &[&str], fields: Value) -> Value {
    let names = fields.as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    let required: Vec<&str> = names.filter(|name| !optional.contains(name)).collect();
    object(&required, std::slice::from_ref(&fields))
}

/// Several objects in one.
pub(super) fn merged(groups: &[Value]) -> Map<String, Value> {
    groups.iter().filter_map(Value::as_object).flat_map(Map::clone).collect()
}

pub(super) fn described(schema: Value, words: &str) -> Value {
    if words.is_empty() { schema } else { with(schema, "description", words) }
}
