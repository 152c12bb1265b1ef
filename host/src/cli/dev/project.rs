//! The plugin's project as cargo sees it: which package makes the library, where it comes out, and how it is built.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::cli::{Exit, Failure};

/// A package whose library a host can load.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plugin {
    package: String,
    /// The folder of its `Cargo.toml`.
    folder: PathBuf,
    /// What cargo builds.
    pub(super) library: PathBuf,
    release: bool,
}

/// Looks at the project in this folder.
///
/// # Errors
///
/// When cargo cannot read it, or it does not name exactly one library that a host can load.
pub(super) fn find(folder: &Path, package: Option<&str>, release: bool) -> Result<Plugin, Failure> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(not_started)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = format!("{} is no project that cargo understands:\n{said}", folder.display());
        return Err(Failure::new(Exit::Failure, message));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(anyhow::Error::from)?;
    let manifest = folder.join("Cargo.toml").canonicalize().unwrap_or_default();
    metadata.choose(&manifest, package, release).map_err(|message| Failure::new(Exit::Usage, message))
}

impl Plugin {
    /// Builds it; what cargo says goes to the terminal. Returns whether it built.
    pub(super) async fn build(&self) -> Result<bool, Failure> {
        let mut build = cargo();
        build.args(["build", "--package", &self.package]).current_dir(&self.folder).stdin(Stdio::null());
        if self.release {
            build.arg("--release");
        }
        // On a thread of its own, so that a stop is noticed while it builds.
        let built = tokio::task::spawn_blocking(move || build.status());
        let status = built.await.map_err(anyhow::Error::from)?.map_err(not_started)?;
        Ok(status.success())
    }

    /// What is worth a new build when it changes.
    pub(super) fn sources(&self) -> PathBuf {
        self.folder.clone()
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

fn not_started(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("cargo cannot be started: {error}; install Rust, https://rustup.rs"))
}

/// The part of `cargo metadata` that says what there is to build.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

impl Metadata {
    fn choose(&self, manifest: &Path, wanted: Option<&str>, release: bool) -> Result<Plugin, String> {
        let libraries: Vec<(&Package, &Target)> = self
            .packages
            .iter()
            .filter_map(|package| Some((package, package.targets.iter().find(|target| target.is_library())?)))
            .collect();
        let named = |package: &Package| match wanted {
            Some(wanted) => package.name == wanted,
            None => package.manifest_path == manifest,
        };
        let fitting = libraries.iter().find(|(package, _)| named(package));
        let (package, target) = match (fitting, libraries.as_slice()) {
            (Some(fitting), _) => fitting,
            (None, [only]) if wanted.is_none() => only,
            _ => return Err(told(&libraries, wanted)),
        };
        let profile = if release { "release" } else { "debug" };
        let file = format!("{DLL_PREFIX}{}{DLL_SUFFIX}", target.name.replace('-', "_"));
        Ok(Plugin {
            package: package.name.clone(),
            folder: package.manifest_path.parent().unwrap_or(Path::new(".")).to_owned(),
            library: self.target_directory.join(profile).join(file),
            release,
        })
    }
}

impl Target {
    fn is_library(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}

fn told(libraries: &[(&Package, &Target)], wanted: Option<&str>) -> String {
    let names: Vec<&str> = libraries.iter().map(|(package, _)| package.name.as_str()).collect();
    match (wanted, names.as_slice()) {
        (_, []) => {
            "no package here makes a library that a host can load; say crate-type = [\"cdylib\"] under [lib] in its Cargo.toml".to_owned()
        }
        (Some(wanted), names) => format!("no plugin's package is called {wanted:?}; there are {}", names.join(", ")),
        (None, names) => format!("there are several plugins here; name one with --package: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &[(&str, &str)]) -> Metadata {
        let package = |(name, kind): &(&str, &str)| Package {
            name: (*name).to_owned(),
            manifest_path: format!("/w/{name}/Cargo.toml").into(),
            targets: vec![Target { name: (*name).to_owned(), crate_types: vec![(*kind).to_owned()] }],
        };
        Metadata { packages: packages.iter().map(package).collect(), target_directory: "/w/target".into() }
    }

    #[test]
    fn the_one_plugin_is_found_and_of_several_the_named_one() {
        let one = metadata(&[("lib", "rlib"), ("my-clock", "cdylib")]);
        let found = one.choose(Path::new("/w/Cargo.toml"), None, false).expect("there is one");
        let name = format!("{DLL_PREFIX}my_clock{DLL_SUFFIX}");
        assert_eq!((found.package.as_str(), &found.library), ("my-clock", &Path::new("/w/target/debug").join(&name)));
        assert_eq!(found.folder, Path::new("/w/my-clock"));

        let two = metadata(&[("a", "cdylib"), ("b", "cdylib")]);
        let error = two.choose(Path::new("/w/Cargo.toml"), None, false).expect_err("there are two");
        assert!(error.contains("--package: a, b"), "{error}");
        let found = two.choose(Path::new("/w/b/Cargo.toml"), None, true).expect("it is that folder's");
        assert!(found.package == "b" && found.library.starts_with("/w/target/release"));
        assert_eq!(two.choose(Path::new("/w/b/Cargo.toml"), Some("a"), true).expect("it is named").package, "a");
        assert!(two.choose(Path::new("/w"), Some("c"), true).is_err());
    }

    #[test]
    fn a_project_without_a_library_is_told_what_is_missing() {
        let error = metadata(&[("a", "bin")]).choose(Path::new("/w/a/Cargo.toml"), None, false).expect_err("a program");
        assert!(error.contains("crate-type"), "{error}");
    }
}
