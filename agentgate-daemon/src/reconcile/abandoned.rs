//! Connections that the kernel tied to the listener and that never came there.

use std::{collections::HashMap, sync::Arc, time::Duration};

use agentgate_common::tally::window;
use tokio::task::{JoinSet, spawn_blocking};

use super::{ReconcileError, Reconciler, balance::is_of_listener};
use crate::{
    audit::fit,
    kernel::since_boot_ns,
    model::{Action, Authority, Failure, Flow, Host, Kind, Record, State, Timestamp, Verdict},
    store::tally::{NEVER_ARRIVED, NO_LISTENER},
};

/// How long a connection may wait to be accepted: longer than a restart takes, and than the listener
/// waits for a place.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Records that are written at once.
const GROUP: usize = 256;
/// Connections of one session and window that are recorded one by one; the others by their number.
const ONE_BY_ONE: u64 = 10;

/// Why they did not come.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// Made before this moment (nanoseconds since boot), when nobody listened.
    NoListener { before_ns: u64 },
    /// Older than [`PATIENCE`]: given up before they were accepted.
    NeverArrived,
}

impl Reconciler {
    /// Takes them from the kernel and records them.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or they cannot be recorded: what was taken and not recorded is
    /// declared as lost.
    pub async fn record_abandoned(self: &Arc<Self>, why: Why) -> Result<(), ReconcileError> {
        let before = match why {
            Why::NoListener { before_ns } => before_ns,
            Why::NeverArrived => {
                since_boot_ns().saturating_sub(u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX))
            }
        };
        let this = self.clone();
        let flows = spawn_blocking(move || this.kernel.abandoned_flows(before)).await??;
        let mut told: Vec<(Flow, u64)> = Vec::new();
        let mut groups: HashMap<(u64, u32, bool), (u64, usize)> = HashMap::new();
        for flow in flows {
            let key = (flow.session, window(flow.connected_ns), is_of_listener(&flow));
            let (count, last) = groups.entry(key).or_default();
            *count += 1;
            if *count <= ONE_BY_ONE {
                *last = told.len();
                told.push((flow, 1));
            } else if let Some((_, times)) = told.get_mut(*last) {
                *times += 1;
            }
        }
        let mut first = Ok(());
        for group in told.chunks(GROUP) {
            // Together, so that they share a commit.
            let mut noting = JoinSet::new();
            for (flow, times) in group.iter().cloned() {
                let this = self.clone();
                noting.spawn(async move { (this.note_abandoned(&flow, times, why).await, flow, times) });
            }
            while let Some(noted) = noting.join_next().await {
                let (noted, flow, times) = noted?;
                if noted.is_err() && is_of_listener(&flow) {
                    self.audit.books().put_back(flow.session, window(flow.connected_ns), times);
                }
                first = first.and(noted);
            }
        }
        first
    }

    async fn note_abandoned(
        self: &Arc<Self>,
        flow: &Flow,
        times: u64,
        why: Why,
    ) -> Result<(), ReconcileError> {
        let (this, of) = (self.clone(), flow.clone());
        let subject = spawn_blocking(move || fit::subject(this.sessions.subject(&of))).await?;
        // A question over TCP is no flow of the listener's.
        let kind = if is_of_listener(flow) { Kind::Flow } else { Kind::Dns };
        let mut record = Record::new(kind, Timestamp::now());
        record.subject = Some(Arc::new(subject));
        record.authority =
            Some(Authority { host: Host::from(flow.original.0.ip()), port: flow.original.0.port() });
        record.flow = Some(Arc::new(flow.clone()));
        record.protocol = "tcp".to_owned();
        record.times = times;
        let (state, code, detail) = match why {
            Why::NoListener { .. } => (State::Refused, NO_LISTENER, "made while no daemon listened"),
            Why::NeverArrived => {
                (State::Cancelled, NEVER_ARRIVED, "given up before the gate could accept it")
            }
        };
        record.state = state;
        let blame = match why {
            Why::NoListener { .. } => "gate",
            Why::NeverArrived => "agent",
        };
        record.failure = Some(Failure { blame: blame.into(), code: code.into(), detail: detail.into() });
        if state == State::Refused {
            record.verdict = Some(Verdict {
                action: Action::Deny,
                rule: format!("gate:{code}"),
                reason: detail.to_owned(),
            });
        }
        if times > 1 {
            record.note = Some(format!("stands for {times} connections of the same session"));
        }
        self.audit.note(record).await?;
        Ok(())
    }
}
