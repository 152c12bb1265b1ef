//! What the workspace is built from: licences that everybody may use, one asynchronous runtime, one HTTP and one TLS
//! library, and none of those that need more than a C compiler.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::sources::root;

/// Licences that ask for no more than being named.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];
/// Packages with a licence of their own that asks for no more as long as they are used as they are.
const LICENCE_EXCEPTIONS: &[(&str, &str)] = &[
    // Of abi_stable; changes to its own files would have to be published, and nobody changes them.
    ("generational-arena", "MPL-2.0"),
];
/// A second TLS library, or one that has to be built with more than a C compiler.
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];
/// A second version of these would mean two of something that there is one of.
const ONCE: &[&str] = &["tokio", "axum", "hyper", "rustls", "tokio-tungstenite", "serde", "serde_json"];

#[test]
fn the_workspace_is_built_from_what_is_agreed() {
    let packages = packages();
    assert!(packages.len() > 50, "cargo metadata lists too few packages");
    let wrong = findings(&packages);
    assert!(wrong.is_empty(), "packages that do not belong here:\n{}", wrong.join("\n"));
}

struct Package {
    name: String,
    version: String,
    licence: Option<String>,
}

fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--locked"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let package = |package: &Value| Package {
        name: text(package, "name").expect("a package has a name"),
        version: text(package, "version").expect("a package has a version"),
        licence: text(package, "license"),
    };
    metadata["packages"].as_array().expect("there are packages").iter().map(package).collect()
}

fn findings(packages: &[Package]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Package { name, version, licence } in packages {
        versions.entry(name).or_default().push(version);
        if BANNED.contains(&name.as_str()) {
            wrong.push(format!("{name} {version} is banned"));
        }
        match licence.as_deref() {
            Some(licence) if may_be_used(licence) || LICENCE_EXCEPTIONS.contains(&(name, licence)) => {}
            licence => wrong.push(format!("{name} {version} has the licence {licence:?}")),
        }
    }
    for name in ONCE {
        if let Some(versions) = versions.get(name).filter(|versions| versions.len() > 1) {
            wrong.push(format!("{name} is there {} times: {}", versions.len(), versions.join(", ")));
        }
    }
    wrong
}

/// Whether a licence expression leaves a way that is on the list. `/` is an old way to write `OR`.
fn may_be_used(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(rest: &mut &[&str]) -> bool {
    let mut fits = all_of(rest);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        fits |= all_of(rest);
    }
    fits
}

fn all_of(rest: &mut &[&str]) -> bool {
    let mut fits = one(rest);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        fits &= one(rest);
    }
    fits
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", inside @ ..] => {
            *rest = inside;
            let fits = any_of(rest);
            let closed = rest.first() == Some(&")");
            *rest = rest.get(1..).unwrap_or_default();
            fits && closed
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            LICENCES.contains(&format!("{licence} WITH {exception}").as_str()) || LICENCES.contains(licence)
        }
        [licence, after @ ..] => {
            *rest = after;
            LICENCES.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn licence_expressions_are_understood() {
    for fine in ["MIT", "MIT OR GPL-3.0", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND ISC"] {
        assert!(may_be_used(fine), "{fine}");
    }
    for wrong in ["GPL-3.0-only", "MIT AND GPL-3.0", "", "(MIT", "MIT)", "LGPL-2.1", "ISC AND (GPL-2.0 OR AGPL-3.0)"] {
        assert!(!may_be_used(wrong), "{wrong}");
    }
}

#[test]
fn each_kind_of_package_is_found() {
    let package = |name: &str, version: &str, licence: Option<&str>| Package {
        name: name.into(),
        version: version.into(),
        licence: licence.map(str::to_owned),
    };
    let fine = package("a", "1.0.0", Some("MIT"));
    let list = [
        fine,
        package("openssl", "0.10.0", Some("MIT")),
        package("b", "1.0.0", None),
        package("c", "1.0.0", Some("GPL-3.0-only")),
        package("tokio", "1.0.0", Some("MIT")),
        package("tokio", "0.2.0", Some("MIT")),
    ];
    assert_eq!(findings(&list).len(), 4);
    assert!(findings(&list[..1]).is_empty());
}
