//! What a run of the suite tells: one row per attempt and identity, and a summary. Plain data.

use serde::{Deserialize, Serialize};

/// What an attempt is about; the suite's table is ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// TCP to an address that no policy names.
    Tcp,
    /// UDP in all its ways of sending.
    Udp,
    /// Other protocols over IP.
    Raw,
    /// Address families besides IPv4 and IPv6.
    Families,
    /// The same probes from other kinds of tasks.
    Tasks,
    /// Sockets that somebody else made.
    Sockets,
    /// Names, and data in names.
    Dns,
    /// TLS and HTTP that lie about their destination.
    Http,
    /// This host's own services, and the gate's.
    Loopback,
    /// Cloud metadata, in many spellings.
    Metadata,
    /// What needs root or a capability.
    Privilege,
}

impl Family {
    /// The word people read and filter by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Raw => "raw",
            Self::Families => "families",
            Self::Tasks => "tasks",
            Self::Sockets => "sockets",
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Privilege => "privilege",
        }
    }

    /// What it is about, for a heading.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Tcp => "TCP to addresses that no policy names",
            Self::Udp => "UDP, in all its ways of sending",
            Self::Raw => "other protocols over IP",
            Self::Families => "address families besides IPv4 and IPv6",
            Self::Tasks => "the same from other kinds of tasks",
            Self::Sockets => "sockets that somebody else made",
            Self::Dns => "names, and data in names",
            Self::Http => "TLS and HTTP that lie about their destination",
            Self::Loopback => "this host's own services, and the gate's",
            Self::Metadata => "cloud metadata, in many spellings",
            Self::Privilege => "what needs root or a capability",
        }
    }
}

/// Whom an attempt runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// Uid 0 with the capabilities of whoever runs the suite.
    Root,
    /// Uid and gid 65534 without any.
    User,
}

impl Identity {
    /// The word people read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// Nothing arrived.
    Blocked {
        /// The layer that stopped it, as far as it is known.
        by: String,
    },
    /// It reached the gate, which judged and recorded it, and nothing arrived.
    Captured {
        /// What the record says.
        by: String,
    },
    /// It arrived.
    Leaked {
        /// What was seen where.
        seen: String,
    },
    /// It arrived, and the documentation says that it would: only root can do it.
    Undefended {
        /// What was seen where.
        seen: String,
        /// Why nothing stops it, and what tells of it.
        because: String,
    },
    /// Nothing can be said on this host.
    Untestable {
        /// Why.
        because: String,
    },
}

impl Verdict {
    /// The word people read.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Blocked { .. } => "blocked",
            Self::Captured { .. } => "captured",
            Self::Leaked { .. } => "LEAKED",
            Self::Undefended { .. } => "not defended",
            Self::Untestable { .. } => "not testable here",
        }
    }

    /// The rest of the line.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Blocked { by } | Self::Captured { by } => format!("by {by}"),
            Self::Leaked { seen } => seen.clone(),
            Self::Undefended { seen, because } => format!("{because}; {seen}"),
            Self::Untestable { because } => format!("because {because}"),
        }
    }
}

/// One attempt, run as somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub attempt: String,
    pub family: Family,
    /// Whom it ran as.
    #[serde(rename = "as")]
    pub identity: Identity,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the attempt itself saw: the calls that failed, the answers that came.
    pub saw: Vec<String>,
    /// What the daemon recorded of it.
    pub records: Vec<String>,
    /// Milliseconds, control run included.
    pub took_ms: u64,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub attempts: usize,
    pub blocked: usize,
    pub captured: usize,
    pub leaked: usize,
    pub undefended: usize,
    pub untestable: usize,
}

impl Summary {
    /// Counts one more.
    pub fn add(&mut self, verdict: &Verdict) {
        self.attempts += 1;
        *match verdict {
            Verdict::Blocked { .. } => &mut self.blocked,
            Verdict::Captured { .. } => &mut self.captured,
            Verdict::Leaked { .. } => &mut self.leaked,
            Verdict::Undefended { .. } => &mut self.undefended,
            Verdict::Untestable { .. } => &mut self.untestable,
        } += 1;
    }

    /// Counts rows.
    #[must_use]
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut summary = Self::default();
        for row in rows {
            summary.add(&row.verdict);
        }
        summary
    }
}

/// What an attempt is, for the published table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub attempt: String,
    pub family: Family,
    /// What it does, in one line.
    pub what: String,
    /// Whom it is run as.
    #[serde(rename = "as")]
    pub identities: Vec<Identity>,
    /// What stops it, and since which kernel where that matters.
    pub stopped_by: String,
    /// Why nothing stops it, where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undefended: Option<String>,
    /// Why nothing stops it on a kernel without BPF LSM, where that makes the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_lsm: Option<String>,
}

/// What the inner process tells the outer one, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The place stands: how many attempts follow.
    Ready { attempts: usize },
    /// An attempt begins.
    Begun { attempt: String, identity: Identity },
    /// It ended; a later row for the same attempt and identity replaces this one.
    Row(Box<Row>),
    /// The end.
    Done(Summary),
    /// There is no more.
    Failed { message: String },
}
