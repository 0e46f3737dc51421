//! Reading JSON text without a tree of values: strings, members of objects, kinds of values for messages.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON string, borrowed if it holds no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The text of a JSON string. A [`RawValue`] was parsed once already, so only escapes remain to be resolved.
///
/// # Errors
/// The string holds half a surrogate pair, or the value is not a string.
pub(crate) fn unquoted(string: &RawValue) -> serde_json::Result<Cow<'_, str>> {
    let json = string.get();
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(json).map(|Text(text)| text),
    }
}

/// Calls `visit` with the name and the value of each member of a JSON object, in the order of the text.
///
/// # Errors
/// The first error of `visit`, or `None` if the text is not a JSON object.
pub(crate) fn for_each_member<'a, E>(
    object: &'a RawValue,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> Result<(), Option<E>> {
    struct Members<'v, F, E> {
        visit: F,
        error: &'v mut Option<E>,
    }

    impl<'a, F, E> Visitor<'a> for Members<'_, F, E>
    where
        F: FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
    {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some(Text(name)) = members.next_key()? {
                let value = members.next_value()?;
                if let Err(error) = (self.visit)(name, value) {
                    *self.error = Some(error);
                    return Err(serde::de::Error::custom("the caller refused a member"));
                }
            }
            Ok(())
        }
    }

    let mut error = None;
    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    match deserializer.deserialize_map(Members { visit, error: &mut error }) {
        Ok(()) => Ok(()),
        Err(_) => Err(error),
    }
}

/// The kind of a JSON value, for messages that must not show the value.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => "a number that does not fit",
        None => "nothing",
    }
}
