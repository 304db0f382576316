//! One agent connection served by hyper, with every limit set: header bytes, header time, streams,
//! resets.

use std::{convert::Infallible, future::Future, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};

use super::{AgentBody, gauge::Activity};
use crate::drain::told;

/// What one connection may ask of the gate.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request head in bytes.
    pub header_bytes: usize,
    /// From the first byte of a head to its last; also how long an idle connection may stay.
    pub header_time: Duration,
    /// How long an HTTP/2 connection may stay without a request.
    pub idle: Duration,
}

/// Most requests that one HTTP/2 connection may have under way.
const STREAMS: u32 = 100;
/// Streams reset by the peer and not yet seen by us, before the connection is ended (CVE-2023-44487).
const PENDING_RESETS: usize = 64;
/// How long a connection on which nothing was asked so far may stay once the gate is told to stop: who
/// connected before that has the first request on its way, and would be refused without need.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// Fields in one head.
pub const FIELDS: usize = 256;

/// Which version the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// Serves until the agent closes, an error, or `drain` turns true (then gracefully). An HTTP/2
/// connection on which no request came for `limits.idle`, and for which `busy` says that none is under
/// way, is ended too; HTTP/1.1 has `header_time` for that.
///
/// # Errors
/// hyper's error of the connection: bad syntax, limits, I/O.
pub async fn serve<S, F, R>(
    stream: S,
    speaks: Speaks,
    limits: Limits,
    mut drain: watch::Receiver<bool>,
    busy: impl Fn() -> bool,
    exchange: F,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AgentBody>> + Send + 'static,
{
    let activity = Activity::default();
    let touched = activity.clone();
    let (asked, mut was_asked) = watch::channel(false);
    let service = service_fn(move |request| {
        touched.touch();
        asked.send_replace(true);
        let answer = exchange(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stopped = async {
        told(&mut drain).await;
        // Late or gone: it ends in either case.
        let _first = timeout(FIRST_REQUEST, was_asked.wait_for(|asked| *asked)).await.is_ok();
    };
    let io = TokioIo::new(stream);
    match speaks {
        Speaks::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_time)
                .max_buf_size(limits.header_bytes.max(8192))
                .max_headers(FIELDS)
                .preserve_header_case(true)
                .auto_date_header(false)
                .serve_connection(io, service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                done = connection.as_mut() => done,
                () = stopped => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Speaks::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .max_concurrent_streams(STREAMS)
                .max_pending_accept_reset_streams(PENDING_RESETS)
                .max_local_error_reset_streams(PENDING_RESETS)
                .keep_alive_interval(limits.header_time)
                .auto_date_header(false)
                .serve_connection(io, service);
            let mut connection = std::pin::pin!(connection);
            let lull = async {
                loop {
                    activity.silent_for(limits.idle).await;
                    if !busy() {
                        return;
                    }
                    activity.touch();
                }
            };
            tokio::select! {
                done = connection.as_mut() => return done,
                () = stopped => {}
                () = lull => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
