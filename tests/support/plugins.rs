//! Real plugin files for tests: built once, as a stranger would build them, and put into folders that a server loads.
//!
//! Everything is built under `target/`, in workspaces of its own with the main `Cargo.lock` beside it, so that it
//! needs nothing that the main build has not fetched already. Tests may run as threads or as processes of their own;
//! a lock file makes the builds take turns.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use tempfile::TempDir;

/// A folder of plugin files; removed with its value.
pub struct PluginFolder {
    folder: TempDir,
}

impl Default for PluginFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl PluginFolder {
    /// An empty folder.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("jackfield-plugins-of-a-test-").tempdir();
        Self { folder: folder.expect("a temporary folder can be made") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Copies a built library into the folder.
    #[must_use]
    pub fn with(self, library: &Path) -> Self {
        let name = library.file_name().and_then(|name| name.to_str()).expect("libraries have plain names");
        let bytes = fs::read(library).expect("the built library can be read");
        self.with_file(name, &bytes)
    }

    /// Writes a file into the folder.
    #[must_use]
    pub fn with_file(self, name: &str, bytes: &[u8]) -> Self {
        write(&self.path().join(name), bytes);
        self
    }

    /// Puts the misbehaving fixture into the folder under an id of its own, `fixture_` and two characters. Each id is
    /// a library of its own.
    #[must_use]
    pub fn with_fixture(self, id: &str) -> Self {
        self.with_file(&library_name(id), &fixture(id, 0))
    }

    /// Puts content in place of a file, or of nothing, at one stroke.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let aside = self.path().join(format!(".{name}.new"));
        write(&aside, bytes);
        fs::rename(&aside, self.path().join(name)).expect("the file can be moved into place");
    }

    /// Overwrites a file in place, as a plain copy does.
    pub fn overwrite(&self, name: &str, bytes: &[u8]) {
        write(&self.path().join(name), bytes);
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("the file can be removed");
    }
}

/// The misbehaving fixture under an id of its own, and with a mark of its own that its tool `mark` tells: each mark is
/// another content.
pub fn fixture(id: &str, mark: u16) -> Vec<u8> {
    let id = format!(r#""id":"{id}""#);
    let mark = format!("mark {mark:04} of the library");
    patched(misbehave(), &[(r#""id":"fixture_00""#, &id), ("mark 0000 of the library", &mark)])
}

/// The fixture whose tools and modes misbehave; its id is `fixture_00`.
pub fn misbehave() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&fixtures_workspace(), "fixture_misbehave", &[]))
}

/// The fixture that speaks the binary interface by hand; its id is `fixture_raw`.
pub fn raw() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&fixtures_workspace(), "fixture_raw", &[]))
}

/// The clock plugin that ships; its id is `clock`.
pub fn clock() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Workspace { folder: root(), target: root().join("target") };
        build_library(&workspace, "jackfield-plugin-clock-dylib", "clock", &[])
    })
}

/// The `jackfield` program.
pub fn jackfield() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build_program(&Workspace { folder: root(), target: root().join("target") }, "jackfield"))
}

/// Builds a plugin crate that is in no workspace: a package of one file, in a folder outside of this repository, that
/// depends on the author's crate by path.
pub fn outside(name: &str, source: &str) -> PathBuf {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let manifest = format!(
        r#"
[package]
name = "{name}"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
jackfield-plugin-api = {{ path = {api:?} }}
serde = {{ version = "1", features = ["derive"] }}
"#,
        api = root().join("plugin-api")
    );
    write(&folder.path().join("Cargo.toml"), manifest.as_bytes());
    write(&folder.path().join("src/lib.rs"), source.as_bytes());
    copy_lock(folder.path());
    let workspace = Workspace { folder: folder.path().to_owned(), target: target() };
    build(&workspace, name, &[])
}

