//! The names that follow from what a plugin is called: its id, its package, its type.

use std::path::Path;

use jackfield::plugins::is_plugin_id;

/// Names that a package beside the author's crates cannot have.
const TAKEN: [&str; 3] = ["serde", "jackfield-plugin-api", "jackfield-plugin-abi"];
/// Words that cargo takes for no package, because the compiler has another use for them.
const RESERVED: [&str; 46] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
];
const RESERVED_TOO: [&str; 11] =
    ["try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield", "union"];

/// Leaves room for what is added to make the name of a tool, which may have 64 characters.
const LEN_MAX: usize = 56;

/// What a plugin is called: good as its id and as the name of its package.
#[derive(Debug)]
pub(super) struct PluginName {
    id: String,
}

impl PluginName {
    /// The last part of a path names the plugin.
    ///
    /// # Errors
    ///
    /// What a name must look like, and what came.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, String> {
        let id = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !is_plugin_id(&id) || id.len() > LEN_MAX || id.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(format!(
                "expected a name of a-z, 0-9, _ and - that begins with a letter (at most {LEN_MAX} of them), got {id:?}; the last part of the path names the plugin"
            ));
        }
        let word = id.replace('-', "_");
        let is_reserved = RESERVED.iter().chain(&RESERVED_TOO).any(|reserved| *reserved == word);
        if is_reserved || TAKEN.iter().any(|taken| taken.replace('-', "_") == word) {
            return Err(format!("a Rust package cannot be called {id:?} here; choose another name"));
        }
        Ok(Self { id })
    }

    /// The id of the plugin and the name of its package.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The name of the plugin's library, as Rust writes it.
    pub(super) fn library(&self) -> String {
        self.id.replace('-', "_")
    }

    /// The name of the plugin's type: `my-clock` is `MyClockPlugin`.
    pub(super) fn type_name(&self) -> String {
        let parts = self.id.split(['-', '_']).filter(|part| !part.is_empty());
        let mut name: String = parts.map(|part| part[..1].to_ascii_uppercase() + &part[1..]).collect();
        name.push_str("Plugin");
        name
    }

    /// The name of the one tool: the plugin's own, so that two fresh plugins do not meet.
    pub(super) fn tool(&self) -> String {
        format!("{}_greet", self.library())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_folder() {
        let name = PluginName::of_folder(Path::new("some/where/my-clock_2")).expect("a name");
        assert_eq!((name.id(), name.library().as_str()), ("my-clock_2", "my_clock_2"));
        assert_eq!((name.type_name().as_str(), name.tool().as_str()), ("MyClock2Plugin", "my_clock_2_greet"));
    }

    #[test]
    fn what_is_no_package_is_told() {
        for wrong in [
            "",
            "..",
            "Clock",
            "2fast",
            "-x",
            "a b",
            "é",
            "serde",
            "jackfield_plugin_api",
            "test",
            "fn",
            &"x".repeat(57),
        ] {
            assert!(PluginName::of_folder(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
