//! The gateway client: one HTTP client for the process, with connections that stay open between calls.
//!
//! ```text
//! stream: repair -> open (dialect) -> attempt (retries) -> first event -> Reply
//!            '-- conversation too long: drop the oldest, once --'
//! ```
//!
//! A call is tried again only while nothing of its reply was used. No proxy of the environment and no redirect is
//! followed: the key goes to the configured address and nowhere else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use jackfield_plugin_api::GatewayKey;
use tokio::{sync::OnceCell, time::Instant};
use url::{Position, Url};

use super::{
    ModelClient, ModelError, ModelInfo, ModelRequest, ModelStream,
    catalog::{self, Catalog},
    error_text::{fitting_share, is_context_overflow, readable_error},
    repair,
    reply::{CallFacts, Reply, whole_seconds},
    request::{Dialect, RequestBody, ToolsMemory},
    retry::{RetryPolicy, is_retryable, retry_after},
    transport::{ReplyBody, SendError, Transport},
    usage::prompt_chars,
};
use crate::{clock::SharedClock, config::Limits, outbound::tls_config};

/// Names us to the gateway.
const OUR_NAME: &str = concat!("jackfield/", env!("CARGO_PKG_VERSION"));
/// Where gateways tell the price of a call, most exact first.
const COST_HEADERS: [&str; 5] = [
    "x-litellm-response-cost-margin-amount",
    "x-litellm-response-cost-original",
    "x-litellm-response-cost",
    "x-response-cost",
    "x-cost-usd",
];
/// Part of a conversation that is kept after an overflow whose text names no numbers.
const KEEP_SHARE: f64 = 0.5;
/// What an overflow's numbers promise is counted with a margin, because our measure is bytes and theirs tokens.
const KEEP_MARGIN: f64 = 0.85;
/// Models whose dialect is remembered; more than any gateway needs, few enough that made-up names cannot pile up.
const DIALECTS_MAX: usize = 256;

/// A client of an OpenAI-compatible gateway.
#[derive(Clone)]
pub struct GatewayClient(pub(super) Arc<Gateway>);

/// Why a client could not be made from its settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewaySettingsError {
    /// The address is not one.
    #[error(
        "the gateway address {address:?} is not usable: {reason}; expected something like https://api.example.com/v1"
    )]
    Address {
        /// As it was given, without a user name and password.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be sent.
    #[error(
        "the gateway key holds a character that an HTTP header cannot carry, probably a line break; check where it is read from"
    )]
    Key,
}

/// What all clones of a client share.
pub(super) struct Gateway {
    chat: Url,
    model_info: Url,
    pub(super) embeddings: Url,
    headers: HeaderMap,
    pub(super) key: GatewayKey,
    pub(super) limits: Limits,
    pub(super) clock: SharedClock,
    /// Made at the first call, because reading the system's certificates takes longer than starting the server.
    transport: OnceCell<Transport>,
    pub(super) catalog: Catalog,
    tools: ToolsMemory,
    /// By model. Held for a lookup only, never across an await.
    dialects: Mutex<BTreeMap<String, Dialect>>,
}

/// Why one attempt failed, and whether another may help.
pub(super) struct Failure {
    pub(super) error: ModelError,
    retry: Retry,
}

/// Whether to try again.
#[derive(Clone, Copy)]
enum Retry {
    Never,
    /// After the usual pause, or the one that the gateway asked for.
    After(Option<Duration>),
    /// A kept connection was found closed; a fresh one has nothing to wait for.
    Fresh,
}

impl GatewayClient {
    /// A client for the gateway at `url` (without `/chat/completions`). An empty key sends none. Nothing is contacted
    /// before the first call.
    pub fn new(url: &str, key: &GatewayKey, limits: &Limits, clock: SharedClock) -> Result<Self, GatewaySettingsError> {
        let base = parse_address(url)?;
        Ok(Self(Arc::new(Gateway {
            chat: below(&base, &["chat", "completions"]),
            model_info: below(&base, &["model", "info"]),
            embeddings: below(&base, &["embeddings"]),
            headers: headers(&base, key)?,
            key: key.clone(),
            limits: limits.clone(),
            clock,
            transport: OnceCell::new(),
            catalog: Catalog::default(),
            tools: ToolsMemory::default(),
            dialects: Mutex::default(),
        })))
    }
}

