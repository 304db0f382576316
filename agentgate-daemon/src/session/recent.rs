//! Who acted a moment ago: a process that connects often is read of once a second, and in between looked at
//! only to see that it still runs the same program. What is read of a process is two dozen small files, which
//! cost as much as a TLS handshake.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use procfs::process::Stat;

use super::{Process, Sessions};
use crate::model::{Flow, Subject};

/// How long what was read of a process holds while it runs the same program: arguments that it has
/// overwritten, privileges that it has given up, and parents that have ended are seen that much later.
const FRESH: Duration = Duration::from_secs(1);
/// Processes remembered; each takes one or two KiB.
const KNOWN: usize = 256;

/// Where the kernel put a process's program: another program, or a process that was forked off and became
/// one, is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    parent: i32,
    start: u64,
    code: (u64, u64),
    stack: u64,
    arguments: [Option<u64>; 4],
}

impl Image {
    /// `None` where the kernel does not say.
    pub(super) fn of(stat: &Stat) -> Option<Self> {
        (stat.startstack != 0).then_some(Self {
            parent: stat.ppid,
            start: stat.starttime,
            code: (stat.startcode, stat.endcode),
            stack: stat.startstack,
            arguments: [stat.arg_start, stat.arg_end, stat.env_start, stat.env_end],
        })
    }
}

/// What the kernel says of who connects, apart from the process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whose {
    uid: u32,
    cgroup: u64,
    session: u64,
    comm: String,
}

impl Whose {
    fn of(flow: &Flow) -> Self {
        Self { uid: flow.uid, cgroup: flow.cgroup, session: flow.session, comm: flow.comm.clone() }
    }

    fn is_of(&self, flow: &Flow) -> bool {
        (self.uid, self.cgroup, self.session) == (flow.uid, flow.cgroup, flow.session)
            && self.comm == flow.comm
    }
}

#[derive(Debug)]
struct Known {
    since: Instant,
    image: Image,
    whose: Whose,
    subject: Arc<Subject>,
}

/// Subjects by process number.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<u32, Known>>);

impl Sessions {
    /// The subject of a flow where it was read a moment ago. Reads one small file, which no agent can make
    /// slow.
    #[must_use]
    pub fn recent(&self, flow: &Flow) -> Option<Arc<Subject>> {
        let (image, subject) = {
            let known = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.get(&flow.pid)?;
            if known.since.elapsed() >= FRESH || !known.whose.is_of(flow) {
                return None;
            }
            (known.image, known.subject.clone())
        };
        let now = self.process(flow.pid).filter(|process| self.lived(process, flow.connected_ns))?;
        (now.image == Some(image)).then_some(subject)
    }

    /// As [`Sessions::subject`], made fit for records by `fit`, and remembered.
    pub fn fresh(&self, flow: &Flow, fit: impl FnOnce(Subject) -> Subject) -> Arc<Subject> {
        let before = self.process(flow.pid);
        let subject = Arc::new(fit(self.subject(flow)));
        let image = |process: Option<Process>| process?.image;
        // Remembered only where nothing changed while it was read, and something was.
        if let (Some(image), Some(after)) = (image(before), image(self.process(flow.pid)))
            && image == after
            && subject.start == Some(image.start)
        {
            let mut known = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KNOWN && !known.contains_key(&flow.pid) {
                known.retain(|_, known| known.since.elapsed() < FRESH);
            }
            if known.len() < KNOWN || known.contains_key(&flow.pid) {
                let (since, whose) = (Instant::now(), Whose::of(flow));
                known.insert(flow.pid, Known { since, image, whose, subject: subject.clone() });
            }
        }
        subject
    }
}
