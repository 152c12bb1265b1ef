//! `plugins new`: a plugin's project that builds, tests and loads as it is, without a network and outside of any
//! workspace. The author's crates come with it, because this binary carries their sources.

mod lock;
mod name;
mod template;
mod vendor;

use std::{fs, io, path::Path};

use serde_json::json;

use self::{
    name::PluginName,
    template::{Api, Project},
};
use super::{Exit, Failure, args::NewArgs, terminal::Terminal};

/// Where the author's crates are put, below the project.
const VENDOR: &str = "vendor";
/// The version that a fresh plugin has.
const VERSION: &str = "0.1.0";

/// Makes the project and says what to do with it.
pub(super) fn new(args: &NewArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let wrong = |message: String| Failure::new(Exit::Usage, message);
    let name = PluginName::of_folder(&args.name).map_err(wrong)?;
    let api = args.api.as_deref().map_or(Ok(Api::Vendored), read_api).map_err(wrong)?;
    let project = Project { name: &name, api: &api };
    let mut files = project.files();
    files.extend(lock_and_vendored(&name, &api));
    write_all(&args.name, &files)?;
    let text = match args.json {
        true => {
            let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
            format!("{:#}\n", json!({ "id": name.id(), "folder": args.name, "files": paths }))
        }
        false => next_steps(&args.name, &name),
    };
    terminal.data(&text)?;
    Ok(None)
}

fn lock_and_vendored(name: &PluginName, api: &Api) -> Vec<(String, String)> {
    let lock = ("Cargo.lock".to_owned(), lock::lock_file(name.id(), VERSION));
    match api {
        // Cargo chooses its own versions beside one from the registry.
        Api::Version(_) => Vec::new(),
        Api::Path(_) => vec![lock],
        Api::Vendored => {
            let vendored = vendor::files().into_iter().map(|file| (format!("{VENDOR}/{}", file.path), file.text));
            vendored.chain([lock]).collect()
        }
    }
}

/// A folder with the crate, or a version of the registry's.
fn read_api(text: &str) -> Result<Api, String> {
    let folder = Path::new(text);
    if !text.is_empty() && folder.join("Cargo.toml").is_file() {
        let absolute = folder.canonicalize().map_err(|error| format!("--api {text}: {error}"))?;
        return Ok(Api::Path(absolute));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) && text.split('.').all(|part| part.parse::<u32>().is_ok())
    {
        return Ok(Api::Version(text.to_owned()));
    }
    Err(format!("--api: expected a folder with the crate jackfield-plugin-api or a version such as 0.1, got {text:?}"))
}

/// Writes the project into a folder of its own; what there is already is never touched.
fn write_all(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("{}: {error}", folder.display()));
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            let message = format!("{} is there already and not empty; choose another name", folder.display());
            return Err(Failure::new(Exit::Failure, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().expect("every file is below the project's folder");
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).map_err(|error| {
            Failure::new(
                Exit::Failure,
                format!("{}: {error}; the project is not whole, remove {}", path.display(), folder.display()),
            )
        })?;
    }
    Ok(())
}

fn next_steps(folder: &Path, name: &PluginName) -> String {
    let folder = folder.display();
    format!(
        "made {folder}, a plugin with one tool, {tool}

  cd {folder}
  cargo test          # its tests, without a server
  jackfield dev       # builds it, loads it, reloads it at every change, and lets you call it

The tool is in src/lib.rs, README.md says the rest.
",
        tool = name.tool()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_a_folder_or_a_version() {
        assert!(matches!(read_api("0.1"), Ok(Api::Version(version)) if version == "0.1"));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api");
        assert!(matches!(read_api(folder), Ok(Api::Path(path)) if path.is_absolute()));
        for wrong in ["", "latest", "/nowhere", "1.x"] {
            assert!(read_api(wrong).is_err_and(|error| error.contains("expected")), "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("jackfield-new-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let files = [("a/b.txt".to_owned(), "text".to_owned())];
        assert!(write_all(&folder, &files).is_ok(), "an empty folder will do");
        let error = write_all(&folder, &files).expect_err("it is not empty any more");
        assert!(error.message.contains("not empty"), "{}", error.message);
        let missing = folder.join("deeper/still");
        assert!(write_all(&missing, &files).is_ok() && missing.join("a/b.txt").exists());
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
}
