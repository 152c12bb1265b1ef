//! `config show` and `config check`.

use jackfield::config::{Loaded, Sources};
use serde_json::json;

use super::{
    Exit, Failure,
    args::{SettingsArgs, ShowArgs},
    terminal::{Terminal, one_line, table},
};

/// Characters of a value that the table shows; `--json` shows all.
const VALUE_CHARS: usize = 60;

/// Prints every setting as it holds.
pub(super) fn show(sources: Sources, args: &ShowArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let loaded = load(sources, &args.settings, terminal)?;
    if args.json {
        let row = |row: &jackfield::config::Row| match args.origin {
            true => (row.key.clone(), json!({"value": row.value, "origin": row.origin.to_string()})),
            false => (row.key.clone(), row.value.clone()),
        };
        let all: serde_json::Map<_, _> = loaded.rows.iter().map(row).collect();
        terminal.data(&format!("{:#}\n", json!(all)))?;
        return Ok(None);
    }
    let row = |row: &jackfield::config::Row| {
        let mut cells = vec![row.key.clone(), one_line(&row.value.to_string(), VALUE_CHARS)];
        if args.origin {
            cells.push(row.origin.to_string());
        }
        cells
    };
    let rows: Vec<Vec<String>> = loaded.rows.iter().map(row).collect();
    terminal.data(&table(&rows))?;
    Ok(None)
}

/// Says whether the configuration can be used by `serve`.
pub(super) fn check(sources: Sources, args: &SettingsArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let files: Vec<String> = sources.files.iter().map(|file| file.path.display().to_string()).collect();
    load(sources, args, terminal)?.config.require_memory()?;
    let read = if files.is_empty() { "no file".to_owned() } else { files.join(", ") };
    terminal.data(&format!("the configuration can be used (read: {read}, and the environment)\n"))?;
    Ok(None)
}

fn load(mut sources: Sources, args: &SettingsArgs, terminal: &Terminal) -> Result<Loaded, Failure> {
    sources.flags = args.flags();
    let loaded = sources.load()?;
    for warning in &loaded.warnings {
        terminal.message(&format!("{} {warning}", terminal.strong("warning:")));
    }
    Ok(loaded)
}
