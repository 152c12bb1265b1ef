//! What a gateway says when it fails, made short and safe to show. Pure.
//!
//! The text never holds the gateway's key, nor a stretch of the conversation that the gateway echoed.

use serde_json::Value;

/// Longest error text that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// An echo of the conversation this long (in bytes) is taken out; shorter ones are ordinary words.
const ECHO_BYTES_MIN: usize = 24;

/// The sentence in an error answer, whatever its shape: JSON in one of several forms, a page, or text.
pub(super) fn readable_error(body: &str) -> String {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(value) => message_of(&value).unwrap_or_else(|| "an error without a message".to_owned()),
        Err(_) if body.trim_start().starts_with('<') => page_title(body),
        Err(_) => body.to_owned(),
    };
    shorten(&text)
}

/// Whether an error text says that the conversation is too long for the model.
pub(super) fn is_context_overflow(text: &str) -> bool {
    const SIGNS: [&str; 17] = [
        "context_length_exceeded",
        "context_window_exceeded",
        "contextwindowexceeded",
        "exceed_context_size",
        "context length",
        "context window",
        "context size",
        "maximum context",
        "max context",
        "prompt is too long",
        "prompt too long",
        "input is too long",
        "input too long",
        "too many input tokens",
        "input token count",
        "reduce the length of the messages",
        "maximum prompt length",
    ];
    let text = text.to_ascii_lowercase();
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The part of the conversation that fits, when the error text names both numbers ("8192 tokens … 10250 tokens").
pub(super) fn fitting_share(text: &str) -> Option<f64> {
    const TOKENS_MIN: u64 = 256;
    let mut numbers: Vec<u64> = text
        .split(|character: char| !character.is_ascii_digit() && character != ',')
        .filter_map(|number| number.replace(',', "").parse().ok())
        .filter(|number| *number >= TOKENS_MIN)
        .collect();
    numbers.sort_unstable();
    let asked = numbers.pop()?;
    let limit = numbers.into_iter().rev().find(|number| *number < asked)?;
    Some(limit as f64 / asked as f64)
}

/// Takes out the key and every stretch of the prompt that the gateway echoed.
pub(super) fn scrub(message: &str, key: &str, prompt: &[u8]) -> String {
    const HIDDEN: &str = "…";
    let message = if key.is_empty() { message.to_owned() } else { message.replace(key, HIDDEN) };
    let mut clean = String::with_capacity(message.len());
    let mut rest = message.as_str();
    while let Some(first) = rest.chars().next() {
        let echoed = echo_length(rest, prompt);
        if echoed > 0 {
            clean.push_str(HIDDEN);
            rest = &rest[echoed..];
        } else {
            clean.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    clean
}

/// How many bytes at the start of `text` are also in the prompt; 0 when fewer than would give anything away.
fn echo_length(text: &str, prompt: &[u8]) -> usize {
    let Some(window) = text.as_bytes().get(..ECHO_BYTES_MIN) else { return 0 };
    let length = memchr::memmem::find_iter(prompt, window)
        .map(|at| prompt[at..].iter().zip(text.as_bytes()).take_while(|(left, right)| left == right).count())
        .max()
        .unwrap_or(0);
    (0..=length).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

fn message_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Array(items) => items.iter().find_map(message_of),
        Value::Object(map) => ["error", "message", "detail", "msg", "error_description", "title", "code", "type"]
            .iter()
            .find_map(|key| map.get(*key).and_then(message_of)),
        Value::Number(number) => Some(format!("error {number}")),
        _ => None,
    }
}

fn page_title(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len()).and_then(|from| {
        let to = lower[from..].find("</title>")?;
        Some(page[from..from + to].trim().to_owned())
    });
    match title.filter(|title| !title.is_empty()) {
        Some(title) => format!("a web page titled {title:?}"),
        None => "a web page".to_owned(),
    }
}

/// One line of limited length.
fn shorten(text: &str) -> String {
    let mut line = String::new();
    for (count, word) in text.split(|character: char| character.is_whitespace() || character.is_control()).enumerate() {
        if word.is_empty() {
            continue;
        }
        if count > 0 && !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > MESSAGE_CHARS_MAX * 4 {
            break;
        }
    }
    if line.is_empty() {
        return "no explanation".to_owned();
    }
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_sentence_in_every_shape() {
        for (body, sentence) in [
            (r#"{"error":{"message":"bad key","type":"auth","code":"invalid"}}"#, "bad key"),
            (r#"{"error":"model not found"}"#, "model not found"),
            (r#"{"message":"no"}"#, "no"),
            (r#"[{"error":{"code":400,"message":"quota"}}]"#, "quota"),
            (r#"{"detail":[{"loc":["body"],"msg":"field required","input":"the whole prompt"}]}"#, "field required"),
            (r#"{"error":{"message":null,"code":503}}"#, "error 503"),
            (r#"{"odd":true}"#, "an error without a message"),
            ("upstream\n  timed out", "upstream timed out"),
            ("", "no explanation"),
            ("<html><head><title>502 Bad Gateway</title></head>", r#"a web page titled "502 Bad Gateway""#),
        ] {
            assert_eq!(readable_error(body), sentence);
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = readable_error(&"é".repeat(10_000));
        assert_eq!(text.chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn overflow_is_told_from_other_errors() {
        for text in [
            r#"{"error":{"code":"context_length_exceeded"}}"#,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10250 tokens.",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ] {
            assert!(is_context_overflow(text), "{text}");
        }
        assert!(!is_context_overflow("invalid value for max_tokens"));
    }

    #[test]
    fn the_fitting_share_comes_from_the_numbers() {
        let text = "maximum context length is 8,192 tokens. However, your messages resulted in 16384 tokens";
        assert_eq!(fitting_share(text), Some(0.5));
        assert_eq!(fitting_share("the context is too long"), None);
        assert_eq!(fitting_share("request of 9000 tokens is too long"), None);
    }

    #[test]
    fn neither_key_nor_prompt_gets_through() {
        let prompt = br#"[{"role":"user","content":"my card number is 1234 5678, please remember"}]"#;
        let message = "key sk-secret refused the input 'my card number is 1234 5678, please remember' today";
        let clean = scrub(message, "sk-secret", prompt);
        assert_eq!(clean, "key … refused the input '…' today");
        assert_eq!(scrub("plain words stay", "", prompt), "plain words stay");
    }
}
