//! Layers the sources of settings: command line over environment over `--config FILE` over the project's file over
//! the user's file over the defaults. Every value keeps its origin. The sources are values themselves, so that the
//! same sources always give the same configuration.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    ConfigError, Origin, ServerConfig,
    agent_keys::AgentKey,
    error::nearest,
    keys::{Draft, PluginKey, ProjectRule, Target},
    values::{Given, Misfit},
};
use crate::ids::PluginId;
use toml::{Table, Value};

/// The project's file, looked for in the current folder only.
const PROJECT_FILE: &str = "jackfield.toml";
/// A configuration file larger than this is something else.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Variables of features and backends that this server does not have; setting one has no effect.
const WITHOUT_EFFECT: &[&str] = &[
    "SMOOTH_AGENT_DATABASE_URL",
    "DATABASE_URL",
    "SMOOTH_AGENT_DDB_TABLE",
    "SMOOTH_AGENT_BACKPLANE",
    "SMOOTH_AGENT_BACKPLANE_URL",
    "SMOOTH_AGENT_REDIS_URL",
    "SMOOTH_AGENT_NATS_URL",
    "SMOOTH_AGENT_JUDGE_MODEL",
    "SMOOTH_AGENT_RERANK",
    "SMOOTH_AGENT_DURABLE_EXECUTOR",
    "SMOOTH_EXTENSIONS_ALLOW",
    "SMOOTH_EXTENSIONS_DIR",
    "SMOOTH_AUTO_MODE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// What the variable above already is without being set.
const NO_CHANGE: &[(&str, &str)] = &[("SMOOTH_AGENT_BACKPLANE", "memory")];

/// Where the settings come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The files that were found, in any order.
    pub files: Vec<SourceFile>,
    /// The flags that were given.
    pub flags: Vec<FlagValue>,
}

/// A file with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Whose file it is, which decides what it may set.
    pub kind: FileKind,
    /// Where it is; relative paths in it start at its folder.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The user's own, `$XDG_CONFIG_HOME/jackfield/config.toml`.
    User,
    /// The project's, `./jackfield.toml`; it may have come with a cloned repository.
    Project,
    /// The one that `--config` names.
    Explicit,
}

/// A flag of the command line and the key it sets.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagValue {
    /// The key, for example `server.port`.
    pub key: &'static str,
    /// The flag, for example `--port`.
    pub flag: &'static str,
    /// The value as given; numbers may be text.
    pub value: Value,
}

/// A configuration with the origin of each value.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: ServerConfig,
    /// One row for each setting, for `config show`.
    pub rows: Vec<Row>,
    /// What the operator should hear once.
    pub warnings: Vec<String>,
}

/// One setting as `config show` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// The value; `***` for a secret that is set.
    pub value: serde_json::Value,
    /// Where it comes from.
    pub origin: Origin,
}

impl Sources {
    /// Reads this process's environment and the files: the one named by `--config` (or `JACKFIELD_CONFIG`), the
    /// project's and the user's.
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read, or is named and is not there.
    pub fn of_process(config_file: Option<&Path>) -> Result<Self, ConfigError> {
        let env = process_env();
        let folder = std::env::current_dir().unwrap_or_default();
        Self::find(env, &folder, config_file)
    }

    /// As [`of_process`](Self::of_process), for the environment and the current folder that are passed in.
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read, or is named and is not there.
    pub fn find(
        env: BTreeMap<String, String>,
        current_folder: &Path,
        config_file: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let named =
            config_file.map(Path::to_path_buf).or_else(|| variable(&env, "JACKFIELD_CONFIG").map(PathBuf::from));
        let project = current_folder.join(PROJECT_FILE);
        let mut files = Vec::new();
        if let Some(path) = user_file(&env) {
            files.extend(read_if_there(FileKind::User, path)?);
        }
        // A project file that the operator names is the operator's word.
        if named.as_deref().is_none_or(|named| !same_file(&current_folder.join(named), &project)) {
            files.extend(read_if_there(FileKind::Project, project)?);
        }
        if let Some(path) = named {
            let text = read(&current_folder.join(&path)).map_err(|reason| unreadable(&path, &reason))?;
            files.push(SourceFile { kind: FileKind::Explicit, path, text });
        }
        Ok(Self { env, files, flags: Vec::new() })
    }

