//! What can go wrong on the way to the origin, by blame, mapped to what the agent and the record see.

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    http::head::BadTarget,
    model::{Failure, Host, Refusal},
    tls::origin::explain,
};

/// Why a permitted request or tunnel did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The resolver said that there is no such name.
    #[error("the name {0} does not exist")]
    NoSuchName(String),
    /// The resolver could not say.
    #[error("the name {name} could not be resolved: {detail}")]
    Resolve { name: String, detail: String },
    /// Every address of the name is one that policy refuses.
    #[error("{}", .0.verdict.reason)]
    Address(Box<Refusal>),
    #[error("connecting to {address} failed: {source}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The origin's certificate is not one that the gate trusts for the name: a sentence that says why.
    #[error("{0}")]
    Certificate(String),
    #[error("the TLS handshake with the origin failed: {0}")]
    Tls(String),
    /// The connection broke, or what came was not HTTP.
    #[error("the origin broke off: {0}")]
    Http(String),
    #[error("the origin sent no answer within {0:?}")]
    ResponseTimeout(Duration),
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// The agent's own body ended early, so the request could not be sent whole.
    #[error("the agent's request body broke off: {0}")]
    AgentBody(String),
    #[error("the tunnel broke: {0}")]
    Tunnel(#[from] io::Error),
}

impl ForwardError {
    pub(super) fn tls(host: &Host, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate(explain(why, host)),
            Some(other) => Self::Tls(other.to_string()),
            None => Self::Tls(error.to_string()),
        }
    }

    /// Stable code for flags, records and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchName(_) => "no_such_name",
            Self::Resolve { .. } => "resolve_failed",
            Self::Address(_) => "address_refused",
            Self::Connect { .. } => "connect_failed",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::Certificate(_) => "origin_certificate_invalid",
            Self::Tls(_) => "origin_tls_failed",
            Self::Http(_) => "origin_broke_off",
            Self::ResponseTimeout(_) => "response_timeout",
            Self::Target(_) => "bad_target",
            Self::AgentBody(_) => "agent_body_broke_off",
            Self::Tunnel(_) => "tunnel_broke",
        }
    }

    /// For the record.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let blame = match self {
            Self::Target(_) | Self::AgentBody(_) => "agent",
            Self::Address(_) => "policy",
            Self::NoSuchName(_)
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout(_)
            | Self::Certificate(_)
            | Self::Tls(_)
            | Self::Http(_)
            | Self::ResponseTimeout(_)
            | Self::Tunnel(_) => "origin",
        };
        Failure { blame: blame.to_owned(), code: self.code().to_owned(), detail: self.to_string() }
    }

    /// HTTP status for the agent.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Address(refusal) => refusal.status,
            Self::Target(_) | Self::AgentBody(_) => 400,
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) => 504,
            Self::NoSuchName(_)
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Certificate(_)
            | Self::Tls(_)
            | Self::Http(_)
            | Self::Tunnel(_) => 502,
        }
    }

    /// True where another try may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout(_)
            | Self::Http(_)
            | Self::ResponseTimeout(_)
            | Self::Tunnel(_) => true,
            Self::NoSuchName(_)
            | Self::Address(_)
            | Self::Certificate(_)
            | Self::Tls(_)
            | Self::Target(_)
            | Self::AgentBody(_) => false,
        }
    }
}
