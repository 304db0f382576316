//! A kernel for tests: flows are put in by hand.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use agentgate_common::{event::KernelEvent, settings::Settings, tally::Booked};
use tokio::sync::mpsc;

use super::{AgentEnd, Counter, Kernel, KernelError, Layers, SessionCounter, UdpRange};
use crate::model::Flow;

/// Hands out the flows that a test declared.
#[derive(Debug)]
pub struct FakeKernel {
    flows: Mutex<HashMap<SocketAddr, Flow>>,
    askers: Mutex<HashMap<SocketAddr, Flow>>,
    settings: Mutex<Settings>,
    host: Mutex<Vec<IpAddr>>,
    udp: Mutex<Vec<UdpRange>>,
    namespaces: Mutex<Vec<u64>>,
    unguarded: AtomicBool,
    booked: Mutex<HashMap<Booked, u64>>,
    lost: AtomicU64,
    unbooked: AtomicU64,
    heard_until: AtomicU64,
    sender: mpsc::Sender<KernelEvent>,
    receiver: Mutex<Option<mpsc::Receiver<KernelEvent>>>,
}

impl Default for FakeKernel {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(64);
        Self {
            flows: Mutex::default(),
            askers: Mutex::default(),
            settings: Mutex::default(),
            host: Mutex::default(),
            udp: Mutex::default(),
            namespaces: Mutex::default(),
            unguarded: AtomicBool::default(),
            booked: Mutex::default(),
            lost: AtomicU64::new(0),
            unbooked: AtomicU64::new(0),
            heard_until: AtomicU64::new(u64::MAX),
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

    /// Declares that datagrams coming from `local` are those of `flow`.
    pub fn declare_asker(&self, local: SocketAddr, flow: Flow) {
        locked(&self.askers).insert(local, flow);
    }

    /// From here on every socket was made elsewhere.
    pub fn guard_nothing(&self) {
        self.unguarded.store(true, Ordering::Relaxed);
    }

    /// The host's addresses installed last.
    #[must_use]
    pub fn host_addresses(&self) -> Vec<IpAddr> {
        locked(&self.host).clone()
    }

    /// The UDP installed last.
    #[must_use]
    pub fn udp(&self) -> Vec<UdpRange> {
        locked(&self.udp).clone()
    }

    /// The namespaces that are admitted.
    #[must_use]
    pub fn namespaces(&self) -> Vec<u64> {
        locked(&self.namespaces).clone()
    }

    /// The settings installed last.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *locked(&self.settings)
    }

    /// Counts as the programs would.
    pub fn book(&self, session: u64, window: u32, outcome: u8, count: u64) {
        let key = Booked { session, window, outcome: u32::from(outcome) };
        *locked(&self.booked).entry(key).or_insert(0) += count;
    }

    /// Sets how many events found the ring buffer full.
    pub fn lose(&self, events: u64) {
        self.lost.store(events, Ordering::SeqCst);
    }

    /// Sets how many found no room in the books.
    pub fn unbook(&self, events: u64) {
        self.unbooked.store(events, Ordering::SeqCst);
    }

    /// Sets until when all events were handed over; from the beginning all are, always.
    pub fn hear_until(&self, ns: u64) {
        self.heard_until.store(ns, Ordering::SeqCst);
    }

    /// Emits an event as the programs would.
    pub async fn emit(&self, event: KernelEvent) {
        // The receiver may be gone at the end of a test.
        let _gone = self.sender.send(event).await;
    }
}

impl Kernel for FakeKernel {
    fn take_flow(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError> {
        Ok(locked(&self.flows).remove(&end.peer))
    }
    fn asker(&self, end: AgentEnd) -> Result<Option<Flow>, KernelError> {
        Ok(locked(&self.askers).get(&end.peer).cloned())
    }
    fn abandoned_flows(&self, before_ns: u64) -> Result<Vec<Flow>, KernelError> {
        let mut flows = locked(&self.flows);
        let old: Vec<SocketAddr> =
            flows.iter().filter(|(_, flow)| flow.connected_ns < before_ns).map(|(peer, _)| *peer).collect();
        Ok(old.iter().filter_map(|peer| flows.remove(peer)).collect())
    }
    fn pending_flows(&self) -> Result<Vec<Flow>, KernelError> {
        Ok(locked(&self.flows).values().cloned().collect())
    }
    fn configure(&self, settings: &Settings) -> Result<(), KernelError> {
        *locked(&self.settings) = *settings;
        Ok(())
    }
    fn set_host_addresses(&self, addresses: &[IpAddr]) -> Result<(), KernelError> {
        *locked(&self.host) = addresses.to_vec();
        Ok(())
    }
    fn set_udp(&self, ranges: &[UdpRange]) -> Result<(), KernelError> {
        *locked(&self.udp) = ranges.to_vec();
        Ok(())
    }
    fn admit_namespace(&self, netns: u64) -> Result<(), KernelError> {
        locked(&self.namespaces).push(netns);
        Ok(())
    }
    fn expel_namespace(&self, netns: u64) -> Result<(), KernelError> {
        locked(&self.namespaces).retain(|admitted| *admitted != netns);
        Ok(())
    }
    fn is_guarded(&self, _socket: BorrowedFd<'_>) -> Result<bool, KernelError> {
        Ok(!self.unguarded.load(Ordering::Relaxed))
    }
    fn layers(&self) -> Layers {
        Layers::absent("this is not a real kernel")
    }
    fn events(&self) -> Option<mpsc::Receiver<KernelEvent>> {
        locked(&self.receiver).take()
    }
    fn lost_events(&self) -> Result<u64, KernelError> {
        Ok(self.lost.load(Ordering::SeqCst))
    }
    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        Ok(Vec::new())
    }
    fn untallied(&self) -> Result<u64, KernelError> {
        Ok(0)
    }
    fn session_counters(&self) -> Result<Vec<SessionCounter>, KernelError> {
        Ok(Vec::new())
    }
    fn booked(&self) -> Result<Vec<(Booked, u64)>, KernelError> {
        Ok(locked(&self.booked).iter().map(|(key, count)| (*key, *count)).collect())
    }
    fn unbooked(&self) -> Result<u64, KernelError> {
        Ok(self.unbooked.load(Ordering::SeqCst))
    }
    fn forget_booked(&self, keys: &[Booked]) -> Result<(), KernelError> {
        locked(&self.booked).retain(|key, _| !keys.contains(key));
        Ok(())
    }
    fn heard_until(&self) -> u64 {
        self.heard_until.load(Ordering::SeqCst)
    }
    fn epoch(&self) -> String {
        "fake".to_owned()
    }
}