/// Shows the address, never the key.
impl fmt::Debug for GatewayClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GatewayClient").field("chat", &self.0.chat.as_str()).finish_non_exhaustive()
    }
}

#[async_trait]
impl ModelClient for GatewayClient {
    async fn stream(&self, mut request: ModelRequest) -> Result<ModelStream, ModelError> {
        let deadline = Instant::now() + self.0.limits.model_total;
        self.0.ask_for_catalog();
        repair::pair_tool_results(&mut request.messages);
        let reply = match self.0.open(&request, deadline).await {
            Err(ModelError::ContextOverflow(text)) => {
                let share = fitting_share(&text).map_or(KEEP_SHARE, |share| share * KEEP_MARGIN);
                if !repair::drop_oldest(&mut request.messages, share) {
                    return Err(ModelError::ContextOverflow(text));
                }
                tracing::info!(
                    model = request.model,
                    "the conversation was too long for the model; dropped the oldest"
                );
                self.0.open(&request, deadline).await?
            }
            opened => opened?,
        };
        Ok(Box::pin(reply))
    }

    async fn catalog(&self) -> Arc<BTreeMap<String, ModelInfo>> {
        self.0.ask_for_catalog();
        self.0.catalog.wait().await
    }
}

impl Gateway {
    /// Starts a call in the dialect its model is known to understand, and learns from a refusal.
    async fn open(self: &Arc<Self>, request: &ModelRequest, deadline: Instant) -> Result<Reply, ModelError> {
        let mut dialect = self.dialect(&request.model);
        let prompt_chars = prompt_chars(request);
        loop {
            let body = RequestBody::new(request, self.max_tokens(request), dialect, &self.tools);
            let facts = || CallFacts {
                gateway: Arc::clone(self),
                model: request.model.clone(),
                prompt_chars,
                conversation: body.conversation(),
                cost_usd: None,
            };
            let error = match self.with_retries(&body, facts, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let ModelError::Status { status: 400 | 422, message } = &error else { return Err(error) };
            let Some(adapted) = dialect.adapted_to(message) else { return Err(error) };
            tracing::info!(model = request.model, ?adapted, "the gateway refused a field; leaving it out from now on");
            dialect = adapted;
            self.remember_dialect(&request.model, adapted);
        }
    }

    async fn with_retries(
        self: &Arc<Self>,
        body: &RequestBody,
        facts: impl Fn() -> CallFacts,
        deadline: Instant,
    ) -> Result<Reply, ModelError> {
        let policy = RetryPolicy::new(&self.limits);
        retrying(policy, deadline, || self.attempt(body, facts(), deadline)).await
    }

    /// One request, until the first event of its reply or the reason why there is none.
    async fn attempt(&self, body: &RequestBody, mut facts: CallFacts, deadline: Instant) -> Result<Reply, Failure> {
        let transport = self.transport().await.map_err(Failure::last)?;
        let request = self.request(Method::POST, &self.chat, body.bytes.clone());
        let response = match self.within(deadline, transport.send(request)).await {
            Err(error) => return Err(Failure::last(error)),
            Ok(Err(error)) => return Err(Failure::transport(error)),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            let failure = self.refusal(response, deadline).await;
            return Err(Failure { error: facts.safe(failure.error), ..failure });
        }
        facts.cost_usd = cost(response.headers());
        let mut reply = Reply::new(response.into_body(), facts, deadline);
        match reply.first_event().await {
            Ok(()) => Ok(reply),
            Err((error @ ModelError::Unreachable(_), false)) => Err(Failure { error, retry: Retry::Fresh }),
            Err((error, _)) => Err(Failure::last(error)),
        }
    }

    /// Reads an error answer.
    pub(super) async fn refusal(&self, response: Response<ReplyBody>, deadline: Instant) -> Failure {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|value| retry_after(value, self.clock.now()));
        if status.is_redirection() {
            let message = "it redirects elsewhere; configure the address it redirects to".to_owned();
            return Failure::last(ModelError::Status { status: status.as_u16(), message });
        }
        let body = self.read_some(response.into_body(), self.limits.model_error_bytes, deadline).await;
        let body = String::from_utf8_lossy(&body);
        let message = if body.trim().is_empty() {
            status.canonical_reason().unwrap_or("no explanation").to_ascii_lowercase()
        } else {
            readable_error(&body)
        };
        if status.is_client_error() && (status.as_u16() == 413 || is_context_overflow(&body)) {
            return Failure::last(ModelError::ContextOverflow(message));
        }
        let retry = if is_retryable(status.as_u16()) { Retry::After(asked) } else { Retry::Never };
        Failure { error: ModelError::Status { status: status.as_u16(), message }, retry }
    }

