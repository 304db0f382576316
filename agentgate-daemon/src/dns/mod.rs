//! The agents' resolver: names are judged before they are asked for, and what an agent was told is kept.
//!
//! Every question of a guarded process, to whatever server, comes here. `serve` has the sockets, `ask`
//! carries one question from its bytes to its answer, and the rest are its stages: `message` reads and
//! writes, `asker` says who asks, `local` answers what is never asked for elsewhere, `policy` judges the
//! name, `forward::Resolver` asks, `given` takes out of the answer what an agent may not have, `answers`
//! remembers it.
//!
//! What this does not do: recurse, or validate DNSSEC. It asks the resolvers that it is configured with.

mod answers;
mod ask;
mod asker;
mod counted;
mod given;
mod local;
mod message;
mod name;
mod refill;
mod serve;
mod sockets;
mod tunnel;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

pub use answers::Answers;
pub use refill::refill;
pub use sockets::{BindError, Sockets};

use self::{asker::Askers, counted::Counted, tunnel::Tunnels};
use crate::{
    audit::{Audit, AuditError},
    drain::told,
    forward::Resolver,
    kernel::Kernel,
    model::Record,
    reload::PolicyHandle,
    session::Sessions,
    share::{Few, Shares},
};

/// Questions of all agents that are under way at once; each may hold a socket to a resolver.
const QUESTIONS: usize = 1024;
/// Of one session. A package manager asks for some dozens of names at once.
const QUESTIONS_OF_SESSION: usize = 128;
/// Connections of all agents, and of one session: a client needs one.
const CONNECTIONS: usize = 512;
const CONNECTIONS_OF_SESSION: usize = 32;
/// Questions without a known asker that are recorded, a second.
const STRANGERS: u32 = 5;
/// Of them and of refusals for lack of a place, under way at once.
const NOTES: usize = 32;
/// How often what was only counted is looked over.
const SETTLE: Duration = Duration::from_secs(1);

/// What a server is made of.
pub struct Parts {
    pub kernel: Arc<dyn Kernel>,
    pub sessions: Arc<Sessions>,
    pub policy: PolicyHandle,
    pub resolver: Resolver,
    pub audit: Audit,
    pub answers: Arc<Answers>,
    pub drain: watch::Receiver<bool>,
    /// When the sockets were bound, in nanoseconds since boot.
    pub since_ns: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// The server: one for all its sockets, also those in other network namespaces.
pub struct Server {
    kernel: Arc<dyn Kernel>,
    policy: PolicyHandle,
    resolver: Resolver,
    audit: Audit,
    answers: Arc<Answers>,
    drain: watch::Receiver<bool>,
    since_ns: u64,
    askers: Askers,
    counted: Counted,
    tunnels: Tunnels,
    questions: Arc<Semaphore>,
    shares: Shares,
    connections: Arc<Semaphore>,
    connection_shares: Shares,
    strangers: Few,
    crowds: Few,
    troubles: Few,
    /// Records of refusals that are on their way beside the loops that receive.
    notes: Arc<Semaphore>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// A server that serves nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { kernel, sessions, policy, resolver, audit, answers, drain, since_ns } = parts;
        Arc::new(Self {
            kernel,
            policy,
            resolver,
            audit,
            answers,
            drain,
            since_ns,
            askers: Askers::new(sessions),
            counted: Counted::default(),
            tunnels: Tunnels::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            shares: Shares::new(QUESTIONS_OF_SESSION),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            connection_shares: Shares::new(CONNECTIONS_OF_SESSION),
            strangers: Few::new(STRANGERS),
            crowds: Few::new(STRANGERS),
            troubles: Few::new(1),
            notes: Arc::new(Semaphore::new(NOTES)),
        })
    }

    /// Records what was only counted, until the drain, and then the rest of it.
    pub async fn settle(self: Arc<Self>) {
        let mut drain = self.drain.clone();
        let mut tick = interval(SETTLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut late: Vec<Record> = Vec::new();
        loop {
            let ending = tokio::select! {
                _ = tick.tick() => false,
                () = told(&mut drain) => true,
            };
            late.extend(if ending { self.counted.close() } else { self.counted.settle() });
            // What the log does not take is offered again at the next tick. While it cannot be written no
            // question is answered, so no more than one window of it comes together.
            let mut kept = Vec::new();
            for record in late {
                match self.audit.note(record.clone()).await {
                    Ok(_id) => {}
                    Err(AuditError::Unavailable { .. }) if !ending => kept.push(record),
                    Err(error) => tracing::error!(%error, times = record.times, "questions are not recorded"),
                }
            }
            late = kept;
            if ending {
                return;
            }
        }
    }
}

/// What is sent back without asking anybody: the error to a message that is no question, a refusal to one
/// that is. For the fuzz target.
#[cfg(fuzzing)]
#[must_use]
pub fn answered_alone(bytes: &[u8]) -> Option<Vec<u8>> {
    match message::read(bytes) {
        message::Received::Question(question) => {
            let refusal = message::Reply::code(hickory_proto::op::ResponseCode::Refused);
            question.write(&refusal, usize::from(message::UDP_PAYLOAD))
        }
        message::Received::Unusable { reply, .. } => reply,
    }
}
