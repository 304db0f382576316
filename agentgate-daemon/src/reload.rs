//! The policy in force: reads its files, swaps in what compiles, edits the lists, watches for changes.
//!
//! What does not compile is never installed. At the start that means [`Policy::closed`], later the
//! last good policy stays; both are said in the status until a reload succeeds.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    model::{Mode, Timestamp},
    policy::{HostFacts, Policy, PolicySummary},
};

mod edit;
mod files;
mod watcher;

pub use edit::{Edit, EditError, List};
pub use watcher::WatchError;

/// Where the policy's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPaths {
    /// `policy.toml`. Missing is a fault: without it nothing passes.
    pub policy: PathBuf,
    /// Directory of `allow.txt`, `deny.txt` and `passthrough.txt`; each may be missing.
    pub lists: PathBuf,
    /// The override file, one word; usually missing.
    pub mode: PathBuf,
}

/// What is in force, and what is wrong with what is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Rises by one with each policy that is installed, and where the host's addresses change what one
    /// means; 1 is the one of the start.
    pub generation: u64,
    /// Mode, counts and digest of the policy in force.
    #[serde(flatten)]
    pub summary: PolicySummary,
    /// Whether the mode comes from the override file.
    pub mode_overridden: bool,
    /// When the files were last read and found good; `None` before the first time.
    pub loaded_at: Option<Timestamp>,
    /// When the files were last read.
    pub tried_at: Timestamp,
    /// What is wrong with the files as they were read last; empty: what is in force is what they say.
    pub errors: Vec<String>,
}

/// A handle on the policy in force.
#[derive(Clone, Debug)]
pub struct PolicyHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paths: PolicyPaths,
    current: ArcSwap<Policy>,
    status: ArcSwap<PolicyStatus>,
    /// Held from reading to installing and through edits, so that neither is overtaken by an older
    /// reading of the same files. Whoever only asks does not wait for the disk. Holds what every policy
    /// is told of the host.
    changing: Mutex<HostFacts>,
    generation: watch::Sender<u64>,
}

impl PolicyHandle {
    /// Reads and compiles the files. Never fails: where they are broken, nothing passes, and the
    /// status says why.
    #[must_use]
    pub fn load(paths: PolicyPaths) -> Self {
        let now = Timestamp::now();
        let (policy, overridden, errors) = match files::compile(&paths) {
            Ok(loaded) => (loaded.policy, loaded.mode_overridden, Vec::new()),
            Err(errors) => (Policy::closed(), false, errors),
        };
        report(&errors, "nothing passes until it is mended");
        let status = PolicyStatus {
            generation: 1,
            summary: policy.summary(),
            mode_overridden: overridden,
            loaded_at: errors.is_empty().then_some(now),
            tried_at: now,
            errors,
        };
        Self(Arc::new(Inner {
            paths,
            current: ArcSwap::from_pointee(policy),
            status: ArcSwap::from_pointee(status),
            changing: Mutex::new(HostFacts::default()),
            generation: watch::Sender::new(1),
        }))
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        self.0.current.load_full()
    }

    /// What is in force, and what is wrong with what is on disk.
    #[must_use]
    pub fn status(&self) -> PolicyStatus {
        PolicyStatus::clone(&self.0.status.load())
    }

    /// Reads the files again and installs what they say. Reads and compiles on the calling thread.
    ///
    /// # Errors
    /// The status, with its `errors`, where they are broken: the last good policy stays.
    #[expect(clippy::result_large_err, reason = "both answers are the status, and callers treat them alike")]
    pub fn reload(&self) -> Result<PolicyStatus, PolicyStatus> {
        let changing = self.change();
        let status = self.install(&changing);
        if status.errors.is_empty() { Ok(status) } else { Err(status) }
    }

    /// The generation in force; changes with each policy that is installed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Tells the policy in force, and every one after it, what is known of the host. Whether that is news.
    pub fn set_host(&self, facts: HostFacts) -> bool {
        let mut changing = self.change();
        if *changing == facts {
            return false;
        }
        self.0.current.store(Arc::new(Policy::clone(&self.0.current.load()).with_host(&facts)));
        *changing = facts;
        let mut status = self.status();
        status.generation += 1;
        self.tell(&status);
        true
    }

    /// Adds a pattern to a list file or removes it, keeping comments and order, and reloads. Whether
    /// the file was changed: adding what is there, or removing what is not, changes nothing.
    ///
    /// Blocks on the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// Where the pattern is none, the file cannot be replaced, or it was replaced but the policy as a
    /// whole does not compile.
    pub fn edit_list(&self, list: List, edit: Edit, pattern: &str) -> Result<bool, EditError> {
        let changing = self.change();
        let changed = edit::edit_list(&self.0.paths.lists, list, edit, pattern)?;
        if changed {
            self.in_force(&changing)?;
        }
        Ok(changed)
    }

    /// Puts a mode in place of the document's, or with `None` gives it back, and reloads.
    ///
    /// Blocks on the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// Where the file cannot be replaced, or it was replaced but the policy as a whole does not
    /// compile.
    pub fn set_mode(&self, mode: Option<Mode>) -> Result<PolicyStatus, EditError> {
        let changing = self.change();
        edit::set_mode(&self.0.paths.mode, mode)?;
        self.in_force(&changing)
    }

    /// Reloads whenever the files change, until `drain` turns true or its sender is gone. A burst of
    /// changes is one reload.
    ///
    /// # Errors
    /// Where the kernel gives no watch: changes are then seen on request only.
    pub async fn watch(self, drain: watch::Receiver<bool>) -> Result<(), WatchError> {
        watcher::run(self, drain).await
    }

    fn in_force(&self, changing: &MutexGuard<'_, HostFacts>) -> Result<PolicyStatus, EditError> {
        let status = self.install(changing);
        if status.errors.is_empty() {
            Ok(status)
        } else {
            Err(EditError::NotInForce { errors: status.errors })
        }
    }

    /// Installs what the files say, if it is good. `errors` in the status tells which.
    fn install(&self, host: &MutexGuard<'_, HostFacts>) -> PolicyStatus {
        let loaded = files::compile(&self.0.paths);
        let mut status = self.status();
        status.tried_at = Timestamp::now();
        match loaded {
            Ok(loaded) => {
                let summary = loaded.policy.summary();
                // The same policy again is not another one: nobody need be judged anew.
                let another = summary.digest != status.summary.digest;
                if another {
                    self.0.current.store(Arc::new(loaded.policy.with_host(host)));
                    status.generation += 1;
                }
                if another || !status.errors.is_empty() {
                    tracing::info!(
                        generation = status.generation,
                        mode = %summary.mode,
                        digest = summary.digest,
                        "the policy on disk is in force"
                    );
                }
                status.summary = summary;
                status.mode_overridden = loaded.mode_overridden;
                status.loaded_at = Some(status.tried_at);
                status.errors.clear();
            }
            Err(errors) => {
                report(&errors, "the policy in force stays as it was");
                status.errors = errors;
            }
        }
        self.tell(&status);
        status
    }

    fn tell(&self, status: &PolicyStatus) {
        self.0.status.store(Arc::new(status.clone()));
        // Last, so that whoever is told finds policy and status changed.
        self.0
            .generation
            .send_if_modified(|told| std::mem::replace(told, status.generation) != status.generation);
    }

    fn change(&self) -> MutexGuard<'_, HostFacts> {
        // There is nothing behind the lock that a panic could leave half done.
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(errors: &[String], consequence: &str) {
    for error in errors {
        tracing::error!(error, consequence, "broken policy");
    }
}

#[cfg(test)]
mod tests;
