//! A connection that passes unread.

use std::sync::{Mutex, PoisonError};

use tokio::time::sleep;

use super::{Counted, Counts, Ended, Stages};
use crate::{
    audit::Entry,
    drain::told,
    forward::{
        ForwardError,
        tunnel::{COPIED, Moved, Terms, Way},
    },
    model::State,
    policy::TunnelPermit,
    sniff::{Naming, Replayed},
};

impl Stages {
    /// Moves bytes until both sides are done, or the gate has been told to stop for long enough. Where
    /// `opaque`, the record is told what the parties say they speak.
    pub(super) async fn tunnel(
        &self,
        entry: &mut Entry,
        permit: TunnelPermit,
        stream: Replayed<Counted>,
        counts: &Counts,
        opaque: bool,
    ) -> Ended {
        let (first, agent) = stream.into_parts();
        let naming = Mutex::new(Naming::default());
        let mut look = |way: Way, bytes: &[u8]| {
            let mut naming = naming.lock().unwrap_or_else(PoisonError::into_inner);
            match way {
                Way::Up => naming.agent(bytes),
                Way::Down => naming.origin(bytes),
            }
        };
        let moved = Moved { up: counts.up.clone(), down: counts.down.clone(), ..Moved::default() };
        let forwarder = &self.exchanger.forwarder;
        let (idle, patience) = (forwarder.idle(), self.patience);
        let tunnel = async {
            let mut tunnel = forwarder.tunnel(permit).await?;
            entry.record().flags.append(&mut tunnel.flags);
            let terms = Terms { first, copied: COPIED, idle, patience, moved: &moved, look: &mut look };
            tunnel.carry(agent.into_inner(), terms).await
        };
        let mut drain = self.drain.clone();
        let stopped = async {
            told(&mut drain).await;
            sleep(self.grace).await;
        };
        let done = tokio::select! {
            done = tunnel => Some(done),
            () = stopped => None,
        };
        let naming = naming.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = opaque.then(|| naming.named()).flatten() {
            let mut record = entry.record();
            record.protocol = named.protocol.to_owned();
            record.note = Some(named.note).filter(|note| !note.is_empty());
        }
        done.map_or_else(
            || Ended::failed(State::Failed, "gate", "drained", "the gate was stopped".into()),
            |done| tunnelled(entry, done),
        )
    }
}

fn tunnelled(entry: &mut Entry, done: Result<(), ForwardError>) -> Ended {
    match done {
        Ok(()) => Ended::done(),
        Err(ForwardError::Address(refusal)) => {
            let mut record = entry.record();
            record.flags.extend(refusal.flags.iter().cloned());
            record.verdict = Some(refusal.verdict.clone());
            Ended { state: State::Refused, failure: Some(ForwardError::Address(refusal).failure()) }
        }
        Err(error) => Ended { state: State::Failed, failure: Some(error.failure()) },
    }
}
