//! Access to `tests/vectors` for the tests of this crate: what JavaScript's peers said, with fixed seeds.

use serde_json::Value;

/// A file of vectors.
pub(crate) fn read(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON")
}

/// A text field.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name}"))
}

/// A field of hex digits.
pub(crate) fn bytes(value: &Value, name: &str) -> Vec<u8> {
    unhex(text(value, name))
}

/// Bytes from hex digits.
pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

/// All transcripts of whole sessions.
pub(crate) const TRANSCRIPTS: [&str; 5] =
    ["transcript-empty", "transcript-live", "transcript-fork", "transcript-sparse", "transcript-store"];
