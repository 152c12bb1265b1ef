//! HTTP for streamed replies: connections that stay open between calls and are driven by the task that reads them.
//!
//! ```text
//! send ─▶ idle connection, or a fresh one ─▶ Response<ReplyBody> ─▶ poll_data … end ─▶ idle again
//! ```
//!
//! hyper moves the bytes of a connection only while somebody polls it. A general client does that in a task of its own
//! and hands over every piece of a body through a channel, which costs a stream of tokens two task switches each. Here
//! whoever reads the body polls the connection, too, so that all pieces of one network read are there at once.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, time::Instant};
use tower_service::Service;

use crate::{config::Limits, outbound::root_cause};

/// Makes and keeps the connections to one gateway.
pub(super) struct Transport {
    /// Scheme, host and port.
    server: Uri,
    connector: HttpsConnector<HttpConnector>,
    connect_timeout: Duration,
    idle: IdleConnections,
}

/// Connections that wait for the next call, the one used last on top.
#[derive(Clone)]
struct IdleConnections {
    /// Held for a few lines, never across an await.
    waiting: Arc<Mutex<Vec<(Connection, Instant)>>>,
    /// How long one may wait.
    age_max: Duration,
    /// How many may wait.
    count_max: usize,
}

type Driver = http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>;

/// One connection. Nothing happens on it unless it is polled.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Empty once it has ended.
    driver: Option<Pin<Box<Driver>>>,
}

/// The body of a reply, with the connection it comes on. Dropping it before its end closes the connection, which is how
/// a gateway learns that nobody wants the rest.
pub(super) struct ReplyBody {
    incoming: Incoming,
    /// Empty once the body has ended.
    connection: Option<Connection>,
    idle: IdleConnections,
}

/// Why a request got no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// There is no connection.
    Connect(String),
    /// The connection broke before a response came.
    Broken(String),
}

impl Transport {
    /// A transport that has not connected to anything yet. `server` is `http://…` or, checked by `tls`, `https://…`.
    pub(super) fn new(server: Uri, tls: rustls::ClientConfig, limits: &Limits) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self {
            server,
            connector: connector.wrap_connector(tcp),
            connect_timeout: limits.model_connect,
            idle: IdleConnections {
                waiting: Arc::default(),
                age_max: limits.model_pool_idle,
                count_max: limits.model_pool_connections,
            },
        }
    }

    /// Sends a request, whose address is only a path and whose headers name the host, and waits for the head of its
    /// response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<ReplyBody>, SendError> {
        let mut connection = match self.idle.take().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = connection.send(request).await.map_err(|error| SendError::Broken(root_cause(&error)))?;
        let idle = self.idle.clone();
        Ok(response.map(|incoming| ReplyBody { incoming, connection: Some(connection), idle }))
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let mut connector = self.connector.clone();
        let connecting = async {
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(self.server.clone()).await
        };
        let io = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| SendError::Connect("no connection in time".to_owned()))?
            .map_err(|error| SendError::Connect(root_cause(&*error)))?;
        let (sender, driver) = http1::handshake(io).await.map_err(|error| SendError::Connect(root_cause(&error)))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }
}

impl IdleConnections {
    /// The connection that was used last, if it is still good. The others are older, so those that waited for too long
    /// are at the bottom.
    async fn take(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.lock().pop()?;
            if since.elapsed() > self.age_max {
                self.lock().clear();
                return None;
            }
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        let mut waiting = self.lock();
        waiting.retain(|(_, since)| since.elapsed() <= self.age_max);
        if waiting.len() < self.count_max {
            waiting.push((connection, Instant::now()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Moves what bytes there are to move.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(context)
        {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the model gateway ended");
            }
            self.driver = None;
        }
    }

    /// Whether the connection can take a request: the other side may have closed it while it waited.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            Poll::Ready(self.driver.is_some() && self.sender.is_ready())
        })
        .await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let mut response = Box::pin(self.sender.send_request(request));
        poll_fn(|context| {
            // The second look is for what driving has brought.
            if let Poll::Ready(response) = response.as_mut().poll(context) {
                return Poll::Ready(response);
            }
            self.drive(context);
            response.as_mut().poll(context)
        })
        .await
    }
}

impl ReplyBody {
    /// The next piece of the body; `None` at its end, where the connection is kept for the next call.
    pub(super) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    connection.drive(context);
                    std::task::ready!(Pin::new(&mut self.incoming).poll_frame(context))
                }
            };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(data))),
                // Trailers mean nothing here.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    connection.drive(context);
                    let connection = self.connection.take().filter(|connection| connection.sender.is_ready());
                    if let Some(connection) = connection {
                        self.idle.put(connection);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// As [`poll_data`](Self::poll_data).
    pub(super) async fn data(&mut self) -> Option<hyper::Result<Bytes>> {
        poll_fn(|context| self.poll_data(context)).await
    }
}
