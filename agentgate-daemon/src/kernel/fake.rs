//! A kernel for tests: flows are put in by hand.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use agentgate_common::{event::KernelEvent, settings::Settings};
use tokio::sync::mpsc;

use super::{Counter, Kernel, KernelError};
use crate::model::Flow;

/// Hands out the flows that a test declared.
#[derive(Debug)]
pub struct FakeKernel {
    flows: Mutex<HashMap<SocketAddr, Flow>>,
    settings: Mutex<Settings>,
    sender: mpsc::Sender<KernelEvent>,
    receiver: Mutex<Option<mpsc::Receiver<KernelEvent>>>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(64);
        Self {
            flows: Mutex::default(),
            settings: Mutex::default(),
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeKernel {
    /// Declares that the connection coming from `local` belongs to `flow`.
    pub fn declare(&self, local: SocketAddr, flow: Flow) {
        locked(&self.flows).insert(local, flow);
    }

    /// The settings installed last.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *locked(&self.settings)
    }

    /// Emits an event as the programs would.
    pub async fn emit(&self, event: KernelEvent) {
        // The receiver may be gone at the end of a test.
        let _gone = self.sender.send(event).await;
    }
}

impl Kernel for FakeKernel {
    fn take_flow(&self, peer: SocketAddr) -> Result<Option<Flow>, KernelError> {
        Ok(locked(&self.flows).remove(&peer))
    }
    fn configure(&self, settings: &Settings) -> Result<(), KernelError> {
        *locked(&self.settings) = *settings;
        Ok(())
    }
    fn events(&self) -> Option<mpsc::Receiver<KernelEvent>> {
        locked(&self.receiver).take()
    }
    fn lost_events(&self) -> Result<u64, KernelError> {
        Ok(0)
    }
    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        Ok(Vec::new())
    }
}
