//! Records which compiler builds a plugin and for what, so that its manifest can say so.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo::rustc-env=JACKFIELD_RUSTC={}", version.trim());
    println!("cargo::rustc-env=JACKFIELD_TARGET={}", env::var("TARGET").unwrap_or_default());
}
