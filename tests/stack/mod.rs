//! `template.yaml`, and how to read it.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub mod evaluated;

use std::collections::BTreeSet;

use serde_norway::Value;

/// The template.
pub fn template() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/template.yaml")).unwrap();
    serde_norway::from_str(&text).unwrap()
}

/// The value at a path of names; fails if there is no value.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, name| value.get(name).unwrap_or_else(|| panic!("no {name} of {path}")))
}

/// The properties of a resource.
pub fn properties<'a>(template: &'a Value, resource: &str) -> &'a Value {
    at(template, &format!("Resources/{resource}/Properties"))
}

/// A value, or the default of the parameter that it refers to.
pub fn resolved<'a>(template: &'a Value, value: &'a Value) -> &'a Value {
    match value {
        Value::Tagged(tagged) if tagged.tag == "!Ref" => {
            at(template, &format!("Parameters/{}/Default", tagged.value.as_str().unwrap()))
        }
        other => other,
    }
}

/// A whole number, or the default of the parameter that the value refers to.
pub fn number(template: &Value, value: &Value) -> u64 {
    resolved(template, value).as_u64().unwrap_or_else(|| panic!("no whole number: {value:?}"))
}

/// The texts of a value that is one text or a list of texts.
pub fn texts(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Sequence(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        other => BTreeSet::from([other.as_str().unwrap()]),
    }
}

/// The name that `!GetAtt`, `!Sub` or `!Ref` refers to; fails on a literal text, such as `*`.
pub fn named(value: &Value) -> &str {
    match value {
        Value::Tagged(tagged) => tagged.value.as_str().unwrap(),
        other => panic!("names no resource: {other:?}"),
    }
}
