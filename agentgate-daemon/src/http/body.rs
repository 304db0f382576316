//! A body on its way: each frame goes on the moment it comes, a capped prefix is kept, and its end
//! is told once, however it ends.

use std::{
    error::Error,
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::gauge::{Activity, Held};
use crate::model::Captured;

/// An error of a body, as hyper takes it.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The sender broke off or fell silent.
    Failed(String),
    /// The receiver went away.
    Dropped,
}

/// Nothing came for this long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
pub struct Idle(Duration);

/// How long a sender still has once its time is over; see [`Tee`]'s `poll_frame`.
const LAST_CHANCE: Duration = Duration::from_secs(1);

type Observer = Box<dyn FnOnce(Ended) + Send>;

/// The end of a body, and what was kept of it.
#[derive(Debug)]
pub struct Ended {
    pub end: End,
    pub captured: Captured,
    /// The memory of what was kept; given back when dropped.
    pub held: Option<Held>,
}

/// A body that passes unchanged while a prefix of it is kept.
pub struct Tee<B> {
    inner: B,
    prefix: BytesMut,
    held: Option<Held>,
    limit: usize,
    total: u64,
    idle: Duration,
    activity: Activity,
    waiting: Option<Pin<Box<Sleep>>>,
    last_chance: bool,
    /// True once the inner body has said that nothing more comes; hyper then drops it unpolled.
    complete: bool,
    observer: Option<Observer>,
}

impl<B> fmt::Debug for Tee<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").field("total", &self.total).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<B: Body> Tee<B> {
    /// Keeps at most `limit` bytes, within what `held` gets of the budget; fails when the sender is silent for `idle`; calls `observer`
    /// exactly once, at the end or when dropped.
    pub fn new(
        inner: B,
        limit: usize,
        held: Held,
        idle: Duration,
        observer: impl FnOnce(Ended) + Send + 'static,
    ) -> Self {
        let complete = inner.is_end_stream();
        Self {
            inner,
            prefix: BytesMut::new(),
            held: Some(held),
            limit,
            total: 0,
            idle,
            activity: Activity::default(),
            waiting: None,
            last_chance: false,
            complete,
            observer: Some(Box::new(observer)),
        }
    }
}

impl<B> Tee<B> {
    fn keep(&mut self, data: &Bytes) {
        self.total += data.len() as u64;
        let wanted = self.limit.saturating_sub(self.prefix.len()).min(data.len());
        if wanted > 0 {
            let got = self.held.as_mut().map_or(0, |held| held.take(wanted));
            self.prefix.extend_from_slice(data.get(..got).unwrap_or(data));
            if got < wanted {
                self.limit = 0; // a prefix has no holes
            }
        }
    }

    /// When something of this body last moved.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    fn end(&mut self, end: End) {
        if let Some(observer) = self.observer.take() {
            let bytes = std::mem::take(&mut self.prefix).freeze();
            let truncated = end != End::Complete || self.total > bytes.len() as u64;
            let captured = Captured { total: self.total, truncated, bytes };
            observer(Ended { end, captured, held: self.held.take() });
        }
    }
}

impl<B> Body for Tee<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let idle = this.idle;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + idle)));
            ready!(waiting.as_mut().poll(cx));
            // The time may have passed while nobody asked (the receiver was full), and the sender could
            // not have sent: it gets a moment to.
            if !this.last_chance {
                this.last_chance = true;
                waiting.as_mut().reset(Instant::now() + LAST_CHANCE.min(idle));
                ready!(waiting.as_mut().poll(cx));
            }
            let error = Idle(idle);
            this.end(End::Failed(error.to_string()));
            return Poll::Ready(Some(Err(error.into())));
        };
        this.waiting = None;
        this.last_chance = false;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.activity.touch();
                if let Some(data) = frame.data_ref() {
                    this.keep(data);
                }
                // Nothing can follow trailers; hyper then drops the body unpolled.
                this.complete = frame.is_trailers() || this.inner.is_end_stream();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let error = error.into();
                this.end(End::Failed(describe(error.as_ref())));
                Some(Err(error))
            }
            None => {
                this.end(End::Complete);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for Tee<B> {
    fn drop(&mut self) {
        self.end(if self.complete { End::Complete } else { End::Dropped });
    }
}

/// An error with its causes in one line.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt as _, Full, channel::Channel};

    use super::{super::gauge::Budget, *};

    type Seen = Arc<Mutex<Vec<(End, Captured)>>>;

    fn observed<B: Body>(inner: B, limit: usize) -> (Tee<B>, Seen) {
        let seen = Seen::default();
        let sink = seen.clone();
        let held = Budget::new(1 << 20).open();
        let tee = Tee::new(inner, limit, held, Duration::from_secs(5), move |ended| {
            sink.lock().unwrap().push((ended.end, ended.captured));
        });
        (tee, seen)
    }

    #[tokio::test]
    async fn passes_all_and_keeps_a_prefix() {
        let (tee, seen) = observed(Full::new(Bytes::from_static(b"0123456789")), 4);
        assert_eq!(tee.collect().await.unwrap().to_bytes(), "0123456789");
        let seen = seen.lock().unwrap();
        let expect = Captured { total: 10, truncated: true, bytes: Bytes::from_static(b"0123") };
        assert_eq!(*seen, [(End::Complete, expect)]);
    }

    #[tokio::test]
    async fn tells_of_a_drop_once() {
        let (sender, channel) = Channel::<Bytes, BodyError>::new(1);
        let (tee, seen) = observed(channel, 4);
        drop(tee);
        drop(sender);
        assert_eq!(seen.lock().unwrap().len(), 1);
        assert_eq!(seen.lock().unwrap()[0].0, End::Dropped);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sender_fails() {
        let (sender, channel) = Channel::<Bytes, BodyError>::new(1);
        let (tee, seen) = observed(channel, 4);
        let error = tee.collect().await.unwrap_err();
        assert!(error.downcast_ref::<Idle>().is_some());
        assert!(matches!(seen.lock().unwrap()[0].0, End::Failed(_)));
        drop(sender);
    }
}
