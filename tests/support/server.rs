//! A real server on a real port, with whatever gateway and configuration a test wants.

use std::{net::SocketAddr, time::Duration};

use jackfield::{
    ServerConfig,
    local::{LocalServer, LocalServerBuilder},
};
use jackfield_plugin_api::GatewayKey;

use crate::{
    client::TestClient,
    model::{ScriptedModel, script::Script},
};

/// The key that the server shows to the scripted gateway; no frame, log or plugin may ever show it.
pub const CANARY_KEY: &str = "canary-gateway-key-5f1d";

/// A running server and the gateway it talks to.
pub struct TestServer {
    server: LocalServer,
    model: Option<ScriptedModel>,
}

impl TestServer {
    /// A server whose gateway answers by this script.
    pub async fn with_model(script: impl Into<Script>) -> Self {
        Self::build(script, |builder| builder).await
    }

    /// As [`with_model`](Self::with_model), with a configuration of the test's own.
    pub async fn with_config(script: impl Into<Script>, change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::build_with(script, change, |builder| builder).await
    }

    /// As [`with_model`](Self::with_model), with a builder of the test's own.
    pub async fn build(
        script: impl Into<Script>,
        change: impl FnOnce(LocalServerBuilder) -> LocalServerBuilder,
    ) -> Self {
        Self::build_with(script, |_| {}, change).await
    }

    /// As [`with_model`](Self::with_model), with a configuration and a builder of the test's own.
    pub async fn build_with(
        script: impl Into<Script>,
        configure: impl FnOnce(&mut ServerConfig),
        build: impl FnOnce(LocalServerBuilder) -> LocalServerBuilder,
    ) -> Self {
        let model = ScriptedModel::start(script).await;
        let mut config = config_for(&model);
        configure(&mut config);
        let builder = LocalServer::builder().addr(any_port()).config(config);
        Self { server: build(builder).spawn().await.expect("the server starts"), model: Some(model) }
    }

    /// A server without a gateway key.
    pub async fn without_key() -> Self {
        let builder = LocalServer::builder().addr(any_port()).config(ServerConfig::default());
        Self { server: builder.spawn().await.expect("the server starts"), model: None }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What a client connects to.
    pub fn ws_url(&self) -> String {
        self.server.ws_url()
    }

    /// A new connection.
    pub async fn connect(&self) -> TestClient {
        TestClient::connect(&self.ws_url()).await
    }

    /// The gateway.
    pub fn model(&self) -> &ScriptedModel {
        self.model.as_ref().expect("this server has a gateway")
    }

    /// Stops the server and checks the gateway's complaints.
    pub async fn shutdown(self) {
        tokio::time::timeout(Duration::from_secs(20), self.server.shutdown())
            .await
            .expect("the server stops in time")
            .expect("the server stops without an error");
    }

    /// The server's own handle, and the gateway.
    pub fn into_parts(self) -> (LocalServer, ScriptedModel) {
        (self.server, self.model.expect("this server has a gateway"))
    }

    /// The server's own handle.
    pub fn into_handle(self) -> LocalServer {
        self.server
    }
}

/// A free port of the loopback address.
pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A configuration that asks this gateway.
pub fn config_for(model: &ScriptedModel) -> ServerConfig {
    let mut config = ServerConfig::default();
    config.gateway_url = model.base_url();
    config.gateway_key = Some(GatewayKey::new(CANARY_KEY));
    config.model = "scripted".to_owned();
    config.limits.model_retry_base = Duration::from_millis(10);
    config.limits.model_retry_max = Duration::from_millis(50);
    config
}
