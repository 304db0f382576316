//! The way out. Everything here takes a permit by value: what was not judged cannot be sent, and
//! what was judged cannot be sent elsewhere.

mod connect;
mod copy;
mod error;
mod pool;
mod resolve;
pub mod tunnel;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

pub use error::ForwardError;
pub use resolve::Resolver;

use crate::{
    http::{
        head::{has_other_coding, to_origin},
        serve::FIELDS,
    },
    model::{Action, Flag, RecordId, Refusal, SessionId, Severity, Verdict},
    policy::{Permit, Scheme, TunnelPermit, TunnelTo, permit::AddressRule},
    tls::{Offer, OriginTls},
};
use pool::{Key, OriginBody, Pool, Ready};

/// The gate's own TCP ports: never dialled on a loopback address, whatever policy opens, or an agent
/// could reach the dashboard through the gate.
#[derive(Clone, Debug, Default)]
pub struct OwnPorts(pub Vec<u16>);

impl OwnPorts {
    /// The refusal for `address`, if it is one of the gate's own.
    fn objection(&self, address: SocketAddr, rule: &dyn AddressRule) -> Option<Refusal> {
        if !self.0.contains(&address.port()) || !rule.is_this_host(address.ip()) {
            return None;
        }
        let reason = "the gate's own ports are out of the agent's reach";
        Some(Refusal {
            verdict: Verdict {
                action: Action::Deny,
                rule: "invariant:gate_port".to_owned(),
                reason: reason.to_owned(),
            },
            flags: vec![Flag::new("gate_port", Severity::High, address.to_string())],
            status: 403,
            remedy: String::new(),
        })
    }
}

/// How long the origin may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// From the request to the response's head, and between two frames of a body.
    pub idle: Duration,
}

/// Largest response head.
const HEAD_BYTES: usize = 512 * 1024;
/// How long an HTTP/1.1 connection may need, after its response, to be ready for the next request.
const BECOMES_READY: Duration = Duration::from_secs(5);

/// The forwarder: resolver, verified TLS, pool.
pub struct Forwarder {
    resolver: Resolver,
    tls: OriginTls,
    pool: Arc<Pool>,
    deadlines: Deadlines,
    own: OwnPorts,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}

/// A response, and the connection it came on.
#[derive(Debug)]
pub struct Sent {
    pub response: Response<Incoming>,
    pub reuse: Reuse,
    /// What the policy flags about the address, where this request was the one that dialled.
    pub flags: Vec<Flag>,
}

/// The connection behind a response: given back to the pool once its body is complete, closed when
/// dropped.
#[derive(Debug)]
pub struct Reuse {
    sender: Option<http1::SendRequest<OriginBody>>,
    key: Key,
    pool: Arc<Pool>,
}

impl Reuse {
    /// Gives the connection back, as soon as it is ready for another request.
    pub fn complete(mut self) {
        let Some(mut sender) = self.sender.take() else {
            return;
        };
        if sender.is_ready() {
            self.pool.put(self.key, Ready::Http1(sender));
            return;
        }
        // The request's body may still be on its way out; the wait is bounded and owns only this.
        tokio::spawn(async move {
            if matches!(timeout(BECOMES_READY, sender.ready()).await, Ok(Ok(()))) {
                self.pool.put(self.key, Ready::Http1(sender));
            }
        });
    }
}

/// A tunnel that stands: nothing has passed yet.
#[derive(Debug)]
pub struct Tunnel {
    origin: TcpStream,
    /// What the policy flags about the address.
    pub flags: Vec<Flag>,
    idle: Duration,
}

impl Tunnel {
    /// Moves bytes both ways until both sides are done.
    ///
    /// # Errors
    /// [`ForwardError::Tunnel`].
    pub async fn carry<A: AsyncRead + AsyncWrite + Unpin>(self, agent: A) -> Result<(), ForwardError> {
        copy::copy(agent, self.origin, self.idle).await
    }
}

impl Forwarder {
    /// A forwarder with an empty pool.
    #[must_use]
    pub fn new(resolver: Resolver, tls: OriginTls, deadlines: Deadlines, own: OwnPorts) -> Self {
        Self { resolver, tls, pool: Arc::default(), deadlines, own }
    }

