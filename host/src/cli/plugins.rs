//! `plugins list` and `plugins inspect`. Both read files; neither runs any of their code.

use jackfield::{
    config::{Isolation, Sources},
    plugins::{self, Inspection, PluginReport},
};
use serde_json::json;

use super::{
    Exit, Failure,
    args::{InspectArgs, ListArgs},
    terminal::{Terminal, one_line, table},
    which::{find, load},
};

/// Characters of a reason or a description that a table shows; `--json` shows all.
const TEXT_CHARS: usize = 160;

/// Lists what is in the plugin folders.
pub(super) fn list(sources: Sources, args: &ListArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let config = load(sources, &args.plugins)?;
    if config.plugins.folders.is_empty() {
        terminal.message("no plugin folder is configured; name one with --plugins DIR");
    }
    let found = plugins::survey(&config.plugins, &config.limits).map_err(anyhow::Error::from)?;
    if args.json {
        terminal.data(&format!("{:#}\n", json!(found)))?;
        return Ok(None);
    }
    if found.is_empty() {
        terminal.message("no plugin was found");
        return Ok(None);
    }
    let mut rows = vec![["ID", "VERSION", "STATE", "RUNS", "TOOLS", "FILE"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(list_row));
    terminal.data(&table(&rows))?;
    for plugin in found.iter().filter(|plugin| !plugin.missing_permissions.is_empty()) {
        let missing = one_line(&plugin.missing_permissions.join(", "), TEXT_CHARS);
        let id = one_line(&plugin.id, TEXT_CHARS);
        terminal.message(&format!("{id}: asks for what is not granted in [plugins.{id}] permissions: {missing}"));
    }
    for plugin in &found {
        if let Some(reason) = &plugin.reason {
            terminal.message(&format!("{}: {}", one_line(&plugin.id, TEXT_CHARS), one_line(reason, 4 * TEXT_CHARS)));
        }
    }
    Ok(None)
}

fn list_row(plugin: &PluginReport) -> Vec<String> {
    let path = plugin.path.display().to_string();
    let version = plugin.version.as_deref().unwrap_or("-");
    let tools = if plugin.tools.is_empty() { "-".to_owned() } else { plugin.tools.join(",") };
    let runs = match plugin.isolation {
        Isolation::InProcess => "in-process",
        Isolation::Process => "isolated",
    };
    [&plugin.id, version, plugin.state, runs, &tools, &path].map(|cell| one_line(cell, TEXT_CHARS)).to_vec()
}

/// Shows what one file says about itself.
pub(super) fn inspect(sources: Sources, args: &InspectArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let config = load(sources, &args.plugins)?;
    let file = find(&args.file, &config)?;
    let found = plugins::inspect_for(&file, &config.plugins, &config.limits).map_err(anyhow::Error::from)?;
    let text = if args.json { format!("{:#}\n", json!(found)) } else { described(&found) };
    terminal.data(&text)?;
    let untrusted = found.trust.refusal.is_some().then_some(Exit::Untrusted);
    Ok(found.refusal.is_some().then_some(Exit::Incompatible).or(untrusted))
}

fn described(found: &Inspection) -> String {
    let manifest = &found.manifest;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), one_line(value, 4 * TEXT_CHARS)]);
        }
    };
    row("id", &manifest.id);
    row("version", &manifest.version);
    row("description", &manifest.description);
    row("authors", &manifest.authors.join(", "));
    row("licence", manifest.license.as_deref().unwrap_or_default());
    row("homepage", manifest.homepage.as_deref().unwrap_or_default());
    for tool in &manifest.tools {
        let effect = tool.effect.as_deref().unwrap_or("effect depends on the call, or is not declared");
        row("tool", &format!("{} ({effect})", tool.name));
    }
    row("asks for", &plugins::asked_texts(&manifest.permissions).join(", "));
    match found.isolation {
        Isolation::InProcess => row("would run", "in the server's process, with all of its rights"),
        Isolation::Process => {
            row("would run", "in a process of its own");
            row("permitted", &found.permitted.to_string());
            row("not granted", &found.missing_permissions.join(", "));
        }
    }
    row("settings", manifest.config_schema.as_ref().map(ToString::to_string).as_deref().unwrap_or_default());
    row("interface", &manifest.abi);
    row("built by", manifest.rustc.as_deref().unwrap_or_default());
    row("built for", manifest.target.as_deref().unwrap_or_default());
    row("on panic", manifest.panic.as_deref().unwrap_or_default());
    row("file", &found.path.display().to_string());
    row("size", &format!("{} bytes, {}", found.bytes, found.binary.format));
    row("sha-256", &found.sha256);
    row("signed by", &found.trust.signature);
    row("remembered", found.trust.pin);
    let why_not = found.refusal.as_deref().or(found.trust.refusal.as_deref());
    row("loads here", why_not.map(|why| format!("no: {why}")).as_deref().unwrap_or("yes"));
    table(&rows)
}
