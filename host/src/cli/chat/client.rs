//! One WebSocket connection to a server: frames out, frames in, and a limit for every wait.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jackfield_plugin_api::GatewayKey;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error, Message, http::StatusCode},
};

use super::{
    super::{Exit, Failure, terminal::harmless},
    frames::{Incoming, Outgoing},
};

/// How long a server may take to accept, to answer the first frame and to say goodbye.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A server sends `keepalive` every 25 s while a turn runs; after this much silence it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub(super) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Connects; the token travels in the address, as for every client of the protocol.
    pub(super) async fn connect(url: &str, token: Option<&GatewayKey>) -> Result<Self, Failure> {
        let address = checked_url(url)?;
        let request = match token {
            Some(token) => format!("{address}?token={}", percent_encoded(token.reveal())),
            None => address.clone(),
        };
        // Small frames at once: a reply must not wait for an acknowledgement.
        let without_delay = true;
        match timeout(ANSWER_TIMEOUT, connect_async_with_config(request, None, without_delay)).await {
            Ok(Ok((socket, _))) => Ok(Self { socket }),
            Ok(Err(error)) => Err(not_connected(&address, error)),
            Err(_) => Err(Failure::new(Exit::Failure, format!("{address} did not answer within 10 s"))),
        }
    }

    /// Opens a session and returns its id.
    pub(super) async fn create_session(&mut self) -> Result<String, Failure> {
        self.send(&Outgoing::session()).await?;
        let answer = timeout(ANSWER_TIMEOUT, self.next()).await;
        let (text, frame) =
            answer.map_err(|_| Failure::new(Exit::Failure, "the server opened no session within 10 s"))??;
        match frame {
            Incoming::ImmediateResponse { data } if data.session_id.is_some() => {
                Ok(data.session_id.unwrap_or_default())
            }
            Incoming::Error { error } => {
                let text = format!("the server opened no session: {} ({})", harmless(&error.message), error.code);
                Err(Failure::new(Exit::Failure, text))
            }
            _ => Err(unexpected(&text)),
        }
    }

    /// Sends one frame.
    pub(super) async fn send(&mut self, frame: &Outgoing<'_>) -> Result<(), Failure> {
        let text = serde_json::to_string(frame).map_err(anyhow::Error::from)?;
        self.socket.send(Message::text(text)).await.map_err(|error| gone(&error.to_string()))
    }

    /// The next frame, as text and read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no frame.
    pub(super) async fn next(&mut self) -> Result<(String, Incoming), Failure> {
        loop {
            let message =
                timeout(SILENCE_MAX, self.socket.next()).await.map_err(|_| gone("it was silent for 120 s"))?;
            match message {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).map_err(|_| unexpected(&text))?;
                    return Ok((text.as_str().to_owned(), frame));
                }
                Some(Ok(Message::Close(Some(close)))) => return Err(gone(&format!("{} {}", close.code, close.reason))),
                Some(Ok(Message::Close(None))) | None => return Err(gone("without a reason")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(gone(&error.to_string())),
            }
        }
    }

    /// Says goodbye. A server that does not answer is left alone.
    pub(super) async fn close(mut self) {
        let _ = timeout(ANSWER_TIMEOUT, self.socket.close(None)).await;
    }
}

/// The address with its path. Encryption is left to a tunnel: a server of this kind is on this machine.
fn checked_url(url: &str) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    if url.starts_with("wss://") || url.starts_with("https://") {
        return Err(usage(format!("--server {url}: this client does not encrypt; connect through a tunnel to ws://")));
    }
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.trim_end_matches('/')).filter(|rest| !rest.is_empty());
    match rest {
        Some(rest) if rest.contains('/') => Ok(format!("ws://{rest}")),
        Some(rest) => Ok(format!("ws://{rest}/ws")),
        None => Err(usage(format!("--server: expected an address such as ws://127.0.0.1:8787/ws, got {url:?}"))),
    }
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn not_connected(address: &str, error: Error) -> Failure {
    let text = match error {
        Error::Http(response) if response.status() == StatusCode::UNAUTHORIZED => {
            format!("{address} wants a token; name a file that holds it with --token-file")
        }
        Error::Http(response) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{address} answered {}: {}", response.status(), harmless(body.trim()))
        }
        error => format!("{address} cannot be reached ({error}); start a server with `jackfield serve`"),
    };
    Failure::new(Exit::Failure, text)
}

fn gone(reason: &str) -> Failure {
    Failure::new(Exit::Failure, format!("the server closed the connection: {}", harmless(reason)))
}

fn unexpected(text: &str) -> Failure {
    let shown: String = harmless(text).chars().take(200).collect();
    Failure::new(Exit::Failure, format!("the server sent something that is not of this protocol: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, expected) in [
            ("ws://127.0.0.1:8787/ws", "ws://127.0.0.1:8787/ws"),
            ("http://localhost:8787/", "ws://localhost:8787/ws"),
            ("ws://[::1]:1", "ws://[::1]:1/ws"),
        ] {
            assert_eq!(checked_url(given).ok().as_deref(), Some(expected));
        }
        for wrong in ["127.0.0.1:8787", "wss://h/ws", "ws://", ""] {
            assert!(matches!(checked_url(wrong), Err(failure) if failure.exit == Exit::Usage), "{wrong}");
        }
    }

    #[test]
    fn a_token_survives_the_address() {
        assert_eq!(percent_encoded("aZ9-._~"), "aZ9-._~");
        assert_eq!(percent_encoded("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
