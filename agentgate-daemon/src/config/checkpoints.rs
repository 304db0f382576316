//! `[audit.checkpoints]`: where the log's signed checkpoints are sent, so that somebody else can tell when its end
//! was cut off.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::paths;

/// `[audit.checkpoints]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// A file that they are appended to, one JSON object a line; best on another disk or one that only takes
    /// additions.
    #[serde(with = "paths::optional")]
    pub file: Option<PathBuf>,
    /// Who takes syslog messages: the path of a socket such as `/dev/log`, or `udp://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
    /// Who takes them by POST: an `https://` address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Seconds between two, where something was recorded; there is one more when the daemon stops.
    pub every: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { file: None, syslog: None, webhook: None, every: 60 }
    }
}

impl Checkpoints {
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.every)
    }
}

/// Where syslog messages go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Syslog {
    /// A datagram socket of this host.
    Local(PathBuf),
    /// `HOST:PORT`.
    Udp(String),
}

impl TryFrom<String> for Syslog {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('/') {
            return Ok(Self::Local(text.into()));
        }
        let place = text.strip_prefix("udp://").unwrap_or_default();
        let port = place.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0).then_some(port)
        });
        match port {
            Some(_) => Ok(Self::Udp(place.to_owned())),
            None => Err("neither the path of a socket nor udp://HOST:PORT"),
        }
    }
}

impl From<Syslog> for String {
    fn from(syslog: Syslog) -> Self {
        match syslog {
            Syslog::Local(path) => path.display().to_string(),
            Syslog::Udp(place) => format!("udp://{place}"),
        }
    }
}

/// An address that is posted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Webhook {
    /// Name or address, without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl TryFrom<String> for Webhook {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let uri: http::Uri = text.parse().map_err(|_| "no address")?;
        if uri.scheme_str() != Some("https") {
            return Err("not an https:// address");
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or("an address without a host, or with a user")?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            target: target.to_owned(),
        })
    }
}

impl From<Webhook> for String {
    fn from(Webhook { host, port, target }: Webhook) -> Self {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("https://{host}:{port}{target}")
    }
}