    /// The first bytes of a body; less when it breaks off or stalls.
    pub(super) async fn read_some(&self, mut body: ReplyBody, bytes_max: usize, deadline: Instant) -> Vec<u8> {
        let mut read = Vec::new();
        while let Ok(Some(Ok(bytes))) = self.within(deadline, body.data()).await {
            let room = bytes_max - read.len();
            read.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if read.len() == bytes_max {
                break;
            }
        }
        read
    }

    /// Waits as long as silence is allowed, and never past the deadline.
    pub(super) async fn within<T>(&self, deadline: Instant, future: impl Future<Output = T>) -> Result<T, ModelError> {
        let idle_end = Instant::now() + self.limits.model_idle;
        tokio::time::timeout_at(idle_end.min(deadline), future).await.map_err(|_| {
            if Instant::now() >= deadline {
                ModelError::TooLong(whole_seconds(self.limits.model_total))
            } else {
                ModelError::Idle(whole_seconds(self.limits.model_idle))
            }
        })
    }

    pub(super) fn request(&self, method: Method, url: &Url, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let path = Uri::try_from(&url[Position::BeforePath..Position::AfterQuery]);
        *request.uri_mut() = path.expect("what a URL calls its path is one");
        request.headers_mut().clone_from(&self.headers);
        request
    }

    pub(super) async fn transport(&self) -> Result<&Transport, ModelError> {
        let make = async {
            // Reading the certificates is file work.
            let with_tls = self.chat.scheme() == "https";
            let made = tokio::task::spawn_blocking(move || tls_config(with_tls)).await;
            let tls = made.unwrap_or_else(|_| Err("the certificates could not be read".to_owned()))?;
            let server = Uri::try_from(&self.chat[..Position::BeforePath]).map_err(|error| error.to_string())?;
            Ok(Transport::new(server, tls, &self.limits))
        };
        self.transport.get_or_try_init(|| make).await.map_err(ModelError::Unreachable)
    }

    /// Starts asking for the catalog when it is time to; never waits.
    fn ask_for_catalog(self: &Arc<Self>) {
        if !self.catalog.claim() {
            return;
        }
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(gateway.limits.model_catalog, gateway.fetch_catalog()).await;
            let models = fetched.ok().flatten();
            tracing::debug!(known = models.is_some(), "asked the gateway about its models");
            gateway.catalog.settle(models, gateway.limits.model_catalog_retry);
        });
    }

    async fn fetch_catalog(&self) -> Option<BTreeMap<String, ModelInfo>> {
        let mut request = self.request(Method::GET, &self.model_info, Bytes::new());
        request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.transport().await.ok()?.send(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let deadline = Instant::now() + self.limits.model_catalog;
        // A catalog cut at the limit is no JSON, and so counts as a failure.
        catalog::parse(&self.read_some(response.into_body(), self.limits.model_catalog_bytes, deadline).await)
    }

    /// The ceiling of a reply, lowered to the model's own when that is known.
    fn max_tokens(&self, request: &ModelRequest) -> u32 {
        let models = self.catalog.peek();
        let ceiling = models.and_then(|models| models.get(&request.model)?.max_output_tokens);
        ceiling.map_or(request.max_tokens, |ceiling| ceiling.min(request.max_tokens))
    }

    fn dialect(&self, model: &str) -> Dialect {
        let dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        dialects.get(model).copied().unwrap_or_default()
    }

    fn remember_dialect(&self, model: &str, dialect: Dialect) {
        let mut dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        if dialects.len() < DIALECTS_MAX || dialects.contains_key(model) {
            dialects.insert(model.to_owned(), dialect);
        }
    }
}

/// Attempts until one succeeds, fails for good, or there is no time left.
pub(super) async fn retrying<T, F>(
    policy: RetryPolicy,
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, ModelError>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut retry = 0;
    loop {
        let Failure { error, retry: advice } = match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let pause = match advice {
            Retry::Never => return Err(error),
            _ if retry >= policy.retries => return Err(error),
            Retry::Fresh if retry == 0 => Duration::ZERO,
            Retry::Fresh => policy.pause(retry, None, fastrand::f64()),
            Retry::After(asked) => policy.pause(retry, asked, fastrand::f64()),
        };
        if Instant::now() + pause >= deadline {
            return Err(error);
        }
        retry += 1;
        tracing::warn!(%error, retry, pause_ms = pause.as_millis() as u64, "the model call failed; trying again");
        tokio::time::sleep(pause).await;
    }
}

