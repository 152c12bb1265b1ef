//! What may stand only in certain files, because it is dangerous, or because a library must stay replaceable.

use crate::sources::{self, Source, has_word};

/// Something, and where it belongs.
struct Place {
    /// Words that mark it; one is enough.
    words: &'static [&'static str],
    /// Beginnings of paths where it may stand.
    allowed: &'static [&'static str],
    why: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        words: &["unsafe"],
        allowed: &[
            "plugin-api/abi/src/",
            "plugin-api/src/export.rs",
            "host/src/plugins/load.rs",
            "host/src/plugins/worker/descriptors.rs",
        ],
        why: "unsafe code is argued for in a few named places",
    },
    Place {
        words: &["abi_stable"],
        allowed: &["plugin-api/abi/"],
        why: "the binary interface's library must stay replaceable",
    },
    Place { words: &["libloading"], allowed: &["host/src/plugins/load.rs"], why: "one place opens libraries" },
    Place {
        words: &["axum"],
        allowed: &["host/src/socket/", "host/src/http/", "host/src/server/"],
        why: "only the edges know the HTTP library",
    },
    Place {
        words: &["clap", "clap_complete"],
        allowed: &["host/src/cli/", "host/src/telemetry.rs"],
        why: "only the binary has a command line",
    },
    Place {
        words: &["std::env", "env::var", "env::vars", "env::var_os", "env::vars_os"],
        allowed: &[
            "host/src/main.rs",
            "host/src/config/",
            "host/src/cli/",
            "host/src/worker.rs",
            "plugin-api/build.rs",
            "host/build.rs",
        ],
        why: "the environment is read once, in the configuration",
    },
    Place {
        words: &["SystemTime"],
        allowed: &["host/src/clock.rs", "plugin-api/src/context.rs", "plugins/clock/"],
        why: "a test decides the time: take a clock::Clock",
    },
    Place {
        words: &["Timestamp::now", "Zoned::now"],
        allowed: &["host/src/clock.rs", "plugins/clock/"],
        why: "a test decides the time: take a clock::Clock",
    },
    Place {
        words: &["Uuid::new_v4", "Uuid::now_v7"],
        allowed: &["host/src/clock.rs"],
        why: "a test decides the ids: take a clock::Clock",
    },
    Place { words: &["unbounded_channel", "UnboundedSender"], allowed: &[], why: "every queue has a limit" },
];

#[test]
fn dangerous_and_replaceable_things_stay_in_their_places() {
    let product = sources::product();
    let wrong: Vec<String> = product.iter().flat_map(misplaced).collect();
    assert!(wrong.is_empty(), "out of place:\n{}", wrong.join("\n"));
}

fn misplaced(source: &Source) -> Vec<String> {
    let code = source.shipped();
    let mut wrong: Vec<String> = PLACES
        .iter()
        .filter(|place| !place.allowed.iter().any(|allowed| source.path.starts_with(allowed)))
        .filter_map(|place| {
            let word = place.words.iter().find(|word| has_word(&code, word))?;
            Some(format!("{}: `{word}`: {}", source.path, place.why))
        })
        .collect();
    if uses_std_instant(&code) {
        wrong.push(format!("{}: `std::time::Instant`: a test must be able to stop time, use tokio's", source.path));
    }
    wrong
}

/// Tokio's type has the same name, so the path decides.
fn uses_std_instant(code: &str) -> bool {
    let inside_time = |rest: &str| match rest.strip_prefix('{') {
        Some(_) => has_word(group(rest), "Instant"),
        None => rest.starts_with("Instant"),
    };
    let direct = code.match_indices("std::time::").any(|(at, path)| inside_time(&code[at + path.len()..]));
    let grouped = code.match_indices("std::{").any(|(at, _)| {
        let group = group(&code[at + "std::".len()..]);
        group.match_indices("time::").any(|(at, path)| inside_time(&group[at + path.len()..]))
    });
    direct || grouped
}

/// What stands in the braces that open here.
fn group(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return &text[1..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

#[test]
fn each_place_is_guarded() {
    for place in PLACES {
        for word in place.words {
            let text = format!("fn f() {{ {word}; }}");
            let stranger = Source { path: "plugins/other/src/lib.rs".into(), text: text.clone() };
            assert!(misplaced(&stranger).iter().any(|wrong| wrong.contains(place.why)), "{word}");
            for allowed in place.allowed {
                let home = Source { path: format!("{allowed}x"), text: text.clone() };
                assert!(!misplaced(&home).iter().any(|wrong| wrong.contains(place.why)), "{word} in {allowed}");
            }
        }
    }
}

#[test]
fn the_clock_of_the_standard_library_is_told_from_tokios() {
    assert!(uses_std_instant("use std::time::Instant;") && uses_std_instant("use std::{time::{Duration, Instant}};"));
    assert!(
        uses_std_instant("let x = std::time::Instant::now();") && uses_std_instant("use std::{time::Instant, io};")
    );
    for tokio in ["use tokio::time::Instant;", "use tokio::{sync::watch, time::{Instant, sleep}};"] {
        assert!(!uses_std_instant(&format!("use std::{{io, time::Duration}}; {tokio}")), "{tokio}");
    }
    let in_test =
        Source { path: "host/src/a.rs".into(), text: "#[cfg(test)]\nmod tests { use std::time::Instant; }".into() };
    assert!(misplaced(&in_test).is_empty());
}
