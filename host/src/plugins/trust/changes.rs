//! What differs between the file that was trusted and the one that is there, in words. Pure.

use std::collections::BTreeSet;

use super::pins::{Pin, PinnedTool};

/// Characters of a hash that are shown.
const HASH_CHARS: usize = 12;

/// One line for each difference; empty when there is none.
pub fn changes(before: &Pin, after: &Pin) -> Vec<String> {
    let mut lines = Vec::new();
    if before.version != after.version {
        lines.push(format!("version {} → {}", shown(&before.version), shown(&after.version)));
    }
    tools(&before.tools, &after.tools, &mut lines);
    permissions(before, after, &mut lines);
    if before.key != after.key {
        lines.push(format!("signed by {} → {}", key(before), key(after)));
    }
    if before.sha256 != after.sha256 {
        lines.push(format!("sha-256 {} → {}", hash(&before.sha256), hash(&after.sha256)));
    }
    lines
}

fn tools(before: &[PinnedTool], after: &[PinnedTool], lines: &mut Vec<String>) {
    let find = |tools: &[PinnedTool], name: &str| tools.iter().find(|tool| tool.name == name).cloned();
    for tool in after {
        match find(before, &tool.name) {
            None => lines.push(format!("+ tool {} ({})", shown(&tool.name), effect(tool))),
            Some(old) if old.effect != tool.effect => {
                lines.push(format!("tool {}: {} → {}", shown(&tool.name), effect(&old), effect(tool)));
            }
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|tool| find(after, &tool.name).is_none());
    lines.extend(gone.map(|tool| format!("- tool {}", shown(&tool.name))));
}

fn permissions(before: &Pin, after: &Pin, lines: &mut Vec<String>) {
    let kinds: BTreeSet<&String> = before.permissions.keys().chain(after.permissions.keys()).collect();
    for kind in kinds {
        let of = |pin: &Pin| pin.permissions.get(kind).cloned().unwrap_or_default();
        let (old, new) = (of(before), of(after));
        lines.extend(
            new.iter().filter(|wish| !old.contains(wish)).map(|wish| format!("+ asks for {kind} {}", shown(wish))),
        );
        lines.extend(
            old.iter().filter(|wish| !new.contains(wish)).map(|wish| format!("- asks for {kind} {}", shown(wish))),
        );
    }
}

fn effect(tool: &PinnedTool) -> &str {
    tool.effect.as_deref().unwrap_or("by_arguments")
}

fn key(pin: &Pin) -> &str {
    pin.key.as_deref().unwrap_or("nobody")
}

fn hash(sha256: &str) -> String {
    if sha256.is_empty() { "nothing".to_owned() } else { sha256.chars().take(HASH_CHARS).collect() }
}

/// Text of a stranger, short enough for one line.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tool(name: &str, effect: &str) -> PinnedTool {
        PinnedTool { name: name.into(), effect: Some(effect.into()) }
    }

    #[test]
    fn every_difference_is_a_line() {
        let before = Pin {
            id: "p".into(),
            sha256: "a".repeat(64),
            version: "0.1.0".into(),
            tools: vec![tool("stays", "read_only"), tool("grows", "read_only"), tool("goes", "read_only")],
            permissions: BTreeMap::from([("network".to_owned(), vec!["a:443".to_owned()])]),
            ..Pin::default()
        };
        let after = Pin {
            sha256: "b".repeat(64),
            version: "0.2.0".into(),
            key: Some("RWQ".into()),
            tools: vec![tool("stays", "read_only"), tool("grows", "destructive"), tool("comes", "writes")],
            permissions: BTreeMap::from([("network".to_owned(), vec!["b:443".to_owned()])]),
            ..before.clone()
        };
        assert_eq!(
            changes(&before, &after),
            [
                "version 0.1.0 → 0.2.0",
                "tool grows: read_only → destructive",
                "+ tool comes (writes)",
                "- tool goes",
                "+ asks for network b:443",
                "- asks for network a:443",
                "signed by nobody → RWQ",
                "sha-256 aaaaaaaaaaaa → bbbbbbbbbbbb",
            ]
        );
        assert!(changes(&before, &before).is_empty());
    }
}
