//! The size of an item, as DynamoDB counts it.

use serde_json::{Map, Value};

/// An item's size in bytes: its names and values, as DynamoDB documents it.
pub fn size(item: &Map<String, Value>) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of(value)).sum()
}

fn size_of(attribute: &Value) -> usize {
    let Some((kind, value)) = attribute.as_object().and_then(|attribute| attribute.iter().next()) else { return 0 };
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => text.len(),
        ("N", Value::String(number)) => number.bytes().filter(u8::is_ascii_digit).count().div_ceil(2) + 1,
        ("B", Value::String(base64)) => base64.len() / 4 * 3,
        ("BOOL" | "NULL", _) => 1,
        ("L", Value::Array(elements)) => 3 + elements.iter().map(|element| 1 + size_of(element)).sum::<usize>(),
        ("M", Value::Object(members)) => 3 + members.len() + size(members),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_documentation() {
        for (item, bytes) in [
            (r#"{"pk":{"S":"public.t#1"}}"#, 12),
            (r#"{"n":{"N":"1773843841076494565"}}"#, 12),
            (r#"{"b":{"BOOL":true},"z":{"NULL":true}}"#, 4),
            (r#"{"l":{"L":[{"S":"ab"},{"N":"1"}]}}"#, 10),
            (r#"{"m":{"M":{"a":{"S":"b"}}}}"#, 7),
        ] {
            assert_eq!(size(&serde_json::from_str(item).unwrap()), bytes, "{item}");
        }
    }
}
