//! Vectors from the gateway's `/embeddings`, over the connections of its client.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, header::ACCEPT};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Effort, Embedder, GatewayClient, ModelError,
    error_text::scrub,
    gateway::{Failure, Gateway, retrying},
    retry::RetryPolicy,
};

/// Asks one model of the gateway for vectors.
#[derive(Clone, Debug)]
pub struct GatewayEmbedder {
    client: GatewayClient,
    model: String,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    /// Which text; a gateway that leaves it out keeps the order.
    index: Option<usize>,
    embedding: Vec<f32>,
}

impl GatewayClient {
    /// Vectors of this model. Nothing is contacted before the first call.
    pub fn embedder(&self, model: impl Into<String>) -> GatewayEmbedder {
        GatewayEmbedder { client: self.clone(), model: model.into() }
    }
}

#[async_trait]
impl Embedder for GatewayEmbedder {
    fn model(&self) -> &str {
        &self.model
    }

    async fn embed(&self, texts: Vec<String>, effort: Effort) -> Result<Vec<Vec<f32>>, ModelError> {
        let gateway = &*self.client.0;
        let deadline = Instant::now() + gateway.limits.model_total;
        let request = Request { model: &self.model, input: &texts, encoding_format: "float" };
        let body = Bytes::from(serde_json::to_vec(&request).expect("names and texts can be written"));
        let policy = RetryPolicy::new(&gateway.limits);
        let policy = match effort {
            Effort::Once => policy.once(),
            Effort::Retrying => policy,
        };
        let answer = retrying(policy, deadline, || gateway.ask_for_vectors(&body, deadline)).await;
        vectors_of(&answer.map_err(|error| gateway.safe(error, &body))?, texts.len())
    }
}

impl Gateway {
    async fn ask_for_vectors(&self, body: &Bytes, deadline: Instant) -> Result<Vec<u8>, Failure> {
        let transport = self.transport().await.map_err(Failure::last)?;
        let mut request = self.request(Method::POST, &self.embeddings, body.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = match self.within(deadline, transport.send(request)).await {
            Err(error) => return Err(Failure::last(error)),
            Ok(Err(error)) => return Err(Failure::transport(error)),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, deadline).await);
        }
        // An answer cut at the limit is no JSON, and so counts as malformed.
        Ok(self.read_some(response.into_body(), self.limits.embedding_answer_bytes, deadline).await)
    }

    /// Takes key and texts out of an error.
    fn safe(&self, error: ModelError, body: &[u8]) -> ModelError {
        let clean = |text: String| scrub(&text, self.key.reveal(), body);
        match error {
            ModelError::Unreachable(text) => ModelError::Unreachable(clean(text)),
            ModelError::Status { status, message } => ModelError::Status { status, message: clean(message) },
            ModelError::ContextOverflow(text) => ModelError::ContextOverflow(clean(text)),
            error => error,
        }
    }
}

/// Reads an answer: one vector for each text, each once, all of one length; the parser refuses numbers
/// that do not fit.
fn vectors_of(answer: &[u8], texts: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    let malformed = |what: String| ModelError::Malformed(format!("{what} as answer to a request for vectors"));
    let Answer { data } = serde_json::from_slice(answer).map_err(|_| malformed("no list of vectors".to_owned()))?;
    if data.len() != texts {
        return Err(malformed(format!("{} vectors for {texts} texts", data.len())));
    }
    let mut vectors = vec![Vec::new(); texts];
    for (place, Row { index, embedding }) in data.into_iter().enumerate() {
        let vector = vectors.get_mut(index.unwrap_or(place));
        let Some(vector) = vector.filter(|vector| vector.is_empty()) else {
            return Err(malformed("two vectors for one text".to_owned()));
        };
        *vector = embedding;
    }
    let length = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|vector| vector.is_empty() || vector.len() != length) {
        return Err(malformed("vectors of different lengths".to_owned()));
    }
    Ok(vectors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_in_the_order_of_their_texts() {
        let rows = br#"{"data":[{"index":1,"embedding":[3,4.5]},{"index":0,"embedding":[1,2]}],"model":"m"}"#;
        assert_eq!(vectors_of(rows, 2).unwrap(), [[1.0, 2.0], [3.0, 4.5]]);
        let plain = br#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#;
        assert_eq!(vectors_of(plain, 2).unwrap(), [[1.0], [2.0]]);
    }

    #[test]
    fn an_answer_that_cannot_be_used_says_why() {
        for (answer, texts, expected) in [
            ("", 1, "no list of vectors"),
            ("<html>", 1, "no list of vectors"),
            (r#"{"data":[]}"#, 1, "0 vectors for 1 texts"),
            (r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#, 2, "two vectors for one text"),
            (r#"{"data":[{"index":7,"embedding":[1]}]}"#, 1, "two vectors for one text"),
            (r#"{"data":[{"embedding":[]}]}"#, 1, "vectors of different lengths"),
            (r#"{"data":[{"embedding":[1]},{"embedding":[1,2]}]}"#, 2, "vectors of different lengths"),
            // A number that is none in 32 bits would spoil every comparison.
            (r#"{"data":[{"embedding":[1e300]}]}"#, 1, "no list of vectors"),
            (r#"{"data":[{"embedding":"AAAA"}]}"#, 1, "no list of vectors"),
        ] {
            let error = vectors_of(answer.as_bytes(), texts).unwrap_err().to_string();
            assert!(error.contains(expected), "{answer}: {error}");
        }
    }
}
