//! The files that an author changes. Their texts are in `host/templates`; a few marks in them stand for what depends
//! on the plugin's name.

use std::path::PathBuf;

use super::{VENDOR, VERSION, name::PluginName};

/// Path below the project, and the text.
const TEXTS: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../../../templates/tool/Cargo.toml.in")),
    (".gitignore", "/target\n"),
    ("README.md", include_str!("../../../templates/tool/README.md.in")),
    ("src/lib.rs", include_str!("../../../templates/tool/lib.rs.in")),
    ("src/tests.rs", include_str!("../../../templates/tool/tests.rs.in")),
    ("src/config.schema.json", include_str!("../../../templates/tool/config.schema.json")),
];

/// Where the author's crate comes from.
pub(super) enum Api {
    /// From this binary.
    Vendored,
    /// From a folder.
    Path(PathBuf),
    /// From the registry.
    Version(String),
}

/// One plugin to be written.
pub(super) struct Project<'a> {
    pub(super) name: &'a PluginName,
    pub(super) api: &'a Api,
}

impl Project<'_> {
    /// Path below the project and text of each file.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        TEXTS.iter().map(|(path, text)| ((*path).to_owned(), self.fill(text))).collect()
    }

    fn fill(&self, text: &str) -> String {
        let api = match self.api {
            Api::Vendored => format!("{{ path = \"{VENDOR}/plugin-api\" }}"),
            Api::Path(path) => format!("{{ path = {:?} }}", path.display().to_string()),
            Api::Version(version) => format!("\"{version}\""),
        };
        let library =
            format!("{}{}.{}", std::env::consts::DLL_PREFIX, self.name.library(), std::env::consts::DLL_EXTENSION);
        let marks = [
            ("@ID@", self.name.id()),
            ("@TYPE@", &self.name.type_name()),
            ("@TOOL@", &self.name.tool()),
            ("@LIBRARY@", &library),
            ("@VERSION@", VERSION),
            ("@API@", &api),
        ];
        marks.iter().fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn no_mark_is_left_in_any_file() {
        let name = PluginName::of_folder(Path::new("my-clock")).expect("a name");
        for api in [Api::Vendored, Api::Version("0.1".into()), Api::Path("/a \"b\"".into())] {
            let project = Project { name: &name, api: &api };
            for (path, text) in project.files() {
                let marks = text
                    .match_indices('@')
                    .filter(|(at, _)| text[at + 1..].starts_with(|next: char| next.is_ascii_uppercase()));
                assert_eq!(marks.count(), 0, "{path}:\n{text}");
                if path == "Cargo.toml" {
                    let manifest: toml::Table = text.parse().expect("TOML");
                    assert_eq!(manifest["package"]["name"].as_str(), Some("my-clock"));
                }
            }
        }
    }
}
