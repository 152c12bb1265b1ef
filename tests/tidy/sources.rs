//! Reads the workspace's source files and takes away what a rule must not see: comments, the insides of texts, tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One source file.
pub(crate) struct Source {
    /// Path in the workspace, with forward slashes.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
}

impl Source {
    /// The code that ships: comments, texts and test modules are blank, line breaks stay. Empty for a test's own file.
    pub(crate) fn shipped(&self) -> String {
        if is_test(&self.path) { String::new() } else { without_tests(&code_of(&self.text)) }
    }
}

/// Whether a whole file is a test's: by its name, or because it holds the promises that storages are tested for.
fn is_test(path: &str) -> bool {
    let by_folder = path.starts_with("tests/") || path.contains("/tests/");
    by_folder || path.ends_with("/tests.rs") || path.ends_with("/contract.rs")
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// Every Rust file that belongs to the workspace, by path.
pub(crate) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["host", "plugin-api", "plugins", "tests"] {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    let source = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("it was found there").to_string_lossy().replace('\\', "/");
        Source { path: name, text: fs::read_to_string(&path).expect("a source file is text") }
    };
    paths.into_iter().map(source).collect()
}

/// The files of the product: everything but `tests/`.
pub(crate) fn product() -> Vec<Source> {
    all().into_iter().filter(|source| !source.path.starts_with("tests/")).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("its entries, too").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The text with comments and the insides of texts replaced by spaces.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let (skipped, keep) = token_at(text, at);
        let token = &text[at..at + skipped];
        if keep {
            code.push_str(token);
        } else {
            code.extend(token.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
        }
        at += skipped;
    }
    code
}

/// Length of what starts here, and whether it is code.
fn token_at(text: &str, at: usize) -> (usize, bool) {
    let rest = &text[at..];
    let to_end_of = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return (to_end_of(rest.find('\n')), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    let after_name = text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if let (Some(hashes), false) = (raw_text(rest), after_name) {
        let close = format!("\"{}", "#".repeat(hashes));
        let open = rest.find('"').expect("a raw text has a quote") + 1;
        return (to_end_of(rest[open..].find(&close).map(|end| open + end + close.len())), false);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"'), false);
    }
    // A lifetime is a quote without a second one after one character.
    if rest.starts_with('\'') {
        let mut letters = rest.chars().skip(1);
        let is_character = match letters.next() {
            Some('\\') => true,
            Some(_) => letters.next() == Some('\''),
            None => false,
        };
        return if is_character { (quoted(rest, '\''), false) } else { (1, true) };
    }
    (rest.chars().next().map_or(1, char::len_utf8), true)
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// How many hashes a raw text that starts here has.
fn raw_text(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).or_else(|| rest.strip_prefix("cr"))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The code without the items that only a test build has: `#[cfg(test)]`, `#[cfg(all(test, unix))]`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let condition_end = rest[at..].find(']').map_or(rest.len(), |end| at + end + 1);
        let condition = &rest[at..condition_end];
        if has_word(condition, "test") && !condition.contains("not(test") {
            let end = condition_end + end_of_item(&rest[condition_end..]);
            kept.push_str(&rest[..at]);
            kept.extend(rest[at..end].chars().filter(|letter| *letter == '\n'));
            rest = &rest[end..];
        } else {
            kept.push_str(&rest[..condition_end]);
            rest = &rest[condition_end..];
        }
    }
    kept + rest
}

/// Where the item that starts here ends: behind its block, or behind its semicolon when it has none.
fn end_of_item(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in rest.char_indices() {
        match letter {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    rest.len()
}

/// Whether `word` stands in the code as a word of its own.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let joins = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(joins) && !code[at + word.len()..].starts_with(joins))
}

#[test]
fn comments_and_texts_are_not_code() {
    let text = "let a = \"unsafe\"; // unsafe\n/* unsafe /* */ unsafe */ let b = r#\"un\"safe\"#; let c = '\"'; let d: &'a str;";
    let code = code_of(text);
    assert!(!code.contains("unsafe") && !code.contains("safe"), "{code}");
    assert!(code.contains("let c =") && code.contains("&'a str"), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(code_of("for \"x\" in unsafe {}").contains("unsafe"));
}

#[test]
fn test_modules_do_not_ship() {
    let code =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { { } }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}";
    let shipped = without_tests(code);
    assert!(shipped.contains("fn a") && shipped.contains("fn c") && shipped.contains("fn d"));
    assert!(!shipped.contains("fn b") && !shipped.contains("more"));
    let shipped = without_tests("#[cfg(all(test, unix))] mod a {} #[cfg(unix)] mod b {} #[cfg(not(test))] mod c {}");
    assert!(!shipped.contains("mod a") && shipped.contains("mod b") && shipped.contains("mod c"));
}

#[test]
fn words_are_whole() {
    assert!(has_word("unsafe {", "unsafe") && has_word("x = unsafe{}", "unsafe"));
    assert!(!has_word("#![deny(unsafe_code)]", "unsafe") && !has_word("notunsafe", "unsafe"));
}