/// Today's interface with a method appended to each trait that may grow, as version 1.1.0: what a newer side will
/// be. Its workspace holds the fixtures and the program `fixture_loader`.
pub fn newer() -> Workspace {
    let folder = root().join("target/fixtures-next");
    let _turn = take_turn();
    copy_changed(&root().join("plugin-api"), &folder.join("plugin-api"), &grown);
    copy_changed(&root().join("tests/fixtures"), &folder, &|path, text| match path.file_name() {
        Some(name) if name == "Cargo.toml" => text.replace("../../../plugin-api", "../plugin-api"),
        _ => text,
    });
    write_if_changed(&folder.join("Cargo.toml"), newer_manifest().as_bytes());
    copy_lock(&folder);
    Workspace { folder, target: target() }
}

/// What the newer interface has appended; each gives a number of its own, so that a test sees whose body ran.
const APPENDED: [(&str, &str); 3] = [
    ("pub trait HostAbi", "fn appended_to_host(&self) -> u32 { 41 }"),
    ("pub trait ProviderAbi", "fn appended_to_provider(&self) -> u32 { 42 }"),
    ("pub trait ToolAbi", "fn appended_to_tool(&self) -> u32 { 43 }"),
];

fn grown(path: &Path, text: String) -> String {
    const MARK: &str = "// --- appended after 1.0 goes below ---";
    if path.ends_with("abi/Cargo.toml") {
        let grown = text.replace("version = \"1.0.0\"", "version = \"1.1.0\"");
        assert_ne!(grown, text, "the interface is version 1.0.0");
        return grown;
    }
    if !path.ends_with("abi/src/objects.rs") {
        return text;
    }
    APPENDED.iter().fold(text, |text, (owner, method)| {
        let owner = text.find(owner).unwrap_or_else(|| panic!("{owner} is in {}", path.display()));
        let mark = text[owner..].find(MARK).expect("each trait has its mark") + owner;
        format!("{}{method}\n    {}", &text[..mark], &text[mark..])
    })
}

/// The main workspace's settings around other members.
fn newer_manifest() -> String {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the main Cargo.toml can be read");
    let mut manifest: toml::Table = text.parse().expect("the main Cargo.toml is TOML");
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut).expect("it is a workspace");
    let members = ["plugin-api", "plugin-api/abi", "misbehave", "raw", "loader"];
    workspace.insert("members".to_owned(), members.map(toml::Value::from).to_vec().into());
    workspace.remove("default-members");
    workspace.remove("exclude");
    manifest.to_string()
}

