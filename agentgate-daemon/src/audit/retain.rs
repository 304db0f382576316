//! Retention, while the gate runs: a moment of it now and then, and a record of what went.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time};

use super::Audit;
use crate::{
    model::{Kind, Record, State, Timestamp},
    store::{
        Store,
        retention::{Pruned, Readers, Rules, Run},
    },
};

/// Between looks whether something is due.
const LOOK: Duration = Duration::from_secs(60);
/// Between two transactions of one run: most of the time belongs to those who write records.
const PAUSE: Duration = Duration::from_millis(50);

/// Prunes by `rules` until the drain. What it cannot prune it tries again a minute later: that is no reason
/// to refuse anybody. `readers` are waited for.
pub async fn keep(
    store: Arc<Store>,
    audit: Audit,
    rules: Rules,
    readers: Arc<Readers>,
    mut drain: watch::Receiver<bool>,
) {
    if rules == Rules::default() {
        return;
    }
    let mut run = Run::default();
    let mut troubled = false;
    loop {
        let slice = spawn_blocking({
            let (store, readers) = (store.clone(), readers.clone());
            move || {
                let slice = store.retain(&rules, &readers, &mut run, Timestamp::now());
                (slice, run)
            }
        });
        let Ok((slice, kept)) = slice.await else {
            tracing::error!("retention failed; nothing is pruned until the next start");
            return;
        };
        run = kept;
        let wait = match slice {
            Ok(slice) => {
                troubled = false;
                if let Some(pruned) = slice.over {
                    tell(&audit, &pruned).await;
                }
                if slice.more { PAUSE } else { LOOK }
            }
            Err(error) => {
                if !std::mem::replace(&mut troubled, true) {
                    tracing::error!(%error, "retention waits: the audit log cannot be pruned");
                }
                LOOK
            }
        };
        tokio::select! {
            biased;
            told = drain.wait_for(|draining| *draining) => {
                drop(told);
                return;
            }
            () = time::sleep(wait) => {}
        }
    }
}

async fn tell(audit: &Audit, pruned: &Pruned) {
    let mut record = Record::new(Kind::Control, Timestamp::now());
    record.protocol = "control".to_owned();
    record.state = State::Done;
    record.note = Some(pruned.describe());
    tracing::info!("{}", pruned.describe());
    if let Err(error) = audit.note(record).await {
        tracing::error!(%error, "a run of retention is signed in the log, and has no record");
    }
}
