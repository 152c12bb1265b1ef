//! Reads what a browser puts into `Host` and `Origin`. Pure; both answers are in one canonical form, so that equal
//! things compare equal.

use std::net::Ipv6Addr;

/// A host and perhaps a port, as in the `Host` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Lower case, without a final dot; an IPv6 address without its brackets.
    pub host: String,
    /// The port, when one is written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']')?;
                let address: Ipv6Addr = inside.parse().ok()?;
                (address.to_string(), after)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (host_name(&text[..end])?, &text[end..])
            }
        };
        let port = match port {
            "" => None,
            port => Some(parse_port(port.strip_prefix(':')?)?),
        };
        Some(Self { host, port })
    }

    /// The text that reads back as the same authority.
    pub fn to_text(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

/// An origin: scheme, host and port, as in the `Origin` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebOrigin {
    /// Of a page with an address.
    Page {
        /// Lower case, `http`, `https`, `chrome-extension`, …
        scheme: String,
        /// Host and port; the scheme's default port is filled in.
        authority: Authority,
    },
    /// Of a page without one: a local file, a sandboxed frame.
    Null,
}

impl WebOrigin {
    /// Reads `scheme://host[:port]` or `null`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let mut letters = scheme.chars();
        let starts_well = letters.next().is_some_and(|letter| letter.is_ascii_lowercase());
        if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter)) {
            return None;
        }
        let mut authority = Authority::parse(rest)?;
        authority.port = authority.port.or(default_port(&scheme));
        Some(Self::Page { scheme, authority })
    }
}

/// The port that an address of this scheme means when it names none.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn host_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let is_label = |label: &str| !label.is_empty() && label.chars().all(fits);
    text.split('.').all(is_label).then(|| text.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn authorities() {
        for (text, canonical) in [
            ("LocalHost:8787", "localhost:8787"),
            ("localhost.", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[0:0::1]:80", "[::1]:80"),
            ("my_host-1.example", "my_host-1.example"),
        ] {
            assert_eq!(Authority::parse(text).unwrap().to_text(), canonical);
        }
        for text in
            ["", ":80", "a b", "a:b", "a:", "a:+80", "a:99999", "user@host", "::1", "[::1", "[::1]x", "[host]", "a/b"]
        {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn origins() {
        assert_eq!(WebOrigin::parse("http://A.example"), WebOrigin::parse("HTTP://a.example:80"));
        assert_ne!(WebOrigin::parse("http://a.example"), WebOrigin::parse("https://a.example"));
        assert_eq!(WebOrigin::parse("null"), Some(WebOrigin::Null));
        for text in ["", "*", "Null", "a.example", "http://", "http://a.example/", "://a", "1x://a", "http:/a"] {
            assert_eq!(WebOrigin::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "[A-Za-z0-9.:\\[\\]-]{0,20}") {
            if let Some(authority) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&authority.to_text()), Some(authority));
            }
        }
    }
}
