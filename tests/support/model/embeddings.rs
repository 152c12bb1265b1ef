//! The scripted gateway's `/embeddings`: vectors that say which subjects a text is about.

use serde_json::{Value, json};

/// How the gateway makes vectors.
#[derive(Clone, Debug, Default)]
pub enum Embeddings {
    /// There is no such route.
    #[default]
    Missing,
    /// One number for each subject, given by its words: how many of them a text has. Then so many zeros.
    Subjects {
        /// The subjects.
        subjects: &'static [&'static [&'static str]],
        /// Numbers behind those of the subjects.
        zeros: usize,
    },
    /// An error answer.
    Fails(u16, &'static str),
    /// No answer at all.
    Hangs,
}

impl Embeddings {
    /// Status and body of the answer; `None` for none.
    pub(super) fn answer(&self, request: &Value) -> Option<(u16, String)> {
        match self {
            Embeddings::Missing => Some((404, json!({ "detail": "Not Found" }).to_string())),
            Embeddings::Fails(status, body) => Some((*status, (*body).to_owned())),
            Embeddings::Hangs => None,
            Embeddings::Subjects { subjects, zeros } => {
                let texts = request["input"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let rows = texts.enumerate().map(|(index, text)| {
                    let text = text.to_lowercase();
                    let about = |words: &&[&str]| words.iter().filter(|word| text.contains(**word)).count() as f32;
                    let mut vector: Vec<f32> = subjects.iter().map(about).collect();
                    vector.extend(std::iter::repeat_n(0.0, *zeros));
                    json!({ "object": "embedding", "index": index, "embedding": vector })
                });
                // Backwards, because the order is not part of the promise.
                let rows: Vec<Value> = rows.collect::<Vec<_>>().into_iter().rev().collect();
                Some((200, json!({ "object": "list", "data": rows, "model": request["model"] }).to_string()))
            }
        }
    }
}

/// What a strict provider would refuse.
pub(super) fn faults_of(request: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if request["model"].as_str().is_none_or(str::is_empty) {
        faults.push("a request for vectors names no model".to_owned());
    }
    let texts = request["input"].as_array();
    if texts.is_none_or(|texts| texts.is_empty() || texts.iter().any(|text| text.as_str().is_none_or(str::is_empty))) {
        faults.push(format!("a request for vectors has no texts, or a blank one: {}", request["input"]));
    }
    faults
}
