//! Constructs and binds the gate; `running` runs and drains it: every task of the daemon is owned here.
//!
//! The order is the promise: the programs are attached before anything is admitted, every socket is
//! bound before anything runs, and readiness is told when all of it stands. On the way out nothing
//! opens the gate: the programs stay attached, and without a listener every connection is refused.

mod elsewhere;
mod process;
mod running;
mod upkeep;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, UnixListener};

pub use self::process::{check, run};
use self::upkeep::Wanted;
use crate::{
    anchors::{self, Anchor, Anchors},
    audit::{Audit, AuditOptions, AuditThread},
    chain::Line,
    config::{Config, CrlDepth, Lenience, Origin},
    conn::Stages,
    control::{Door, Enroller, socket},
    dashboard::Token,
    dns,
    drain::Drain,
    exchange::{self, Exchanger},
    forward::{self, Forwarder, Resolver},
    handover::Sockets,
    host,
    http::{gauge::Budget, serve},
    kernel::{GuardedCgroup, Kernel, since_boot_ns},
    launch,
    listen::Listeners,
    model::Timestamp,
    reconcile::Reconciler,
    reload::PolicyHandle,
    session::Sessions,
    share::{Few, Shares},
    sniff,
    store::{Store, text::Indexer},
    tls::{self, AgentTls, Ca, Leaves, OriginTls},
};

/// Memory for what is captured of all bodies under way, in bytes.
const CAPTURE_MEMORY: usize = 256 << 20;
/// Exchanges that one session may have under way: an eighth of what the audit log can hold open.
const EXCHANGES: usize = 8192;
/// Connections without a flow that are recorded one by one, a second.
const STRANGERS: u32 = 5;

/// The cgroup side of a gate.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What is guarded.
    pub cgroup: GuardedCgroup,
    /// Puts processes under guard.
    pub enroller: Arc<dyn Enroller>,
    /// Names of the attached programs.
    pub programs: Vec<String>,
}

/// What outlives the construction and is shared with tests and tools in the same process.
#[derive(Clone, Debug)]
pub struct Handles {
    pub policy: PolicyHandle,
    pub audit: Audit,
    pub store: Arc<Store>,
    /// What the DNS server told each session.
    pub answers: Arc<dns::Answers>,
}

/// The dashboard's door.
struct Window {
    listener: TcpListener,
    at: SocketAddr,
    token: Token,
}

/// A gate that is bound and ready to run.
pub struct App {
    config: Config,
    handles: Handles,
    kernel: Arc<dyn Kernel>,
    guard: Guard,
    stages: Arc<Stages>,
    listeners: Listeners,
    books: Arc<Reconciler>,
    dns: Arc<dns::Server>,
    dns_sockets: dns::Sockets,
    doors: [(Door, UnixListener); 2],
    window: Option<Window>,
    host: host::Follower,
    wanted: Wanted,
    ca: Arc<str>,
    audit_thread: AuditThread,
    indexer: Indexer,
    anchors: Anchors,
    drain: Drain,
    started: Timestamp,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("guard", &self.guard).finish_non_exhaustive()
    }
}

fn policy_paths(config: &Config) -> crate::reload::PolicyPaths {
    crate::reload::PolicyPaths {
        policy: config.paths.policy.clone(),
        lists: config.paths.lists.clone(),
        mode: config.paths.mode.clone(),
    }
}

/// How origins are verified, out of the settings.
fn origin_settings(config: &Config) -> tls::origin::Settings {
    let Origin { crls, crl_depth, crl_unknown, crl_expired, client_certificates } = &config.origin;
    tls::origin::Settings {
        extra_roots: config.tls.extra_roots.clone(),
        revocation: tls::origin::Revocation {
            lists: crls.clone(),
            chain: *crl_depth == CrlDepth::Chain,
            refuse_unknown: *crl_unknown == Lenience::Deny,
            refuse_expired: *crl_expired == Lenience::Deny,
        },
        client_certificates: client_certificates
            .iter()
            .map(|(pattern, of)| tls::origin::ClientCertificate {
                pattern: pattern.clone(),
                certificate: of.certificate.clone(),
                key: of.key.clone(),
            })
            .collect(),
    }
}

