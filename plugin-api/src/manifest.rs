//! The manifest: what a plugin's file says about itself without being run.
//!
//! It is one JSON object, put together while the plugin is compiled, from the literals of
//! [`plugin_manifest!`](crate::plugin_manifest) and from what cargo and the compiler know.

/// What [`plugin_manifest!`](crate::plugin_manifest) writes down about a plugin type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no manifest",
    label = "what this plugin says about itself is written with `plugin_manifest!({Self} {{ id: \"..\", .. }})`"
)]
pub trait PluginManifest {
    /// The id: names the plugin in configuration, logs and reports.
    const ID: &'static str;
    /// The members of the manifest object, without its braces and without what only the exporting crate knows.
    const FIELDS: &'static str;
    /// The plugin says that it must only run in a process of its own.
    const ISOLATED_ONLY: bool;
}

/// One member of the object. Empty ones are left out.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Field<'a> {
    /// A text.
    Text(&'a str, &'a str),
    /// JSON as it is.
    Json(&'a str, &'a str),
    /// A list of texts, written with `:` between them as cargo writes authors.
    Colons(&'a str, &'a str),
    /// Names with their effects.
    Tools(&'a [(&'a str, &'a str)]),
    /// Kinds of permissions with what is asked for.
    Permissions(&'a [(&'a str, &'a [&'a str])]),
    /// Members that are written already.
    Written(&'a str),
    /// `true`, or nothing.
    Flag(&'a str, bool),
}

/// How long the members are.
#[doc(hidden)]
pub const fn fields_len(fields: &[Field<'_>]) -> usize {
    let mut sink = Sink { out: &mut [], len: 0 };
    sink.fields(fields);
    sink.len
}

/// The members; `N` is [`fields_len`].
#[doc(hidden)]
pub const fn fields_text<const N: usize>(fields: &[Field<'_>]) -> [u8; N] {
    let mut out = [0; N];
    let mut sink = Sink { out: &mut out, len: 0 };
    sink.fields(fields);
    out
}

/// How long the object of the members is.
#[doc(hidden)]
pub const fn object_len(fields: &[Field<'_>]) -> usize {
    fields_len(fields) + 2
}

/// The object of the members; `N` is [`object_len`].
#[doc(hidden)]
pub const fn object_text<const N: usize>(fields: &[Field<'_>]) -> [u8; N] {
    let mut out = [0; N];
    let mut sink = Sink { out: &mut out, len: 0 };
    sink.byte(b'{');
    sink.fields(fields);
    sink.byte(b'}');
    out
}

/// What was written with [`fields_text`] or [`object_text`], as text.
#[doc(hidden)]
pub const fn as_text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("the manifest is made of text"),
    }
}

/// An id is lower-case letters, digits, `-` and `_`, because it is a key of the configuration and part of file names.
#[doc(hidden)]
pub const fn is_id(id: &str) -> bool {
    let bytes = id.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= 64 && !matches!(bytes[0], b'-' | b'_')
}

/// Counts what does not fit, so that one set of functions measures and writes.
struct Sink<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Sink<'_> {
    const fn byte(&mut self, byte: u8) {
        if self.len < self.out.len() {
            self.out[self.len] = byte;
        }
        self.len += 1;
    }

    const fn raw(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut index = 0;
        while index < bytes.len() {
            self.byte(bytes[index]);
            index += 1;
        }
    }

    /// A part of `text` as a JSON string.
    const fn text(&mut self, text: &str, from: usize, to: usize) {
        let bytes = text.as_bytes();
        self.byte(b'"');
        let mut index = from;
        while index < to {
            match bytes[index] {
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                b'\n' => self.raw("\\n"),
                b'\r' => self.raw("\\r"),
                b'\t' => self.raw("\\t"),
                byte @ 0..=0x1f => {
                    self.raw("\\u00");
                    self.byte(if byte < 0x10 { b'0' } else { b'1' });
                    self.byte(b"0123456789abcdef"[(byte & 0xf) as usize]);
                }
                byte => self.byte(byte),
            }
            index += 1;
        }
        self.byte(b'"');
    }

    const fn key(&mut self, key: &str) {
        self.text(key, 0, key.len());
        self.byte(b':');
    }

    const fn fields(&mut self, fields: &[Field<'_>]) {
        let mut index = 0;
        let mut first = true;
        while index < fields.len() {
            if !is_empty(&fields[index]) {
                if !first {
                    self.byte(b',');
                }
                first = false;
                self.field(&fields[index]);
            }
            index += 1;
        }
    }

    const fn field(&mut self, field: &Field<'_>) {
        match *field {
            Field::Text(key, value) => {
                self.key(key);
                self.text(value, 0, value.len());
            }
            Field::Json(key, value) => {
                self.key(key);
                self.raw(value);
            }
            Field::Colons(key, value) => {
                self.key(key);
                self.colons(value);
            }
            Field::Tools(tools) => {
                self.key("tools");
                self.tools(tools);
            }
            Field::Permissions(permissions) => {
                self.key("permissions");
                self.permissions(permissions);
            }
            Field::Written(members) => self.raw(members),
            Field::Flag(key, _) => {
                self.key(key);
                self.raw("true");
            }
        }
    }

    const fn colons(&mut self, list: &str) {
        let bytes = list.as_bytes();
        self.byte(b'[');
        let (mut from, mut index) = (0, 0);
        while index <= bytes.len() {
            if index == bytes.len() || bytes[index] == b':' {
                if from > 0 {
                    self.byte(b',');
                }
                self.text(list, from, index);
                from = index + 1;
            }
            index += 1;
        }
        self.byte(b']');
    }

    const fn tools(&mut self, tools: &[(&str, &str)]) {
        self.byte(b'[');
        let mut index = 0;
        while index < tools.len() {
            let (name, effect) = tools[index];
            self.raw(if index == 0 { "{" } else { ",{" });
            self.fields(&[Field::Text("name", name), Field::Text("effect", effect)]);
            self.byte(b'}');
            index += 1;
        }
        self.byte(b']');
    }

    const fn permissions(&mut self, permissions: &[(&str, &[&str])]) {
        self.byte(b'{');
        let mut index = 0;
        while index < permissions.len() {
            let (kind, wanted) = permissions[index];
            if index > 0 {
                self.byte(b',');
            }
            self.key(kind);
            self.byte(b'[');
            let mut each = 0;
            while each < wanted.len() {
                if each > 0 {
                    self.byte(b',');
                }
                self.text(wanted[each], 0, wanted[each].len());
                each += 1;
            }
            self.byte(b']');
            index += 1;
        }
        self.byte(b'}');
    }
}

const fn is_empty(field: &Field<'_>) -> bool {
    match *field {
        Field::Text(_, value) | Field::Json(_, value) | Field::Colons(_, value) | Field::Written(value) => {
            value.is_empty()
        }
        Field::Tools(_) => false,
        Field::Permissions(permissions) => permissions.is_empty(),
        Field::Flag(_, set) => !set,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(fields: &[Field<'_>]) -> String {
        let mut out = vec![0; fields_len(fields)];
        let mut sink = Sink { out: &mut out, len: 0 };
        sink.fields(fields);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_member_is_json() {
        const FIELDS: &[Field<'static>] = &[
            Field::Text("homepage", ""),
            Field::Text("id", "clock"),
            Field::Colons("authors", "Ann \"the\" One <a@b>:Bob"),
            Field::Tools(&[("now", "read_only"), ("set", "")]),
            Field::Permissions(&[("network", &["a:443", "b:80"]), ("env", &[])]),
            Field::Json("config_schema", "{\"type\": \"object\"}"),
            Field::Flag("isolated_only", true),
            Field::Flag("never", false),
            Field::Written("\"panic\":\"unwind\""),
        ];
        const BYTES: [u8; fields_len(FIELDS)] = fields_text(FIELDS);
        let value: Value = serde_json::from_str(&format!("{{{}}}", as_text(&BYTES))).unwrap();
        const OBJECT: [u8; object_len(FIELDS)] = object_text(FIELDS);
        assert_eq!(serde_json::from_str::<Value>(as_text(&OBJECT)).unwrap(), value);
        assert_eq!(
            value,
            json!({
                "id": "clock",
                "authors": ["Ann \"the\" One <a@b>", "Bob"],
                "tools": [{"name": "now", "effect": "read_only"}, {"name": "set"}],
                "permissions": {"network": ["a:443", "b:80"], "env": []},
                "config_schema": {"type": "object"},
                "isolated_only": true,
                "panic": "unwind"
            })
        );
    }

    #[test]
    fn ids_are_plain() {
        assert!(is_id("clock") && is_id("my-plugin_2"));
        assert!(!is_id("") && !is_id("Clock") && !is_id("a/b") && !is_id("é") && !is_id(&"x".repeat(65)));
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            prop_assume!(!text.is_empty());
            let value: Value = serde_json::from_str(&format!("{{{}}}", written(&[Field::Text("t", &text)]))).unwrap();
            prop_assert_eq!(value["t"].as_str(), Some(text.as_str()));
        }
    }
}
