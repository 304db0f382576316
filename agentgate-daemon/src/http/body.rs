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

type Observer = Box<dyn FnOnce(End, Captured) + Send>;

/// A body that passes unchanged while a prefix of it is kept.
pub struct Tee<B> {
    inner: B,
    prefix: BytesMut,
    limit: usize,
    total: u64,
    idle: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
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
    /// Keeps at most `limit` bytes; fails when the sender is silent for `idle`; calls `observer`
    /// exactly once, at the end or when dropped.
    pub fn new(
        inner: B,
        limit: usize,
        idle: Duration,
        observer: impl FnOnce(End, Captured) + Send + 'static,
    ) -> Self {
        let complete = inner.is_end_stream();
        Self {
            inner,
            prefix: BytesMut::new(),
            limit,
            total: 0,
            idle,
            waiting: None,
            complete,
            observer: Some(Box::new(observer)),
        }
    }
}

impl<B> Tee<B> {
    fn keep(&mut self, data: &Bytes) {
        self.total += data.len() as u64;
        let room = self.limit.saturating_sub(self.prefix.len());
        if room > 0 {
            self.prefix.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }

    fn end(&mut self, end: End) {
        if let Some(observer) = self.observer.take() {
            let bytes = std::mem::take(&mut self.prefix).freeze();
            let truncated = self.total > bytes.len() as u64;
            observer(end, Captured { total: self.total, truncated, bytes });
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
            let error = Idle(idle);
            this.end(End::Failed(error.to_string()));
            return Poll::Ready(Some(Err(error.into())));
        };
        this.waiting = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.keep(data);
                }
                this.complete = this.inner.is_end_stream();
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

    use super::*;

    type Seen = Arc<Mutex<Vec<(End, Captured)>>>;

    fn observed<B: Body>(inner: B, limit: usize) -> (Tee<B>, Seen) {
        let seen = Seen::default();
        let sink = seen.clone();
        let tee = Tee::new(inner, limit, Duration::from_secs(5), move |end, captured| {
            sink.lock().unwrap().push((end, captured));
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
