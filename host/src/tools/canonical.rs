//! One spelling per JSON value, and digests over it: what a confirmation is bound to and what the loop guard compares.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The value as compact JSON with the keys of every object sorted, so that equal values have equal texts.
pub(crate) fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

/// Identifies what a human said yes to: who offers the tool, its name, and the arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallDigest([u8; 32]);

impl CallDigest {
    /// The digest of a list of texts. Lengths are part of it, so that no two lists are spelled alike.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// The first `bytes` bytes as lower-case hexadecimal.
    pub(crate) fn short_hex(&self, bytes: usize) -> String {
        self.0.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for CallDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CallDigest({})", self.short_hex(8))
    }
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                write_canonical(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn order_of_keys_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b":[1,{"d":null,"c":"x\"y"}],"a":1.5}"#).unwrap();
        assert_eq!(canonical_json(&one), r#"{"a":1.5,"b":[1,{"c":"x\"y","d":null}]}"#);
        let other: Value = serde_json::from_str(r#"{"a":1.5,"b":[1,{"c":"x\"y","d":null}]}"#).unwrap();
        assert_eq!(canonical_json(&one), canonical_json(&other));
    }

    #[test]
    fn digests_tell_neighbouring_texts_apart() {
        assert_ne!(CallDigest::of(&["ab", "c"]), CallDigest::of(&["a", "bc"]));
        assert_ne!(CallDigest::of(&["ab"]), CallDigest::of(&["ab", ""]));
        assert_eq!(CallDigest::of(&["ab", "c"]), CallDigest::of(&["ab", "c"]));
    }

    proptest! {
        #[test]
        fn the_canonical_text_means_the_same_value(keys in proptest::collection::vec(".{0,6}", 0..6), number: i64) {
            let value: Value = keys.iter().map(|key| (key.clone(), json!([number, key]))).collect::<serde_json::Map<_, _>>().into();
            let back: Value = serde_json::from_str(&canonical_json(&value)).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
