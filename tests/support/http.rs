//! Plain HTTP requests, as a program makes them: one connection each, nothing of ours in between. Answers are checked: a
//! refusal of the admin API has the strict form of the protocol's `error` object.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{client::PATIENCE, frames::check_frame};

/// Requests to one server, as one caller.
#[derive(Clone, Debug)]
pub struct Http {
    addr: SocketAddr,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, in lower case, as they were sent.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Http {
    /// A caller without a token.
    pub fn to(addr: SocketAddr) -> Self {
        Self { addr, headers: Vec::new() }
    }

    /// The same caller with this token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// The same caller, sending this header, too; `Host` replaces the usual one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, None).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send_json("POST", path, &body).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send_json("PUT", path, &body).await
    }

    async fn send_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = self.clone().header("Content-Type", "application/json");
        json.request(method, path, Some(&body.to_string())).await
    }

    /// Any request, with any body and no content type but the caller's own.
    pub async fn request(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let has_host = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !has_host {
            text += &format!("Host: {}\r\n", self.addr);
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body.unwrap_or_default();
        let exchange = async {
            let mut stream = TcpStream::connect(self.addr).await.expect("the server listens");
            stream.write_all(text.as_bytes()).await.expect("the server takes the request");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("the server answers");
            String::from_utf8(answer).expect("the answer is text")
        };
        Answer::read(&timeout(PATIENCE, exchange).await.expect("the server answers in time"))
    }
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
        let answer = Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() };
        assert_ne!(answer.header("transfer-encoding"), Some("chunked"), "not read by this client");
        answer
    }

    /// The value of a header, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The body, which has to be JSON under this status.
    pub fn json_of(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        self.json()
    }

    /// Checks that this is a refusal of the admin API, in its strict form, and gives its sentence.
    pub fn refusal(&self, status: u16, code: &str) -> String {
        let body = self.json_of(status);
        assert_eq!((body["type"].as_str(), body["error"]["code"].as_str()), (Some("error"), Some(code)), "{body}");
        assert_eq!(body["error"], body["data"]["error"], "{body}");
        assert!(body.get("requestId").is_none(), "{body}");
        // The frame's form, under a code that frames have, too.
        let mut frame = body.clone();
        for copy in ["/error/code", "/data/error/code"] {
            *frame.pointer_mut(copy).expect("the two copies are equal") = json!("VALIDATION_ERROR");
        }
        check_frame(&frame).unwrap_or_else(|wrong| panic!("{wrong}: {body}"));
        body["error"]["message"].as_str().expect("the form was checked").to_owned()
    }
}

/// Asks for a path.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path, &[("host", "localhost")], "").await
}

/// Any request, with exactly these headers beside length and `connection`.
pub async fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let with = |http: Http, (name, value): &(&str, &str)| http.header(name, value);
    headers.iter().fold(Http::to(addr), with).request(method, path, Some(body)).await
}