impl Window {
    async fn open(config: &Config) -> Result<Self> {
        let token = Token::load_or_create(&config.paths.dashboard_token).context("the dashboard's token")?;
        let listen = config.dashboard.listen;
        let place = || format!("dashboard.listen {listen}");
        let listener = TcpListener::bind(listen).await.with_context(place)?;
        let at = listener.local_addr().with_context(place)?;
        Ok(Self { listener, at, token })
    }
}

impl App {
    /// Builds and binds everything; nothing is accepted yet.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub async fn start(config: Config, kernel: Arc<dyn Kernel>, guard: Guard) -> Result<Self> {
        Self::take_over(config, kernel, guard, Sockets::none()).await
    }

    /// The same, with the sockets of the daemon before.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub async fn take_over(
        config: Config,
        kernel: Arc<dyn Kernel>,
        guard: Guard,
        mut sockets: Sockets,
    ) -> Result<Self> {
        let paths = &config.paths;
        private_dir(&paths.var)?;
        shared_dir(&paths.run)?;
        let policy = PolicyHandle::load(policy_paths(&config));
        for error in policy.status().errors {
            tracing::error!("policy: {error}; nothing passes until it is mended");
        }
        let store = Arc::new(Store::open(&paths.store).context("the audit store")?);
        let (audit, audit_thread) = Audit::start(
            store.clone(),
            AuditOptions { durability: config.audit.durability, ..AuditOptions::default() },
        );
        let indexer = Indexer::start(store.clone(), config.audit.text);
        let drain = Drain::default();

        let ca = Arc::new(Ca::load_or_create(&paths.ca_cert, &paths.ca_key)?);
        let pem: Arc<str> = ca.pem().into();
        let extra: Vec<PathBuf> = config.tls.extra_roots.iter().cloned().collect();
        let trust =
            launch::trust::write(&paths.bundle, &extra, &pem).context("what the agents are to trust")?;
        for error in trust.left_out {
            tracing::warn!("what reads the system's own roots there will not trust the gate: {error}");
        }
        launch::bundle::write_environment_file(&paths.env_file, &trust.files.bundle, &trust.files.added)
            .context("the agents' environment")?;

        let listeners =
            Listeners::bind(config.gate.listen_port, config.limits.connections, &mut sockets).await?;
        let since_ns = listeners.since_ns();
        let doors = [
            (Door::Steering, socket::bind_control(&paths.control_socket, &config.control.group)?),
            (Door::Enrolment, socket::bind_enrol(&paths.enrol_socket)?),
        ];
        let window = if config.dashboard.enabled { Some(Window::open(&config).await?) } else { None };
        let dns_sockets = dns::Sockets::bind(config.dns.listen_port, &mut sockets).await?;
        let own_ports: Vec<u16> = [listeners.port(), dns_sockets.port()]
            .into_iter()
            .chain(window.as_ref().map(|window| window.at.port()))
            .collect();

        let limits = &config.limits;
        let idle = limits.idle_timeout();
        let resolver =
            Resolver::new(&config.dns.resolvers).map_err(anyhow::Error::msg).context("the resolver")?;
        let host = host::Follower::start(resolver.clone(), kernel.clone(), policy.clone())
            .context("the host's own addresses")?;
        let origin_tls = OriginTls::load(&origin_settings(&config))?;
        let anchors = Anchors::new(&config.audit.checkpoints, &origin_tls, checkpoints(store.clone()));
        let deadlines = forward::Deadlines { connect: limits.connect_timeout(), idle };
        let exchanger = Exchanger {
            policy: policy.clone(),
            audit: audit.clone(),
            forwarder: Forwarder::new(
                resolver.clone(),
                origin_tls,
                deadlines,
                forward::OwnPorts(own_ports.clone()),
            ),
            limits: exchange::Limits {
                request_bytes: config.capture.request_bytes,
                response_bytes: config.capture.response_bytes,
            },
            budget: Budget::new(CAPTURE_MEMORY),
            shares: Shares::new(EXCHANGES),
        };
        let sessions = Arc::new(Sessions::new(guard.cgroup.clone()));
        let books = Reconciler::begin(kernel.clone(), store.clone(), audit.clone(), sessions.clone())
            .context("the balance of the audit log")?;
        let leaves = Arc::new(Leaves::new(ca).context("the leaf key")?);
        let answers = Arc::new(dns::Answers::default());
        if let Err(error) = dns::refill(&answers, &store, boot(since_boot_ns())) {
            tracing::error!(%error, "what running agents were told is not known; they have to ask again");
        }
        let dns = dns::Server::new(dns::Parts {
            kernel: kernel.clone(),
            sessions: sessions.clone(),
            policy: policy.clone(),
            resolver,
            audit: audit.clone(),
            answers: answers.clone(),
            drain: drain.watch(),
            since_ns: dns_sockets.since_ns(),
        });
        let stages = Stages {
            kernel: kernel.clone(),
            sessions,
            answers: answers.clone(),
            agent_tls: AgentTls::new(leaves, limits.handshake_timeout())?,
            exchanger: Arc::new(exchanger),
            sniff: sniff::Deadlines { silence: limits.silence(), total: limits.sniff_timeout() },
            serve: serve::Limits {
                header_bytes: limits.header_bytes,
                header_time: limits.header_timeout(),
                idle,
                grace: limits.drain_timeout() * 9 / 10,
            },
            drain: drain.watch(),
            grace: limits.drain_timeout() * 9 / 10,
            patience: idle,
            shares: Shares::new((limits.connections / 4).max(1)),
            since_ns,
            pinned: Arc::default(),
            strangers: Few::new(STRANGERS),
        };
        sockets.close_rest();
        let wanted = Wanted { dns_port: dns_sockets.port(), own_ports };
        let handles = Handles { policy, audit, store, answers };
        let app = Self {
            handles,
            kernel,
            guard,
            stages: Arc::new(stages),
            listeners,
            books,
            dns,
            dns_sockets,
            doors,
            window,
            host,
            wanted,
            ca: pem,
            audit_thread,
            indexer,
            anchors,
            drain,
            started: Timestamp::now(),
            config,
        };
        let current = app.handles.policy.current();
        app.kernel.configure(&app.wanted.settings(&current))?;
        app.kernel.set_udp(&upkeep::udp(&current))?;
        Ok(app)
    }

    /// The listener's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listeners.port()
    }

    /// The DNS server's port.
    #[must_use]
    pub fn dns_port(&self) -> u16 {
        self.dns_sockets.port()
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// Handles that stay good while it runs.
    #[must_use]
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }
}

/// The log's newest checkpoint, as it is sent elsewhere.
fn checkpoints(store: Arc<Store>) -> anchors::Source {
    Arc::new(move || {
        let newest = store.newest_checkpoint().map_err(|error| error.to_string())?;
        let Some((log, checkpoint)) = newest else { return Ok(None) };
        let line = Line::Checkpoint(checkpoint);
        let mut line = serde_json::to_value(&line).map_err(|error| error.to_string())?;
        // As in an export, and of which log: who receives it may hear of many.
        line["log"] = serde_json::json!(log);
        Ok(Some(Anchor { entries: checkpoint.entries, line: line.to_string() }))
    })
}

/// When the host was booted, `since_ns` before now.
fn boot(since_ns: u64) -> Timestamp {
    let micros = i64::try_from(since_ns / 1000).unwrap_or(i64::MAX);
    Timestamp(Timestamp::now().0.saturating_sub(micros))
}

/// A directory that only the daemon may read.
fn private_dir(path: &Path) -> Result<()> {
    make_dir(path, 0o700)
}

/// A directory that everybody may pass through: agents read the trust bundle in it.
fn shared_dir(path: &Path) -> Result<()> {
    make_dir(path, 0o755)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| path.display().to_string())
}