    /// Joins the sources.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut entries = self.file_entries()?;
        entries.extend(self.env_entries()?);
        entries.extend(self.flag_entries());
        entries.retain(|entry| !entry.is_blank());
        // Stable, so that of two equal origins the one given first stays first.
        entries.sort_by(|left, right| left.origin.cmp(&right.origin));
        for entry in &entries {
            self.check_project_rule(entry, &entries)?;
        }
        let winners = self.winners(&entries);
        let mut draft = Draft::default();
        for entry in winners.values() {
            self.apply(entry, &mut draft)?;
        }
        let config = draft.finish()?;
        let rows = rows(&config, &winners);
        Ok(Loaded { config, rows, warnings: self.warnings() })
    }

    /// The strongest entry of each target.
    fn winners<'a>(&self, entries: &'a [Entry]) -> BTreeMap<String, &'a Entry> {
        entries.iter().map(|entry| (entry.target.name(), entry)).collect()
    }

    fn apply(&self, entry: &Entry, draft: &mut Draft) -> Result<(), ConfigError> {
        let given = Given {
            value: &entry.value,
            from_text: matches!(entry.origin, Origin::Env(_) | Origin::Flag(_)),
            folder: entry.folder.as_deref(),
            env: &self.env,
        };
        entry.target.set(draft, &given).map_err(|Misfit { expected, found }| ConfigError::BadValue {
            origin: entry.origin.clone(),
            key: entry.target.name(),
            expected,
            found,
        })
    }

    /// A project file may come with a cloned repository: it may neither load code nor open anything.
    fn check_project_rule(&self, entry: &Entry, entries: &[Entry]) -> Result<(), ConfigError> {
        let Origin::ProjectFile(path) = &entry.origin else { return Ok(()) };
        let (path, key, flag) = (path.clone(), entry.target.name(), entry.target.flag());
        match entry.target.project() {
            ProjectRule::Always => Ok(()),
            ProjectRule::Never => Err(ConfigError::NotForProjects { path, key, flag }),
            ProjectRule::Inside => {
                let mut with = Draft::default();
                self.apply(entry, &mut with)?;
                let folder = path.parent().unwrap_or(Path::new("."));
                match entry.target.paths(&with.config).iter().find(|found| !is_below(found, folder)) {
                    None => Ok(()),
                    Some(outside) => {
                        Err(ConfigError::OutsideProject { path: path.clone(), key, outside: outside.clone(), flag })
                    }
                }
            }
            ProjectRule::Tighter => {
                let mut below = Draft::default();
                let weaker = entries.iter().filter(|other| other.origin < entry.origin);
                for other in weaker.filter(|other| other.target.name() == key) {
                    self.apply(other, &mut below)?;
                }
                let mut with = Draft::default();
                self.apply(entry, &mut with)?;
                if entry.target.tightness(&with.config) <= entry.target.tightness(&below.config) {
                    return Ok(());
                }
                let wanted = plain(&entry.target.show(&with.config));
                let allowed = plain(&entry.target.show(&below.config));
                Err(ConfigError::NotTighter { path, key, wanted, allowed, flag })
            }
        }
    }

    fn file_entries(&self) -> Result<Vec<Entry>, ConfigError> {
        let mut entries = Vec::new();
        for file in &self.files {
            let table = parse(file)?;
            let origin = match file.kind {
                FileKind::User => Origin::UserFile(file.path.clone()),
                FileKind::Project => Origin::ProjectFile(file.path.clone()),
                FileKind::Explicit => Origin::ConfigFile(file.path.clone()),
            };
            for (section, value) in table {
                let Value::Table(keys) = value else { return Err(unknown(&origin, &section, key_names())) };
                for (key, value) in keys {
                    let folder = file.path.parent().map(Path::to_path_buf);
                    let found = place(&origin, &section, &key, value)?;
                    entries.extend(found.into_iter().map(|(target, value)| Entry {
                        target,
                        origin: origin.clone(),
                        value,
                        folder: folder.clone(),
                    }));
                }
            }
        }
        Ok(entries)
    }

    fn env_entries(&self) -> Result<Vec<Entry>, ConfigError> {
        let mut entries = Vec::new();
        for target in Target::fixed() {
            // Weakest first, because of equal origins the last one wins.
            for name in target.env_names().into_iter().rev() {
                let Some(text) = variable(&self.env, &name) else { continue };
                // Exactly `1` is what this name has always meant.
                let value = match name.as_str() {
                    "SMOOTH_AGENT_SEED_KB" => Value::Boolean(text == "1"),
                    _ => Value::String(text.to_owned()),
                };
                entries.retain(|entry: &Entry| entry.target.name() != target.name());
                entries.push(Entry { target: target.clone(), origin: Origin::Env(name), value, folder: None });
            }
        }
        let known: Vec<String> = Target::fixed().map(|target| target.env_name()).collect();
        let ours = self.env.keys().filter(|name| name.starts_with("JACKFIELD_") && name.contains("__"));
        for name in ours {
            if !known.contains(name) {
                return Err(unknown(&Origin::Env("the environment".into()), name, known));
            }
        }
        Ok(entries)
    }

    fn flag_entries(&self) -> impl Iterator<Item = Entry> {
        self.flags.iter().map(|flag| Entry {
            target: Target::fixed()
                .find(|target| target.name() == flag.key)
                .expect("every flag sets a key of the list of settings"),
            origin: Origin::Flag(flag.flag.to_owned()),
            value: flag.value.clone(),
            folder: None,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let ignored = |name: &&&str| {
            let value = variable(&self.env, name);
            value.is_some_and(|value| !NO_CHANGE.iter().any(|(other, same)| other == *name && value == *same))
        };
        let ignored: Vec<&str> = WITHOUT_EFFECT.iter().filter(ignored).copied().collect();
        let mut warnings = Vec::new();
        if !ignored.is_empty() {
            warnings.push(format!("these variables have no effect in this server: {}", ignored.join(", ")));
        }
        warnings
    }
}

/// One value of one source.
struct Entry {
    target: Target,
    origin: Origin,
    value: Value,
    folder: Option<PathBuf>,
}

impl Entry {
    /// An empty text counts as not written.
    fn is_blank(&self) -> bool {
        self.value.as_str().is_some_and(|text| text.trim().is_empty())
    }
}

/// What a key of a file sets: one target, or several for the table of a plugin or an agent.
fn place(origin: &Origin, section: &str, key: &str, value: Value) -> Result<Vec<(Target, Value)>, ConfigError> {
    let name = format!("{section}.{key}");
    if let Some(target) = Target::fixed().find(|target| target.name() == name) {
        return Ok(vec![(target, value)]);
    }
    // In these sections a table that is not a setting belongs to what it is named after.
    let targets: Vec<Target> = match section {
        "plugins" => PluginKey::ALL.map(|plugin_key| Target::Plugin(PluginId::new(key), plugin_key)).into(),
        "agents" => AgentKey::ALL.map(|agent_key| Target::Agent(key.to_owned(), agent_key)).into(),
        _ => Vec::new(),
    };
    let (false, Value::Table(settings)) = (targets.is_empty(), value) else {
        return Err(unknown(origin, &name, key_names()));
    };
    let entry = |(written, value): (String, Value)| {
        let written = format!("{name}.{written}");
        let found = targets.iter().find(|target| target.name() == written).cloned();
        let found = found.ok_or_else(|| unknown(origin, &written, targets.iter().map(Target::name)));
        Ok((found?, value))
    };
    settings.into_iter().map(entry).collect()
}

fn key_names() -> Vec<String> {
    Target::fixed().map(|target| target.name()).collect()
}

fn unknown(origin: &Origin, key: &str, names: impl IntoIterator<Item = String>) -> ConfigError {
    let names: Vec<String> = names.into_iter().collect();
    let suggestion = nearest(key, names.iter().map(String::as_str));
    ConfigError::UnknownKey { origin: origin.clone(), key: key.to_owned(), suggestion }
}

fn rows(config: &ServerConfig, winners: &BTreeMap<String, &Entry>) -> Vec<Row> {
    let is_named = |target: &Target| matches!(target, Target::Plugin(..) | Target::Agent(..));
    let named = winners.values().map(|entry| entry.target.clone()).filter(is_named);
    let row = |target: Target| {
        let key = target.name();
        let origin = winners.get(&key).map_or(Origin::Default, |entry| entry.origin.clone());
        Row { value: target.show(config), key, origin }
    };
    Target::fixed().chain(named).map(row).collect()
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn parse(file: &SourceFile) -> Result<Table, ConfigError> {
    file.text.parse::<Table>().map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = 1 + file.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        // Only the parser's sentence: its picture of the line could hold a secret.
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        ConfigError::Syntax { path: file.path.clone(), line, reason }
    })
}

