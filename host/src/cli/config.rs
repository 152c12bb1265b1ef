//! `config show`, `config check`, `config init` and `config schema`.

use std::{fs, io::Write, path::Path};

use jackfield::config::{Loaded, Sources, file_schema, template, user_file};
use serde_json::json;

use super::{
    Exit, Failure,
    args::{InitArgs, SettingsArgs, ShowArgs},
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

/// Writes a file to begin with, where there is none.
pub(super) fn init(sources: &Sources, args: &InitArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let no_home = || Failure::new(Exit::Usage, "there is no home folder; name the file: jackfield config init FILE");
    let path = args.file.clone().or_else(|| user_file(&sources.env)).ok_or_else(no_home)?;
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it is there already, and is left as it is".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Exit::Failure, format!("{}: {reason}", path.display()))
    };
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(template().as_bytes()).map_err(failed)?;
    terminal.data(&format!("{}\n", path.display()))?;
    Ok(None)
}

/// Prints the JSON Schema of configuration files.
pub(super) fn schema(terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    terminal.data(&format!("{:#}\n", file_schema()))?;
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
