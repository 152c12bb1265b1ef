//! The admin API of a running server, as commands use it: finds the server and its token, sends one request, and turns a
//! refusal into a sentence.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use jackfield::{
    config::{Sources, state_folder},
    run_file::RunFile,
};
use jackfield_plugin_api::GatewayKey;
use serde::Deserialize;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{Exit, Failure, args::ServerArgs, terminal::harmless};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to answer; reading a large folder takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A running server.
pub(super) struct AdminClient {
    /// Host and port.
    authority: String,
    token: Option<GatewayKey>,
}

/// What a refusal says; it has the form of the protocol's error.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    code: String,
    message: String,
}

impl AdminClient {
    /// The server that is named, or the one that runs on this machine. The run file's admin token is shown to its own
    /// server only, and only when no other token is named.
    pub(super) async fn find(sources: &Sources, args: &ServerArgs) -> Result<Self, Failure> {
        let named_token = args.token_file.as_deref().map(read_token).transpose()?;
        let folder = state_folder(&sources.env);
        let running = match &folder {
            Some(folder) => RunFile::find_running(folder).await?,
            None => None,
        };
        let Some(url) = &args.server else {
            let Some(running) = running else { return Err(nobody_runs(folder.as_deref())) };
            let authority = authority_of(&running.ws_url())?;
            return Ok(Self { authority, token: named_token.or(Some(running.admin_token)) });
        };
        let authority = authority_of(url)?;
        let own = running.filter(|running| authority_of(&running.ws_url()).is_ok_and(|own| own == authority));
        Ok(Self { authority, token: named_token.or(own.map(|own| own.admin_token)) })
    }

    /// One request, and its answer as JSON; null for an answer without a body.
    pub(super) async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let exchange = timeout(ANSWER_TIMEOUT, self.exchange(method, path, body)).await;
        let (status, body) = exchange.map_err(|_| self.trouble("it did not answer within an hour"))??;
        if !(200..300).contains(&status) {
            return Err(self.refused(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.trouble("it answered with something that is no JSON"))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Bytes), Failure> {
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await;
        let stream = connect
            .map_err(|_| self.trouble("it did not accept a connection within 10 s"))?
            .map_err(|error| self.trouble(&format!("{error}; start a server with `jackfield serve`")))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.trouble(&error.to_string()))?;
        let driving = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(anyhow::Error::from)?;
        let answer = sender.send_request(request).await.map_err(|error| self.trouble(&error.to_string()))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        driving.abort();
        Ok((status, body.map_err(|error| self.trouble(&error.to_string()))?.to_bytes()))
    }

    fn refused(&self, status: u16, body: &[u8]) -> Failure {
        let text = match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { error }) => format!("{} ({})", harmless(&error.message), harmless(&error.code)),
            Err(_) => format!("{} answered {status}: {}", self.authority, harmless(&String::from_utf8_lossy(body))),
        };
        let hint = match status {
            401 | 403 => "; name a file that holds the right token with --token-file",
            _ => "",
        };
        Failure::new(Exit::Failure, format!("{text}{hint}"))
    }

    fn trouble(&self, reason: &str) -> Failure {
        Failure::new(Exit::Failure, format!("{}: {}", self.authority, harmless(reason)))
    }
}

fn nobody_runs(folder: Option<&Path>) -> Failure {
    let looked = folder.map(|folder| format!(" ({} names none)", folder.join("run.json").display()));
    let text = format!(
        "this needs a running server, and none was found{}; start one with `jackfield`, or name one with --server URL",
        looked.unwrap_or_default()
    );
    Failure::new(Exit::Failure, text)
}

/// Host and port of an address such as `ws://127.0.0.1:8787/ws`. Encryption is left to a tunnel.
fn authority_of(url: &str) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    if url.starts_with("wss://") || url.starts_with("https://") {
        return Err(usage(format!(
            "--server {url}: this client does not encrypt; connect through a tunnel to http://"
        )));
    }
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.map(|rest| rest.split('/').next().unwrap_or_default()).filter(|rest| !rest.is_empty());
    let Some(authority) = authority else {
        return Err(usage(format!("--server: expected an address such as http://127.0.0.1:8787, got {url:?}")));
    };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { authority.to_owned() } else { format!("{authority}:80") })
}

fn read_token(path: &Path) -> Result<GatewayKey, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("--token-file {}: {error}", path.display())))?;
    Ok(GatewayKey::new(text.trim()))
}

/// A text as one part of a path.
pub(super) fn path_part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, expected) in [
            ("ws://127.0.0.1:8787/ws", "127.0.0.1:8787"),
            ("http://localhost:8787/", "localhost:8787"),
            ("http://[::1]:1", "[::1]:1"),
            ("http://agent.example", "agent.example:80"),
        ] {
            assert_eq!(authority_of(given).ok().as_deref(), Some(expected));
        }
        for wrong in ["127.0.0.1:8787", "wss://h/ws", "https://h", "ws://", ""] {
            assert!(matches!(authority_of(wrong), Err(failure) if failure.exit == Exit::Usage), "{wrong}");
        }
    }

    #[test]
    fn a_name_survives_the_path() {
        assert_eq!(path_part("my notes/ä"), "my%20notes%2F%C3%A4");
    }
}
