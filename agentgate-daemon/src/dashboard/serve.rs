//! The HTTP server: seats for connections, deadlines, an orderly end.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{DashboardContext, routes, seats::Seats, shared};

/// From a connection's start, or the end of a response, to the end of the next request's head. A
/// browser sends a head at once, and opens another connection where an idle one is gone.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long written bytes may stay unread, in milliseconds.
const UNREAD_MILLIS: u32 = 30_000;
/// Largest head, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// How long responses may go on after the stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves the dashboard on `listener` until `drain` turns true or its sender is gone, then ends live
/// feeds, lets responses finish for two seconds and returns.
pub async fn serve(listener: TcpListener, context: DashboardContext, mut drain: watch::Receiver<bool>) {
    let shared = shared(context);
    let router = routes(shared.clone());
    let seats = Seats::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = drain.wait_for(|drain| *drain) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "dashboard: accept");
                // Out of descriptors: one of ours must end before the next accept can succeed.
                tokio::select! {
                    _ = connections.join_next(), if !connections.is_empty() => {}
                    _ = drain.wait_for(|drain| *drain) => break,
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
                continue;
            }
        };
        // A client that reads no more is dropped by the kernel, feed and all (tcp(7), TCP_USER_TIMEOUT).
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_MILLIS) {
            tracing::warn!(%error, %peer, "dashboard: no deadline on writes");
        }
        let router = TowerToHyperService::new(router.clone());
        let mut stopped = shared.stop.subscribe();
        let seat = Arc::new(seats.take());
        connections.spawn(async move {
            let asking = seat.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                request.extensions_mut().insert(asking.clone());
                let answer = hyper::service::Service::call(&router, request);
                async move { answer.await as Result<Response<Body>, Infallible> }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = seat.lost() => {
                    tracing::debug!(%peer, "dashboard: a connection made room for another");
                    return;
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, %peer, "dashboard: connection");
            }
        });
    }
    shared.stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}