/// The content of a built library with some of its bytes replaced by as many others: another id, another version.
pub fn patched(library: &Path, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = fs::read(library).expect("the built library can be read");
    for (from, to) in changes {
        assert_eq!(from.len(), to.len(), "a patch must not move anything: {from} -> {to}");
        let places: Vec<usize> = bytes
            .windows(from.len())
            .enumerate()
            .filter(|(_, window)| *window == from.as_bytes())
            .map(|(at, _)| at)
            .collect();
        assert!(!places.is_empty(), "{from} is not in {}", library.display());
        for at in places {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

/// The file name of a library on this system, without the `lib` in front that some systems put there.
pub fn library_name(stem: &str) -> String {
    format!("{stem}.{}", std::env::consts::DLL_EXTENSION)
}

/// A workspace that is built for tests.
pub struct Workspace {
    /// Where its `Cargo.toml` is.
    pub folder: PathBuf,
    /// Where it is built.
    pub target: PathBuf,
}

/// Builds one library package and returns a copy of its library that no later build touches.
pub fn build(workspace: &Workspace, package: &str, features: &[&str]) -> PathBuf {
    build_library(workspace, package, package, features)
}

fn build_library(workspace: &Workspace, package: &str, library: &str, features: &[&str]) -> PathBuf {
    let _turn = take_turn();
    run_cargo(workspace, package, features);
    let name = format!("{}{}", std::env::consts::DLL_PREFIX, library_name(library));
    let built = workspace.target.join("debug").join(name);
    let folder = target().join("built").join(workspace.folder.file_name().unwrap_or_default());
    let kept = folder.join(library_name(library));
    // Written aside and renamed, because another test may be reading the one of an earlier build.
    let bytes = fs::read(&built).unwrap_or_else(|error| panic!("{} was not built: {error}", built.display()));
    let aside = folder.join(format!("{library}.{}.new", std::process::id()));
    write(&aside, &bytes);
    fs::rename(&aside, &kept).expect("the library can be moved into place");
    kept
}

/// Builds one package of a workspace and returns the program of that name.
pub fn build_program(workspace: &Workspace, package: &str) -> PathBuf {
    let _turn = take_turn();
    run_cargo(workspace, package, &[]);
    workspace.target.join("debug").join(format!("{package}{}", std::env::consts::EXE_SUFFIX))
}

fn run_cargo(workspace: &Workspace, package: &str, features: &[&str]) {
    let run = |more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&workspace.folder).args(["build", "--quiet", "--package", package]).args(more);
        if !features.is_empty() {
            cargo.args(["--features", &features.join(",")]);
        }
        cargo.env("CARGO_TARGET_DIR", &workspace.target);
        // What the outer build was told is not for this one: lints, coverage and wrappers would build everything anew.
        for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        cargo.output().expect("cargo can be started")
    };
    // All that is needed was fetched for the main build; the network is asked only if that is not so.
    let offline = run(&["--offline"]);
    if offline.status.success() {
        return;
    }
    let online = run(&[]);
    assert!(
        online.status.success(),
        "{package} does not build:\n{}\n(offline: {})",
        String::from_utf8_lossy(&online.stderr),
        String::from_utf8_lossy(&offline.stderr)
    );
}

/// `tests/fixtures`, copied under `target/` at the same depth, so that its paths still hold.
fn fixtures_workspace() -> Workspace {
    static COPIED: Mutex<bool> = Mutex::new(false);
    let folder = root().join("target/fixtures-src");
    let mut copied = COPIED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*copied {
        let _turn = take_turn();
        copy_sources(&root().join("tests/fixtures"), &folder);
        copy_lock(&folder);
        *copied = true;
    }
    Workspace { folder, target: target() }
}

/// Copies a folder of sources.
fn copy_sources(from: &Path, to: &Path) {
    copy_changed(from, to, &|_, text| text);
}

/// Copies a folder of sources and changes some on the way. What is there already with the right content is left
/// alone, so that cargo sees no news where there are none.
fn copy_changed(from: &Path, to: &Path, change: &dyn Fn(&Path, String) -> String) {
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{} cannot be read: {error}", from.display()));
    for entry in entries.map(|entry| entry.expect("a folder's entry can be read")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            if entry.file_name() != "target" {
                copy_changed(&from, &to, change);
            }
            continue;
        }
        // An editor's left-overs need not be text, and are no sources.
        let Ok(text) = fs::read_to_string(&from) else { continue };
        write_if_changed(&to, change(&from, text).as_bytes());
    }
    remove_stale_sources(from, to);
}

/// Removes the sources of an earlier copy that are not there any more: two files of one module do not build.
fn remove_stale_sources(from: &Path, to: &Path) {
    for entry in fs::read_dir(to).into_iter().flatten().filter_map(Result::ok) {
        let is_source = entry.path().extension().is_some_and(|suffix| suffix == "rs");
        if is_source && !from.join(entry.file_name()).exists() {
            fs::remove_file(entry.path()).expect("a stale source can be removed");
        }
    }
}

/// Puts the main lock file beside a workspace's `Cargo.toml`; cargo drops from it what is not needed there.
fn copy_lock(folder: &Path) {
    let lock = fs::read(root().join("Cargo.lock")).expect("the main Cargo.lock can be read");
    write(&folder.join("Cargo.lock"), &lock);
}

/// Writes a file unless it has that content already.
fn write_if_changed(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return;
    }
    write(path, bytes);
}

fn write(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("files are in folders");
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, bytes)).and_then(|()| make_safe(path));
    written.unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
}

/// A server loads no file that everybody may change, which the default of some systems would make of ours.
#[cfg(unix)]
fn make_safe(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_safe(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The repository.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a folder of the repository").to_owned()
}

/// Where fixtures are built, all in one folder, so that what they depend on is built once.
pub fn target() -> PathBuf {
    root().join("target/fixtures")
}

/// One build at a time, among threads and among processes; over when the file is closed.
fn take_turn() -> File {
    fs::create_dir_all(target()).expect("the target folder can be made");
    let file = File::create(target().join("turn.lock")).expect("the lock file can be made");
    #[cfg(unix)]
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("the lock file can be locked");
    file
}
