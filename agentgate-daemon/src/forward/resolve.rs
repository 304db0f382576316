//! Names are resolved by the daemon itself: an address that the agent chose is never dialled for a
//! destination that was approved by name.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RecordType},
};

use super::ForwardError;
use crate::{
    model::{Authority, Host},
    policy::permit::AddressRule,
};

/// Most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// The daemon's own resolver.
#[derive(Clone)]
pub struct Resolver(Arc<TokioResolver>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver that asks `servers`, in turn, each by UDP and then TCP.
    ///
    /// # Errors
    /// A sentence saying why it could not be built.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let servers = servers
            .iter()
            .map(|server| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                NameServerConfig::new(server.ip(), true, connections)
            })
            .collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = Duration::from_secs(3);
        options.attempts = 2;
        options.cache_size = 4096;
        // A name that comes to exist (or moves) is noticed within minutes, whatever its zone says.
        options.positive_max_ttl = Some(Duration::from_secs(300));
        options.negative_max_ttl = Some(Duration::from_secs(10));
        Ok(Self(Arc::new(builder.build().map_err(|error| error.to_string())?)))
    }

    /// Addresses of `authority` that `rule` admits, in the order to try.
    ///
    /// # Errors
    /// [`ForwardError::NoSuchName`], [`ForwardError::Resolve`], or [`ForwardError::Address`] where
    /// every address is refused.
    pub async fn addresses(
        &self,
        authority: &Authority,
        rule: &dyn AddressRule,
    ) -> Result<Vec<SocketAddr>, ForwardError> {
        let found = match authority.host.as_ip() {
            Some(ip) => vec![ip],
            None => self.lookup(&authority.host).await?,
        };
        let mut admitted = Vec::new();
        let mut refused = None;
        for ip in found {
            let ip = ip.to_canonical();
            match rule.admits(ip, authority.port) {
                Ok(()) => admitted.push(SocketAddr::new(ip, authority.port)),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            Some(refusal) if admitted.is_empty() => Err(ForwardError::Address(Box::new(refusal))),
            Some(_) | None => Ok(admitted),
        }
    }

    /// Asks for records of any type, for somebody else: what comes back is the answer as it is, addresses
    /// unjudged. Shares its cache with [`Resolver::addresses`], so that both see the same answer.
    ///
    /// # Errors
    /// As the resolver has them; a negative answer is one.
    pub async fn answer(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        self.0.lookup(name, kind).await
    }

    async fn lookup(&self, host: &Host) -> Result<Vec<IpAddr>, ForwardError> {
        // The trailing dot keeps the host's search list out of it.
        let name = format!("{host}.");
        match self.0.lookup_ip(name.as_str()).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().take(MOST_ADDRESSES).collect();
                if addresses.is_empty() {
                    Err(ForwardError::NoSuchName(host.to_string()))
                } else {
                    Ok(addresses)
                }
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => {
                Err(ForwardError::NoSuchName(host.to_string()))
            }
            Err(error) => Err(ForwardError::Resolve { name: host.to_string(), detail: error.to_string() }),
        }
    }
}
