//! What the operator grants to an isolated plugin: `[plugins.ID] permissions`.

use std::{collections::BTreeMap, path::PathBuf};

use jackfield_plugin_api::GatewayKey;
use serde_json::json;
use toml::{Table, Value};

use super::values::{Given, Misfit};

/// What a plugin that runs isolated may touch. It counts only as far as the plugin's manifest asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginPermissions {
    /// Where it may connect to: `HOST:PORT`, `HOST`, `*.DOMAIN:PORT` or `*`. The ports are enforced, the hosts are not.
    pub network: Vec<String>,
    /// Files and folders that it may read, absolute.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may read and change, absolute.
    pub write: Vec<PathBuf>,
    /// Programs that it may start.
    pub exec: ExecPermission,
    /// Variables that it gets, with their values here; a variable that is not set is not passed.
    pub env: BTreeMap<String, Option<GatewayKey>>,
}

/// Programs that a plugin may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecPermission {
    /// These, absolute. Empty for none.
    Programs(Vec<PathBuf>),
    /// Any, in a sandbox that the plugin builds. The plugin itself is not fenced in then, because it could not build
    /// one.
    Sandbox,
}

impl Default for ExecPermission {
    fn default() -> Self {
        ExecPermission::Programs(Vec::new())
    }
}

const EXPECTED: &str = "a table with network, read, write, exec and env";
const SANDBOX: &str = "sandbox";

/// Reads the table.
pub(super) fn read(given: &Given<'_>) -> Result<PluginPermissions, Misfit> {
    let Value::Table(table) = given.value else { return Err(given.misfit(EXPECTED)) };
    let known = ["network", "read", "write", "exec", "env"];
    if let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Misfit { expected: EXPECTED.to_owned(), found: format!("the key {unknown:?}") });
    }
    let list = |key: &str| within(given, table, key, |given| given.list());
    let paths = |key: &str| within(given, table, key, absolute_paths);
    let exec = match table.get("exec") {
        Some(Value::String(word)) if word == SANDBOX => ExecPermission::Sandbox,
        Some(Value::String(word)) => {
            let expected = format!("a list of programs, or \"{SANDBOX}\"");
            return Err(Misfit { expected, found: format!("{word:?}") });
        }
        _ => ExecPermission::Programs(paths("exec")?),
    };
    let env = list("env")?.into_iter().map(|name| {
        let value = given.env.get(&name).map(|value| GatewayKey::new(value.as_str()));
        (name, value)
    });
    Ok(PluginPermissions {
        network: list("network")?,
        read: paths("read")?,
        write: paths("write")?,
        exec,
        env: env.collect(),
    })
}

/// The values of variables are not shown.
pub(super) fn show(permissions: &PluginPermissions) -> serde_json::Value {
    let PluginPermissions { network, read, write, exec, env } = permissions;
    let exec = match exec {
        ExecPermission::Programs(programs) => json!(programs),
        ExecPermission::Sandbox => json!(SANDBOX),
    };
    json!({ "network": network, "read": read, "write": write, "exec": exec, "env": env.keys().collect::<Vec<_>>() })
}

fn within<T: Default>(
    given: &Given<'_>,
    table: &Table,
    key: &str,
    read: impl Fn(&Given<'_>) -> Result<T, Misfit>,
) -> Result<T, Misfit> {
    let Some(value) = table.get(key) else { return Ok(T::default()) };
    read(&Given { value, ..*given })
        .map_err(|Misfit { expected, found }| Misfit { expected: format!("{expected} for {key}"), found })
}

/// Relative paths start at the folder of the file, `~/` at the home folder.
fn absolute_paths(given: &Given<'_>) -> Result<Vec<PathBuf>, Misfit> {
    let home = given.env.get("HOME").map(PathBuf::from);
    let paths = given.list()?.into_iter().map(|text| match (text.strip_prefix("~/"), &home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => given.folder.map_or_else(|| PathBuf::from(&text), |folder| folder.join(&text)),
    });
    let paths: Vec<PathBuf> = paths.map(|path| path.components().collect()).collect();
    match paths.iter().find(|path| !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..")) {
        Some(wrong) => Err(Misfit {
            expected: "absolute paths without `..`".to_owned(),
            found: format!("{:?}", wrong.display().to_string()),
        }),
        None => Ok(paths),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<PluginPermissions, Misfit> {
        let env = BTreeMap::from(
            [("HOME", "/home/ann"), ("TZ", "UTC")].map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let table: Table = text.parse().unwrap();
        let value = Value::Table(table);
        read(&Given { value: &value, from_text: false, folder: Some(Path::new("/etc/jackfield")), env: &env })
    }

    #[test]
    fn every_kind_of_permission_is_read() {
        let text = r#"
            network = ["api.example:443"]
            read = ["/data", "~/notes", "beside"]
            exec = ["/usr/bin/git"]
            env = ["TZ", "NOT_SET"]
        "#;
        let permissions = parse(text).unwrap();
        assert_eq!(permissions.network, ["api.example:443"]);
        assert_eq!(permissions.read, ["/data", "/home/ann/notes", "/etc/jackfield/beside"].map(PathBuf::from));
        assert_eq!(permissions.exec, ExecPermission::Programs(vec!["/usr/bin/git".into()]));
        assert_eq!(permissions.env["TZ"], Some(GatewayKey::new("UTC")));
        assert_eq!(permissions.env["NOT_SET"], None);
        let shown = show(&permissions).to_string();
        assert!(shown.contains("NOT_SET") && !shown.contains("UTC"), "{shown}");
        assert_eq!(parse("exec = \"sandbox\"").unwrap().exec, ExecPermission::Sandbox);
        assert_eq!(parse("").unwrap(), PluginPermissions::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, found) in [
            ("reed = []", "the key \"reed\""),
            ("exec = \"anything\"", "\"anything\""),
            ("read = [\"/data/../etc\"]", "/data/../etc"),
            ("network = 443", "443"),
        ] {
            let misfit = parse(text).unwrap_err();
            assert!(misfit.found.contains(found), "{misfit:?}");
        }
    }
}
