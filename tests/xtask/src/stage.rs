//! Builds the host and the plugins, and puts the plugins' libraries into a folder of their own: nothing loads cargo's
//! output folder as it is, which holds much more.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{cargo, finish, root, target};

/// What was built.
pub(crate) struct Staged {
    /// The host's program.
    pub(crate) program: PathBuf,
    /// The folder with the plugins' libraries.
    pub(crate) folder: PathBuf,
}

/// A plugin of the workspace: `plugins/NAME/dylib`.
struct PluginPackage {
    package: String,
    library: String,
}

/// Builds everything with the development profile and stages the plugins to `target/plugins`.
pub(crate) fn build_and_stage() -> Result<Staged> {
    let plugins = workspace_plugins()?;
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "jackfield"]);
    for plugin in &plugins {
        build.args(["--package", &plugin.package]);
    }
    finish(&mut build)?;

    let (built, folder) = (target().join("debug"), target().join("plugins"));
    fs::create_dir_all(&folder)?;
    remove_others(&folder, &plugins)?;
    for plugin in &plugins {
        let name = plugin.file_name();
        // Copied beside and then moved: a server that watches the folder never sees half a library.
        let fresh = folder.join(format!(".{name}.fresh"));
        fs::copy(built.join(&name), &fresh).with_context(|| format!("{name} was not built"))?;
        fs::rename(&fresh, folder.join(&name))?;
    }
    Ok(Staged { program: built.join(format!("jackfield{EXE_SUFFIX}")), folder })
}

impl PluginPackage {
    fn file_name(&self) -> String {
        format!("{DLL_PREFIX}{}{DLL_SUFFIX}", self.library)
    }
}

fn remove_others(folder: &Path, plugins: &[PluginPackage]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let known = plugins.iter().any(|plugin| entry.file_name() == plugin.file_name().as_str());
        if !known && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn workspace_plugins() -> Result<Vec<PluginPackage>> {
    let mut plugins = Vec::new();
    for entry in fs::read_dir(root().join("plugins"))? {
        let manifest = entry?.path().join("dylib/Cargo.toml");
        if manifest.is_file() {
            let text = fs::read_to_string(&manifest)?;
            plugins.push(parse(&text).with_context(|| format!("{} names no package", manifest.display()))?);
        }
    }
    plugins.sort_by(|left, right| left.package.cmp(&right.package));
    Ok(plugins)
}

/// The two names of a manifest, which is ours and simple: `name = "…"` below `[package]` and below `[lib]`.
fn parse(text: &str) -> Option<PluginPackage> {
    let (mut section, mut package, mut library) = ("", None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some(("name", value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            let name = value.trim_matches('"').to_owned();
            match section {
                "[package]" => package = Some(name),
                "[lib]" => library = Some(name),
                _ => {}
            }
        }
    }
    let package = package?;
    Some(PluginPackage { library: library.unwrap_or_else(|| package.replace('-', "_")), package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_gives_its_names() {
        let named = parse("[package]\nname = \"a-dylib\"\nversion = \"1\"\n[lib]\nname = \"a\"").expect("names");
        assert_eq!((named.package.as_str(), named.library.as_str()), ("a-dylib", "a"));
        let unnamed = parse("[package]\nname = \"b-dylib\"\n[dependencies]\nname = \"x\"").expect("names");
        assert_eq!(unnamed.library, "b_dylib");
        assert!(parse("[workspace]").is_none());
    }

    #[test]
    fn the_workspace_has_plugins() {
        let plugins = workspace_plugins().expect("the folder can be read");
        assert!(plugins.iter().any(|plugin| plugin.library == "clock"));
    }
}
