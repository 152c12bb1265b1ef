//! Collects the sources of the author's crates, so that the binary can put them beside a plugin without a network.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

/// The folder of the author's crates, beside the host's.
const FOLDER: &str = "plugin-api";
/// What an author needs of these crates is neither their tests nor what was built of them.
const LEFT_OUT: [&str; 2] = ["tests", "target"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = host.parent().ok_or("the host is a folder of the workspace")?;
    let mut files = Vec::new();
    collect(&root.join(FOLDER), &mut files)?;
    files.sort();

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.join(FOLDER).display());
    let list = List { root, files: &files };
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("author_sources.rs"), list.to_string())?;
    Ok(())
}

/// Every file below a folder, without hidden ones.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if !LEFT_OUT.contains(&name.as_str()) {
                collect(&entry.path(), files)?;
            }
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// An expression: a slice of paths below the workspace and the texts that are there.
struct List<'a> {
    root: &'a Path,
    files: &'a [PathBuf],
}

impl fmt::Display for List<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "&[")?;
        for file in self.files {
            let name = file.strip_prefix(self.root).unwrap_or(file).to_string_lossy().replace('\\', "/");
            writeln!(formatter, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
        }
        writeln!(formatter, "]")
    }
}