impl Failure {
    /// Trying again would not help, or is not allowed.
    pub(super) fn last(error: ModelError) -> Self {
        Self { error, retry: Retry::Never }
    }

    /// The request did not get through.
    pub(super) fn transport(error: SendError) -> Self {
        let (retry, reason) = match error {
            SendError::Connect(reason) => (Retry::After(None), reason),
            SendError::Broken(reason) => (Retry::Fresh, reason),
        };
        Self { error: ModelError::Unreachable(reason), retry }
    }
}

fn parse_address(address: &str) -> Result<Url, GatewaySettingsError> {
    let bad = |reason: &str| GatewaySettingsError::Address {
        // Credentials in an address stand before an `@`.
        address: address.rsplit('@').next().unwrap_or_default().to_owned(),
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(address.trim()).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it starts with neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds a user name or password; the key goes into its own setting"));
    }
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/chat/completions").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// What every request carries.
fn headers(base: &Url, key: &GatewayKey) -> Result<HeaderMap, GatewaySettingsError> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(&base[Position::BeforeHost..Position::AfterPort]);
    headers.insert(HOST, host.expect("the host of a URL is plain text"));
    headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if !key.reveal().is_empty() {
        let bearer = format!("Bearer {}", key.reveal());
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| GatewaySettingsError::Key)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

fn cost(headers: &HeaderMap) -> Option<f64> {
    COST_HEADERS.iter().find_map(|name| {
        let cost: f64 = headers.get(*name)?.to_str().ok()?.trim().parse().ok()?;
        (cost.is_finite() && cost > 0.0).then_some(cost)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn client(url: &str, key: &str) -> Result<GatewayClient, GatewaySettingsError> {
        GatewayClient::new(url, &GatewayKey::new(key), &Limits::default(), Arc::new(SystemClock))
    }

    #[test]
    fn addresses_are_taken_in_every_usual_spelling() {
        for address in [
            "http://127.0.0.1:1/v1",
            "http://127.0.0.1:1/v1/",
            " http://127.0.0.1:1/v1//\n",
            "http://127.0.0.1:1/v1/chat/completions",
        ] {
            let client = client(address, "key").unwrap();
            assert_eq!(client.0.chat.as_str(), "http://127.0.0.1:1/v1/chat/completions");
            assert_eq!(client.0.model_info.as_str(), "http://127.0.0.1:1/v1/model/info");
        }
        assert_eq!(client("https://h", "k").unwrap().0.chat.as_str(), "https://h/chat/completions");
        assert_eq!(client("https://h/v1?v=2", "k").unwrap().0.chat.as_str(), "https://h/v1/chat/completions?v=2");
    }

    #[test]
    fn an_unusable_address_or_key_is_refused_with_its_reason() {
        for address in ["", "localhost:1/v1", "ftp://h/v1", "http://", "not an address", "http://user:pass@h/v1"] {
            let error = client(address, "key").unwrap_err();
            assert!(matches!(error, GatewaySettingsError::Address { .. }), "{address}: {error}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
        let error = client("http://h/v1", "sk-secret\n").unwrap_err();
        assert_eq!(error, GatewaySettingsError::Key);
        assert!(!error.to_string().contains("sk-secret"));
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", client("http://h/v1", "sk-secret").unwrap());
        assert!(text.contains("http://h/v1") && !text.contains("sk-secret"));
    }

    #[test]
    fn the_first_header_that_holds_a_price_wins() {
        let mut headers = HeaderMap::new();
        assert_eq!(cost(&headers), None);
        headers.insert("x-cost-usd", HeaderValue::from_static("0.5"));
        headers.insert("x-litellm-response-cost", HeaderValue::from_static("0.25"));
        headers.insert("x-litellm-response-cost-original", HeaderValue::from_static("0"));
        headers.insert("x-litellm-response-cost-margin-amount", HeaderValue::from_static("None"));
        assert_eq!(cost(&headers), Some(0.25));
    }

    #[test]
    fn a_client_can_be_made_without_a_process_wide_crypto_provider() {
        tls_config(false).unwrap();
    }
}
