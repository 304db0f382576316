//! Checkpoints posted to an `https://` address. A connection for each, HTTP/1.1; the server is verified as
//! origins are; a redirection is an answer like any other that is no success.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{Method, Request, header};
use http_body_util::Full;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::AnchorError;
use crate::{
    config::Webhook,
    model::Host,
    tls::{Offer, OriginTls},
};

/// Whom to post to.
pub(super) struct Poster {
    to: Webhook,
    /// `None` where its host is no name.
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Poster {
    pub(super) fn new(to: Webhook, tls: &OriginTls) -> Self {
        let host = Host::parse(&to.host).ok();
        let tls = host.map(|host| tls.towards(&host, to.port, Offer::Http1).clone());
        Self { to, tls }
    }

    /// Returns when the answer says that it was taken.
    pub(super) async fn post(&self, line: &str) -> Result<(), AnchorError> {
        let Webhook { host, port, target } = &self.to;
        let tls = self.tls.clone().ok_or(AnchorError::Host)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| AnchorError::Host)?;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let bracketed = if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let authority = if *port == 443 { bracketed } else { format!("{bracketed}:{port}") };
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("agentgate/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(format!("{line}\n"))))?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            // What it says besides is of no interest.
            if answer.status().is_success() { Ok(()) } else { Err(AnchorError::Refused(answer.status())) }
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            ended = connection => ended?,
        }
        // The answer may have been the last that came.
        answer.await
    }
}