    /// Sends what `permit` permits, for `session` on the agent's connection `on`, with `body`.
    ///
    /// A pooled connection that turns out closed before anything was sent is replaced by a fresh
    /// one; a request of which anything was sent is never sent twice.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn send(
        &self,
        session: &SessionId,
        on: RecordId,
        permit: Permit,
        body: OriginBody,
    ) -> Result<Sent, ForwardError> {
        let (head, destination, rule) = permit.into_parts();
        let http2 = head.version == Version::HTTP_2;
        let connection = http2.then_some(on);
        let key = Key { session: session.clone(), connection, destination, http2, rule };
        let moving = body.activity();
        let mut request = Request::from_parts(head, body);
        let mut fresh = false;
        let mut flags = Vec::new();
        loop {
            let mut ready = match if fresh { None } else { self.pool.take(&key) } {
                Some(ready) => ready,
                None => {
                    fresh = true;
                    let (ready, found) = self.connect(&key).await?;
                    flags = found;
                    ready
                }
            };
            let version = match ready {
                Ready::Http1(_) => Version::HTTP_11,
                Ready::Http2(_) => Version::HTTP_2,
            };
            let (mut head, body) = request.into_parts();
            to_origin(&mut head, &key.destination, version)?;
            let prepared = Request::from_parts(head, body);
            let answer = async {
                match &mut ready {
                    Ready::Http1(sender) => sender.try_send_request(prepared).await,
                    Ready::Http2(sender) => sender.try_send_request(prepared).await,
                }
            };
            // A request that is still on its way up is no silence of the origin's.
            moving.touch();
            let answer = tokio::select! {
                answer = answer => answer,
                () = moving.silent_for(self.deadlines.idle) => {
                    return Err(ForwardError::ResponseTimeout(self.deadlines.idle));
                }
            };
            match answer {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(ForwardError::Http("it switched protocols unasked".to_owned()));
                }
                Ok(response) if has_other_coding(response.headers()) => {
                    return Err(ForwardError::Http("a transfer coding that is not carried".to_owned()));
                }
                Ok(response) => {
                    let sender = match ready {
                        Ready::Http1(sender) => Some(sender),
                        Ready::Http2(_) => None,
                    };
                    return Ok(Sent {
                        response,
                        reuse: Reuse { sender, key, pool: self.pool.clone() },
                        flags,
                    });
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) | None => return Err(ForwardError::http(error.error())),
                },
            }
        }
    }

    /// Connects to where `permit` permits.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn tunnel(&self, permit: TunnelPermit) -> Result<Tunnel, ForwardError> {
        let (to, rule) = permit.into_parts();
        let addresses = match to {
            TunnelTo::Name(authority) => self.resolver.addresses(&authority, rule.as_ref()).await?,
            // Judged by this very address.
            TunnelTo::Address(address) => vec![address],
        };
        let (origin, flags) = self.dial(addresses, rule.as_ref()).await?;
        Ok(Tunnel { origin, flags, idle: self.deadlines.idle })
    }

    /// Closes pooled connections that have been idle too long.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    async fn connect(&self, key: &Key) -> Result<(Ready, Vec<Flag>), ForwardError> {
        let Key { destination, rule, .. } = key;
        let addresses = self.resolver.addresses(&destination.authority, rule.as_ref()).await?;
        let (tcp, flags) = self.dial(addresses, rule.as_ref()).await?;
        let ready = if destination.scheme == Scheme::Http {
            if key.http2 { self.http2(key, tcp).await? } else { http1(tcp).await? }
        } else {
            let tls = connect::tls(
                self.tls.towards(
                    &destination.authority.host,
                    destination.authority.port,
                    if key.http2 { Offer::Both } else { Offer::Http1 },
                ),
                &destination.authority.host,
                tcp,
                self.deadlines.connect,
            )
            .await?;
            if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                self.http2(key, tls).await?
            } else {
                http1(tls).await?
            }
        };
        Ok((ready, flags))
    }

    /// The only place that opens a connection to an origin.
    async fn dial(
        &self,
        mut addresses: Vec<SocketAddr>,
        rule: &dyn AddressRule,
    ) -> Result<(TcpStream, Vec<Flag>), ForwardError> {
        let refused = addresses.iter().find_map(|address| self.own.objection(*address, rule));
        addresses.retain(|address| self.own.objection(*address, rule).is_none());
        if let Some(refusal) = refused
            && addresses.is_empty()
        {
            return Err(ForwardError::Address(Box::new(refusal)));
        }
        let (stream, address) = connect::tcp(&addresses, self.deadlines.connect).await?;
        Ok((stream, rule.flags(address.ip(), address.port())))
    }

    /// HTTP/2 over `io`; further requests of the key share it from here on.
    async fn http2<S>(&self, key: &Key, io: S) -> Result<Ready, ForwardError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(30))
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| ForwardError::http(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to an origin ended");
            }
        });
        self.pool.put(key.clone(), Ready::Http2(sender.clone()));
        Ok(Ready::Http2(sender))
    }
}

async fn http1<S>(io: S) -> Result<Ready, ForwardError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(FIELDS)
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ForwardError::http(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/1.1 connection to an origin ended");
        }
    });
    Ok(Ready::Http1(sender))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{HostFacts, Policy};

    #[test]
    fn own_ports_are_own_in_every_spelling() {
        let own = OwnPorts(vec![7878]);
        let host = HostFacts {
            addresses: vec!["192.168.7.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
            nat64: vec!["2001:db8:64::/96".parse().unwrap()],
        };
        let rule = Policy::closed().with_host(&host).addresses();
        for (address, refused) in [
            ("127.0.0.1:7878", true),
            ("127.8.9.1:7878", true),
            ("[::1]:7878", true),
            ("[::ffff:127.0.0.1]:7878", true),
            ("0.0.0.0:7878", true),
            ("[::]:7878", true),
            ("192.168.7.5:7878", true),
            ("[::ffff:192.168.7.5]:7878", true),
            ("[2001:db8::5]:7878", true),
            ("[64:ff9b::127.0.0.1]:7878", true),
            ("[2001:db8:64::192.168.7.5]:7878", true),
            ("127.0.0.1:80", false),
            ("192.168.7.5:80", false),
            ("192.168.7.6:7878", false),
            ("198.51.100.10:7878", false),
        ] {
            assert_eq!(
                own.objection(address.parse().unwrap(), rule.as_ref()).is_some(),
                refused,
                "{address}"
            );
        }
    }
}
