//! Time as it passes for a connection as a whole: whether its peers are still there, whether it rests, and
//! whether the gate is told to stop. Streams keep their own.

use std::{future::Future, pin::Pin, task::Context, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    drain::told,
    http::serve::{FIRST_REQUEST, Limits},
};

/// How exactly it is kept, at best.
const BEAT: Duration = Duration::from_millis(10);

/// Of one connection.
pub(super) struct Clock {
    pub(super) limits: Limits,
    pub(super) beat: Duration,
    timer: Pin<Box<Sleep>>,
    /// Since when no stream was under way, as far as a beat tells.
    pub(super) resting: Instant,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Told to stop; who has not asked anything by then may still.
    until: Option<Pin<Box<Sleep>>>,
    told: bool,
}

impl Clock {
    pub(super) fn new(limits: Limits, mut drain: watch::Receiver<bool>) -> Self {
        let beat = limits.header_time.min(limits.idle / 4).max(BEAT);
        Self {
            limits,
            beat,
            timer: Box::pin(sleep_until(Instant::now() + beat)),
            resting: Instant::now(),
            stop: Box::pin(async move { told(&mut drain).await }),
            until: None,
            told: false,
        }
    }

    /// Whether another beat has passed.
    pub(super) fn poll_beat(&mut self, cx: &mut Context<'_>) -> bool {
        let mut passed = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            passed = true;
            self.timer.as_mut().reset(Instant::now() + self.beat);
        }
        passed
    }

    /// Whether the gate is told to stop, and this connection had its chance.
    pub(super) fn poll_stop(&mut self, asked: bool, cx: &mut Context<'_>) -> bool {
        if !self.told {
            self.told = self.stop.as_mut().poll(cx).is_ready();
        }
        if !self.told || asked {
            return self.told;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + FIRST_REQUEST)));
        until.as_mut().poll(cx).is_ready()
    }
}
