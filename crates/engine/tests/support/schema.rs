//! Just enough of JSON Schema to judge answers independently.

use serde_json::Value;

/// How `value` violates `schema`; references are found in `root`.
pub fn violation(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let says = |what: &str| Some(format!("{value} violates {what} of {schema}"));
    if let Some(target) = schema["$ref"].as_str() {
        let found = root.pointer(target.trim_start_matches('#')).expect("a target");
        return violation(root, found, value);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        return if options.iter().any(|option| violation(root, option, value).is_none()) { None } else { says("anyOf") };
    }
    if schema["enum"].as_array().is_some_and(|options| !options.contains(value)) {
        return says("enum");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return says("const");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |name: &str| match name {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return says("type");
    }
    if let Some(number) = value.as_f64()
        && (schema["minimum"].as_f64().is_some_and(|least| number < least) || schema["maximum"].as_f64().is_some_and(|most| number > most))
    {
        return says("a bound");
    }
    let within = |n: usize, least: &str, most: &str| {
        schema[least].as_u64().is_none_or(|least| n as u64 >= least) && schema[most].as_u64().is_none_or(|most| n as u64 <= most)
    };
    if value.as_str().is_some_and(|text| !within(text.chars().count(), "minLength", "maxLength")) {
        return says("a length");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !fancy_regex::Regex::new(pattern).expect("a pattern").is_match(text).expect("a match")
    {
        return says("pattern");
    }
    if let Some(items) = value.as_array() {
        if !within(items.len(), "minItems", "maxItems") {
            return says("a number of items");
        }
        let first = schema["prefixItems"].as_array().map_or(&[][..], Vec::as_slice);
        for (i, item) in items.iter().enumerate() {
            let of_item = first.get(i).unwrap_or(&schema["items"]);
            if *of_item == Value::Bool(false) {
                return says("items");
            }
            if let found @ Some(_) = violation(root, of_item, item) {
                return found;
            }
        }
    }
    if let Some(fields) = value.as_object() {
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        if required.iter().any(|key| !fields.contains_key(key.as_str().expect("a key"))) {
            return says("required");
        }
        for (key, field) in fields {
            match schema["properties"].get(key) {
                Some(of_field) => {
                    if let found @ Some(_) = violation(root, of_field, field) {
                        return found;
                    }
                }
                None if schema["additionalProperties"] == Value::Bool(false) => return says("additionalProperties"),
                None => {}
            }
        }
    }
    None
}
