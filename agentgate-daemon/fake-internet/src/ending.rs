//! How answers end, told to the journal: handed over whole, or not wanted any more.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use crate::{body::Body, journal::Journal};

/// A body that tells of its end. One that hyper need not read, of HEAD's answer or of a 204, ends well
/// however it ends.
pub(crate) fn told(body: Body, journal: Arc<Journal>, request: u64, unread: bool) -> Body {
    Told { body, journal, request, ended: unread }.boxed()
}

struct Told {
    body: Body,
    journal: Arc<Journal>,
    request: u64,
    /// The last frame was taken, or this origin broke it off itself.
    ended: bool,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let last = match &frame {
            None | Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_trailers(),
        };
        self.ended |= last;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let whole = self.ended || self.body.is_end_stream();
        self.journal.update_request(self.request, |request| {
            request.answered = true;
            request.aborted |= !whole;
        });
    }
}
