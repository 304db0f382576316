//! Bare relays. `splice` copies TCP; `tls` is the floor: it terminates and originates TLS and copies what is
//! within, and parses nothing. Nobody who intercepts TLS in user space does less.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use anyhow::Context as _;
use rcgen::{Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    server::{Acceptor, ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::{
    io::{BufReader, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::pki;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Kind {
    /// TCP
    Splice(Ends),
    /// TLS on both sides
    Tls {
        #[command(flatten)]
        ends: Ends,
        /// Directory of the certificates
        #[arg(long)]
        pki: PathBuf,
        /// Resume sessions with the origin
        #[arg(long)]
        resume: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ends {
    #[arg(long)]
    listen: SocketAddr,
    /// The origin
    #[arg(long)]
    to: SocketAddr,
    /// Bytes of each of a connection's two buffers
    #[arg(long)]
    buffer: Option<usize>,
    /// Bytes that `tls` reads from a socket at once
    #[arg(long, default_value_t = AHEAD)]
    ahead: usize,
}

/// As `cp` has it: long copies with few calls.
const SPLICE_BUFFER: usize = 64 * 1024;
/// rustls asks for 4 KiB at a time: a record took five calls.
const AHEAD: usize = 32 * 1024;
/// Two records of TLS, as much as is read ahead.
const TLS_BUFFER: usize = 32 * 1024;

pub(crate) fn run(kind: &Kind) -> anyhow::Result<()> {
    let (ends, floor) = match kind {
        Kind::Splice(ends) => (ends, None),
        Kind::Tls { ends, pki, resume } => (ends, Some(Arc::new(Floor::new(pki, *resume)?))),
    };
    let buffer = ends.buffer.unwrap_or(if floor.is_some() { TLS_BUFFER } else { SPLICE_BUFFER });
    let (to, ahead) = (ends.to, ends.ahead);
    crate::runtime()?.block_on(async {
        let listener = TcpListener::bind(ends.listen).await.context("bind")?;
        tokio::spawn(async move {
            loop {
                let Ok((agent, _)) = listener.accept().await else { continue };
                let floor = floor.clone();
                // How a connection ends is between the two ends of it.
                tokio::spawn(async move {
                    match floor {
                        Some(floor) => floor.carry(agent, to, buffer, ahead).await,
                        None => copy(agent, to, buffer).await,
                    }
                });
            }
        });
        crate::serve_until_told().await
    })
}

async fn dial(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn copy(mut agent: TcpStream, to: SocketAddr, buffer: usize) -> anyhow::Result<()> {
    agent.set_nodelay(true)?;
    let mut origin = dial(to).await?;
    copy_bidirectional_with_sizes(&mut agent, &mut origin, buffer, buffer).await?;
    Ok(())
}

/// The relay that knows TLS.
#[derive(Debug)]
struct Floor {
    roots: Arc<RootCertStore>,
    leaves: Arc<Leaves>,
    resume: bool,
    /// By what the origin chose.
    servers: Mutex<HashMap<Option<Vec<u8>>, Arc<ServerConfig>>>,
    /// By what the agent offered.
    clients: Mutex<HashMap<Vec<Vec<u8>>, Arc<ClientConfig>>>,
}

impl Floor {
    fn new(pki: &std::path::Path, resume: bool) -> anyhow::Result<Self> {
        Ok(Self {
            roots: Arc::new(pki::roots(&pki.join("origin-ca.pem"))?),
            leaves: Arc::new(Leaves::new(pki)?),
            resume,
            servers: Mutex::default(),
            clients: Mutex::default(),
        })
    }

    async fn carry(
        &self,
        agent: TcpStream,
        to: SocketAddr,
        buffer: usize,
        ahead: usize,
    ) -> anyhow::Result<()> {
        agent.set_nodelay(true)?;
        let start =
            LazyConfigAcceptor::new(Acceptor::default(), BufReader::with_capacity(ahead, agent)).await?;
        let hello = start.client_hello();
        let name = hello.server_name().context("no name")?.to_owned();
        let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        let connector = TlsConnector::from(self.client(offered));
        let origin = BufReader::with_capacity(ahead, dial(to).await?);
        let mut origin = connector.connect(ServerName::try_from(name)?, origin).await?;
        let chosen = origin.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let mut agent = start.into_stream(self.server(chosen)).await?;
        copy_bidirectional_with_sizes(&mut agent, &mut origin, buffer, buffer).await?;
        Ok(())
    }

    fn client(&self, offered: Vec<Vec<u8>>) -> Arc<ClientConfig> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let made = |offered: &Vec<Vec<u8>>| {
            let builder = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots));
            let mut config = builder.with_no_client_auth();
            config.alpn_protocols.clone_from(offered);
            if !self.resume {
                config.resumption = Resumption::disabled();
            }
            Arc::new(config)
        };
        Arc::clone(clients.entry(offered).or_insert_with_key(made))
    }

    fn server(&self, chosen: Option<Vec<u8>>) -> Arc<ServerConfig> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = |chosen: &Option<Vec<u8>>| {
            let leaves: Arc<Leaves> = Arc::clone(&self.leaves);
            let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(leaves);
            config.alpn_protocols = chosen.iter().cloned().collect();
            Arc::new(config)
        };
        Arc::clone(servers.entry(chosen).or_insert_with_key(made))
    }
}

/// Leaves by name, all with one key.
struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    minted: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves").field("algorithm", &self.key.algorithm()).finish_non_exhaustive()
    }
}

impl Leaves {
    fn new(dir: &std::path::Path) -> anyhow::Result<Self> {
        let certificate = std::fs::read_to_string(dir.join("mitm-ca.pem"))?;
        let authority = KeyPair::from_pem(&std::fs::read_to_string(dir.join("mitm-ca.key"))?)?;
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = CryptoProvider::get_default().context("no provider")?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, authority)?,
            signer: provider.key_provider.load_private_key(der)?,
            key,
            minted: RwLock::default(),
        })
    }

    fn mint(&self, name: &str) -> anyhow::Result<Arc<CertifiedKey>> {
        let certificate = pki::leaf(vec![name.to_owned()])?.signed_by(&self.key, &self.issuer)?;
        Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.signer))))
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        if let Some(leaf) = self.minted.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(Arc::clone(leaf));
        }
        let leaf = self.mint(name).ok()?;
        let mut minted = self.minted.write().unwrap_or_else(PoisonError::into_inner);
        minted.insert(name.to_owned(), Arc::clone(&leaf));
        Some(leaf)
    }
}
