//! The one way to stop: stop accepting, wait for what is under way up to a deadline, then end it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Says when to stop.
#[derive(Debug)]
pub struct Drain {
    sender: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { sender: watch::channel(false).0 }
    }
}

impl Drain {
    /// A receiver that turns true when it is time.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// It is time.
    pub fn start(&self) {
        self.sender.send_replace(true);
    }
}

/// Resolves when it is time to stop, or when whoever would say so is gone.
pub async fn told(watch: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` gives must not live across another await: it is dropped here.
    drop(watch.wait_for(|on| *on).await);
}

/// Tasks of one kind, owned, so that they can be waited for and ended.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Runs `task`; what has ended in the meantime is let go.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        tasks.spawn(task);
    }

    /// How many have not been seen to end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for all, at most `deadline`, then ends the rest. Returns how many had to be ended.
    pub async fn finish(&self, deadline: Duration) -> usize {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                report(ended);
            }
        };
        // The deadline is the caller's choice; what it cuts off is counted.
        let _cut_off = timeout(deadline, all).await;
        let left = tasks.len();
        tasks.shutdown().await;
        left
    }
}

/// A panic in a task ends that task only; it must not pass unseen.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_then_ends() {
        let tasks = Tasks::default();
        let drain = Drain::default();
        let mut stop = drain.watch();
        tasks.spawn(async move {
            let _stopped = stop.wait_for(|on| *on).await;
        });
        tasks.spawn(std::future::pending());
        assert_eq!(tasks.len(), 2);
        drain.start();
        assert_eq!(tasks.finish(Duration::from_secs(1)).await, 1);
        assert!(tasks.is_empty());
    }
}