/// The environment of this process. Values that are not Unicode are replaced, and then fail where they are read.
pub(super) fn process_env() -> BTreeMap<String, String> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// The folder for what outlives the process: `$XDG_STATE_HOME/jackfield`, or under the home folder.
pub fn state_folder(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    base_folder(env, "XDG_STATE_HOME", &[".local", "state"])
}

fn user_file(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    Some(base_folder(env, "XDG_CONFIG_HOME", &[".config"])?.join("config.toml"))
}

fn base_folder(env: &BTreeMap<String, String>, name: &str, below_home: &[&str]) -> Option<PathBuf> {
    let base = match variable(env, name) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = variable(env, "HOME").or_else(|| variable(env, "USERPROFILE"))?;
            below_home.iter().fold(PathBuf::from(home), |path, part| path.join(part))
        }
    };
    Some(base.join("jackfield"))
}

/// A variable, trimmed; empty counts as unset.
fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

fn read_if_there(kind: FileKind, path: PathBuf) -> Result<Option<SourceFile>, ConfigError> {
    match read(&path) {
        Ok(text) => Ok(Some(SourceFile { kind, path, text })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("{size} bytes are more than a configuration file may have (1 MiB)")));
    }
    std::fs::read_to_string(path)
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_path_buf(), reason: error.to_string() }
}

/// Whether a path stays in a folder once its links are followed. Of a path that is not there, the part that is has to.
fn is_below(path: &Path, folder: &Path) -> bool {
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    let there = match path.canonicalize() {
        Ok(there) => Some(there),
        Err(_) if climbs => None,
        Err(_) => path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()),
    };
    match (there, folder.canonicalize()) {
        (Some(there), Ok(folder)) => there.starts_with(folder),
        // Where not even the folder is there, nothing can be read either.
        (_, Err(_)) => !climbs && path.starts_with(folder),
        (None, Ok(_)) => false,
    }
}

fn same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
