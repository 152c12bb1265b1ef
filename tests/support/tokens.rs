//! Tokens as an issuer signs them, and the address where an issuer publishes its keys.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// The public half of [`rs256`]'s key, as a configuration names it.
pub const RSA_PUBLIC_KEY: &str = include_str!("../fixtures/keys/rsa-public.pem");
const RSA_PRIVATE_KEY: &str = include_str!("../fixtures/keys/rsa-private.pem");

/// Claims of a user that are good for an hour.
pub fn claims(user: &str, org: &str, role: &str) -> Value {
    json!({
        "sub": user, "org": org, "role": role, "email": format!("{user}@{org}.example"), "exp": now() + 3600
    })
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.expect("it is after 1970").as_secs()
}

/// The part of a token that is signed.
fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A token with these very parts.
pub fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = unsigned(header, claims);
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// A token that is signed with a shared secret.
pub fn hs256(secret: &str, claims: &Value) -> String {
    token(&json!({"alg": "HS256", "typ": "JWT"}), claims, |text| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text).as_ref().to_vec()
    })
}

/// A token that is signed with the fixture's RSA key.
pub fn rs256(claims: &Value) -> String {
    let base64: String = RSA_PRIVATE_KEY.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = STANDARD.decode(base64).ok().and_then(|der| RsaKeyPair::from_pkcs8(&der).ok()).expect("the key is one");
    token(&json!({"alg": "RS256", "typ": "JWT"}), claims, |text| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("the key signs");
        signature
    })
}

/// A key of an elliptic curve, made for one test.
pub struct EcKey {
    kid: String,
    pair: EcdsaKeyPair,
}

impl EcKey {
    /// A fresh key with this id.
    pub fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there is randomness");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("the key is one");
        Self { kid: kid.to_owned(), pair }
    }

    /// Its entry in a key set.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": coordinate(x), "y": coordinate(y)})
    }

    /// A token that it has signed.
    pub fn sign(&self, claims: &Value) -> String {
        token(&json!({"alg": "ES256", "kid": self.kid}), claims, |text| {
            self.pair.sign(&SystemRandom::new(), text).expect("the key signs").as_ref().to_vec()
        })
    }
}

/// A small service on loopback that answers every GET with what it is told to.
#[derive(Clone)]
pub struct Service {
    addr: SocketAddr,
    state: Arc<Mutex<ServiceState>>,
}

struct ServiceState {
    status: u16,
    body: String,
    requests: Vec<String>,
}

impl Service {
    /// Answers 200 and this.
    pub async fn start(body: &Value) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = ServiceState { status: 200, body: body.to_string(), requests: Vec::new() };
        let service = Self { addr, state: Arc::new(Mutex::new(state)) };
        let serving = service.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 16 * 1024];
                let Ok(length) = stream.read(&mut request).await else { continue };
                let answer = serving.answer(&String::from_utf8_lossy(&request[..length]));
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        service
    }

    fn answer(&self, request: &str) -> String {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request.to_owned());
        let ServiceState { status, body, .. } = &*state;
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Answers this from now on.
    pub fn answers(&self, status: u16, body: &Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.status, state.body) = (status, body.to_string());
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests so far, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}
