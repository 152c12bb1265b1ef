//! What the server asks of others over HTTP beside the model: key sets and policies. Small answers from addresses that
//! the operator configured, with a time and a size that end every wait. No proxy of the environment and no redirect is
//! followed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jackfield_plugin_api::GatewayKey;
use tokio::{sync::OnceCell, time::timeout};
use url::Url;

use crate::config::Limits;

/// Gets small documents.
#[derive(Debug)]
pub(crate) struct Fetcher {
    /// Made at the first use, because reading the system's certificates takes longer than starting the server.
    client: OnceCell<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    time: Duration,
    bytes: usize,
}

impl Fetcher {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { client: OnceCell::new(), time: limits.auth_fetch, bytes: limits.auth_fetch_bytes }
    }

    /// The status and the body behind an address. An error says in a few words why there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the request.
    pub(crate) async fn get(&self, url: &Url, bearer: Option<&GatewayKey>) -> Result<(StatusCode, Vec<u8>), String> {
        let fetched = timeout(self.time, self.fetch(url, bearer)).await;
        fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", self.time.as_secs_f32())))
    }

    async fn fetch(&self, url: &Url, bearer: Option<&GatewayKey>) -> Result<(StatusCode, Vec<u8>), String> {
        let client = self.client.get_or_try_init(|| client(url.scheme() == "https")).await?;
        let mut request = Request::get(url.as_str()).header(header::ACCEPT, "application/json");
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", bearer.reveal()));
        }
        let request = request.body(Full::default()).map_err(|_| "the address or the bearer token cannot be sent")?;
        let response = client.request(request).await.map_err(|error| root_cause(&error))?;
        let (status, mut incoming) = (response.status(), response.into_body());
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(bytes) = frame.map_err(|error| root_cause(&error))?.into_data() else { continue };
            if body.len() + bytes.len() > self.bytes {
                return Err(format!("the answer is longer than {} bytes", self.bytes));
            }
            body.extend_from_slice(&bytes);
        }
        Ok((status, body))
    }
}

async fn client(with_tls: bool) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String> {
    // Reading the certificates is file work.
    let tls = tokio::task::spawn_blocking(move || tls_config(with_tls)).await;
    let tls = tls.map_err(|error| error.to_string())??;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    Ok(Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp)))
}

/// The innermost reason; the outer ones only repeat that a request failed.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Without TLS no certificates are read. The crypto provider is named here, so that none has to be installed for the
/// whole process.
pub(crate) fn tls_config(with_certificates: bool) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if with_certificates {
        let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|error| error.to_string())?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    } else {
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    Ok(config)
}

/// Reads an address of a service that decides who may do what. Over plain HTTP only this machine is believed.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn trusted_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| error.to_string())?;
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err("over http:// anybody on the way could change the answer; use https://".to_owned()),
        _ => Err("it starts with neither http:// nor https://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for fine in ["https://id.example/keys", "http://127.0.0.1:1/keys", "http://localhost/x", "http://[::1]:1/"] {
            assert!(trusted_url(fine).is_ok(), "{fine}");
        }
        for wrong in ["http://id.example/keys", "ftp://127.0.0.1/", "keys", "", "http://127.0.0.1.evil.example/"] {
            assert!(trusted_url(wrong).is_err(), "{wrong}");
        }
    }
}
