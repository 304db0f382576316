//! Who asks: the subject behind a question. Remembered for seconds, so that an agent that asks for a
//! hundred names is not looked up in procfs a hundred times.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use crate::{
    audit::fit,
    model::{Flow, Subject},
    session::Sessions,
};

/// How long a socket in the hands of one process is taken to be that process's still.
const KEPT: Duration = Duration::from_secs(5);
/// Sockets that are remembered; beyond them those that are over give way, then all.
const MOST: usize = 4096;

/// A socket in the hands of a process in a cgroup.
type Hands = (u64, u32, u64);

/// Names askers.
#[derive(Debug)]
pub(super) struct Askers {
    sessions: Arc<Sessions>,
    known: Mutex<HashMap<Hands, (Instant, Arc<Subject>)>>,
}

impl Askers {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions, known: Mutex::default() }
    }

    /// The subject of a flow; `None` where it could not be read because the runtime is ending.
    pub(super) async fn subject(&self, flow: &Flow) -> Option<Arc<Subject>> {
        let hands = (flow.cookie, flow.pid, flow.cgroup);
        if let Some((since, subject)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&hands)
            && since.elapsed() < KEPT
        {
            return Some(subject.clone());
        }
        let (sessions, flow) = (self.sessions.clone(), flow.clone());
        // Procfs is read off the runtime's threads.
        let found = spawn_blocking(move || fit::subject(sessions.subject(&flow))).await;
        let subject = match found {
            Ok(subject) => Arc::new(subject),
            Err(error) => {
                tracing::error!(%error, "reading who asks");
                return None;
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (since, _)| since.elapsed() < KEPT);
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(hands, (Instant::now(), subject.clone()));
        Some(subject)
    }
}
