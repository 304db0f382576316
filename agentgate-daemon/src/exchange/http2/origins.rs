//! The connections that one agent's connection has to its origins: one for each destination and policy,
//! dialled when the first request wants it, and shared by the requests that come meanwhile.
//!
//! A connection that its origin is leaving (GOAWAY) takes no request any more; the next dials anew.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::watch;

use crate::{
    forward::ForwardError,
    model::Flag,
    policy::{Destination, Permit, ReachPermit, permit::AddressRule},
};

/// Dials for one request that were not of use in the end: the origin left at once each time.
const TRIES: u32 = 2;

/// Connections that one agent's connection keeps: names in the clear, and policies, may be ever new ones,
/// and each would keep a descriptor until the agent goes. Requests under way are not counted.
const MOST: usize = 16;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) enum NoOrigin {
    Failed(Arc<ForwardError>),
    /// It chose HTTP/1.1, though the agent was told otherwise.
    NotHttp2,
}

/// Where a connection leads. Policies are compared by identity, so that a reload starts afresh.
#[derive(Clone, Debug)]
pub(super) struct To {
    destination: Destination,
    rule: Arc<dyn AddressRule>,
}

impl To {
    pub(super) fn new(destination: &Destination, rule: &Arc<dyn AddressRule>) -> Self {
        Self { destination: destination.clone(), rule: rule.clone() }
    }

    fn is(&self, destination: &Destination, rule: &Arc<dyn AddressRule>) -> bool {
        self.destination == *destination && Arc::ptr_eq(&self.rule, rule)
    }
}

/// How a dial stands, for those who wait.
type Standing = Option<Result<(), NoOrigin>>;

#[derive(Debug)]
struct Known {
    to: To,
    /// `None` while it is dialled.
    sender: Option<SendRequest<Bytes>>,
    standing: watch::Sender<Standing>,
    /// What the policy flags about the address, for the record of the request that dialled.
    flags: Vec<Flag>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    wanted: Vec<ReachPermit>,
    /// Why the first dial failed, which was made before there was a request.
    failed: Option<ForwardError>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Origins {
    state: Mutex<State>,
    /// Wakes who dials.
    dialler: Waker,
}

enum Found {
    Ready(SendRequest<Bytes>, Vec<Flag>),
    Waits(watch::Receiver<Standing>),
    No(NoOrigin),
}

impl Origins {
    pub(super) fn new(dialler: Waker, failed: Option<ForwardError>) -> Self {
        Self { state: Mutex::new(State { failed, ..State::default() }), dialler }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for what `permit` permits, dialled if there is none.
    pub(super) async fn get(&self, permit: &Permit) -> Result<(SendRequest<Bytes>, Vec<Flag>), NoOrigin> {
        for _ in 0..TRIES {
            let mut dial = match self.find(permit) {
                Found::Ready(sender, flags) => return Ok((sender, flags)),
                Found::No(why) => return Err(why),
                Found::Waits(dial) => dial,
            };
            if let Ok(standing) = dial.wait_for(Option::is_some).await
                && let Some(Err(why)) = &*standing
            {
                return Err(why.clone());
            }
        }
        let error = ForwardError::Http("it left as soon as it was connected".to_owned());
        Err(NoOrigin::Failed(Arc::new(error)))
    }

    fn find(&self, permit: &Permit) -> Found {
        let mut state = self.state();
        let mut cx = Context::from_waker(Waker::noop());
        state.known.retain_mut(|known| {
            let Some(sender) = known.sender.as_mut() else { return true };
            !matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
        });
        let (destination, rule) = (permit.destination(), permit.addresses());
        if let Some(known) = state.known.iter_mut().find(|known| known.to.is(destination, rule)) {
            return match &known.sender {
                Some(sender) => Found::Ready(sender.clone(), std::mem::take(&mut known.flags)),
                None => Found::Waits(known.standing.subscribe()),
            };
        }
        if let Some(error) = state.failed.take() {
            return Found::No(NoOrigin::Failed(Arc::new(error)));
        }
        if state.known.len() >= MOST
            && let Some(oldest) = state.known.iter().position(|known| known.sender.is_some())
        {
            // It is left in good order once what is under way on it has ended.
            state.known.remove(oldest);
        }
        let (standing, dial) = watch::channel(None);
        let to = To::new(destination, rule);
        state.known.push(Known { to, sender: None, standing, flags: Vec::new() });
        state.wanted.push(permit.reach());
        drop(state);
        self.dialler.wake_by_ref();
        Found::Waits(dial)
    }

    /// What is to be dialled.
    pub(super) fn wanted(&self) -> Vec<ReachPermit> {
        std::mem::take(&mut self.state().wanted)
    }

    /// A connection stands.
    pub(super) fn connected(&self, to: To, sender: SendRequest<Bytes>, flags: Vec<Flag>) {
        let mut state = self.state();
        match state
            .known
            .iter_mut()
            .find(|known| known.sender.is_none() && known.to.is(&to.destination, &to.rule))
        {
            Some(known) => {
                known.sender = Some(sender);
                known.flags = flags;
                known.standing.send_replace(Some(Ok(())));
            }
            None => {
                let (standing, _) = watch::channel(Some(Ok(())));
                state.known.push(Known { to, sender: Some(sender), standing, flags });
            }
        }
    }

    /// There will be none.
    pub(super) fn failed(&self, to: &To, why: NoOrigin) {
        let mut state = self.state();
        if let Some(at) = state
            .known
            .iter()
            .position(|known| known.sender.is_none() && known.to.is(&to.destination, &to.rule))
        {
            let known = state.known.swap_remove(at);
            known.standing.send_replace(Some(Err(why)));
        }
    }

    /// Whether one of them takes Extended CONNECT (RFC 8441).
    pub(super) fn take_websockets(&self) -> bool {
        let state = self.state();
        state
            .known
            .iter()
            .filter_map(|known| known.sender.as_ref())
            .any(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Nothing more will be asked of any.
    pub(super) fn leave(&self) {
        self.state().known.clear();
    }
}
