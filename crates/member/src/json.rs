//! Small steps with JSON values that every answer takes.

use daybook_ledger::{
    consortium::{DEPTH_MAX, canon},
    json::{Object, Value},
};

/// Nesting of what we store and answer: an entry, in its list, in its answer.
const OWN_DEPTH_MAX: usize = DEPTH_MAX + 8;

/// An object of these members.
pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().collect())
}

/// A text, or null.
pub(crate) fn text_or_null(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::from)
}

/// A text member; empty when it is missing or no text.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    member(value, name).and_then(Value::as_str).unwrap_or("")
}

/// A member of an object.
pub(crate) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object()?.get(name)
}

/// A count; 0 when it is missing or none.
pub(crate) fn count(value: &Value, name: &str) -> u64 {
    member(value, name).and_then(Value::as_u64).unwrap_or(0)
}

/// What this program wrote itself. A text that it did not write is null.
pub(crate) fn own(text: &str) -> Value {
    Value::parse(text.as_bytes(), OWN_DEPTH_MAX).unwrap_or(Value::Null)
}

/// What this program wrote itself, as an object.
pub(crate) fn own_object(text: &str) -> Object {
    match own(text) {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// The compact text.
pub(crate) fn write(value: &Value) -> String {
    canon(value)
}
