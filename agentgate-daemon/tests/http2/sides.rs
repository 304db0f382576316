//! An origin that does what a test tells it, stream by stream, and an agent that does the same.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, Method, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::setup::{LOOPBACK, PATIENCE, World};

pub(crate) fn open_policy() -> String {
    format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")
}

/// What an origin is told to do with a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// GOAWAY, and what is under way goes on.
    Leave,
    /// GOAWAY with this code, at once.
    Abort(Reason),
}

/// A request as it came to an origin.
pub(crate) struct Arrived {
    /// Which of the origin's connections it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) head: http::request::Parts,
    pub(crate) body: RecvStream,
    pub(crate) respond: server::SendResponse<Bytes>,
}

/// An origin that speaks HTTP/2 at once, on loopback.
pub(crate) struct Origin {
    pub(crate) at: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    orders: Arc<Mutex<Vec<mpsc::UnboundedSender<Order>>>>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub(crate) async fn new() -> Self {
        Self::with(&server::Builder::new()).await
    }

    pub(crate) async fn with(builder: &server::Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let orders: Arc<Mutex<Vec<_>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let (builder, given) = (builder.clone(), orders.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (order, orders) = mpsc::unbounded_channel();
                let connection = {
                    let mut given = given.lock().unwrap();
                    given.push(order);
                    given.len() - 1
                };
                connections.spawn(serve(stream, builder.clone(), connection, arrived.clone(), orders));
            }
        });
        Self { at, arrivals, orders, _tasks: tasks }
    }

    /// The next request.
    pub(crate) async fn arrived(&mut self) -> Arrived {
        timeout(PATIENCE, self.arrivals.recv()).await.expect("a request arrives").unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.orders.lock().unwrap().len()
    }

    /// Connections that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.orders.lock().unwrap().iter().filter(|order| !order.is_closed()).count()
    }

    pub(crate) fn order(&self, connection: usize, order: Order) {
        self.orders.lock().unwrap()[connection].send(order).unwrap();
    }
}

/// Serves one connection of an origin.
pub(crate) async fn serve<S>(
    stream: S,
    builder: server::Builder,
    connection: usize,
    arrived: mpsc::UnboundedSender<Arrived>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut serving) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        tokio::select! {
            request = serving.accept() => {
                let Some(Ok((request, respond))) = request else { return };
                let (head, body) = request.into_parts();
                let _over = arrived.send(Arrived { connection, head, body, respond });
            }
            Some(order) = orders.recv() => match order {
                Order::Leave => serving.graceful_shutdown(),
                Order::Abort(reason) => serving.abrupt_shutdown(reason),
            },
        }
    }
}

/// An agent's connection.
pub(crate) struct Agent {
    pub(crate) ask: client::SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

impl Agent {
    /// Speaks HTTP/2 in the clear to `origin`, through the gate.
    pub(crate) async fn new(world: &World, origin: SocketAddr) -> Self {
        Self::with(world, origin, &client::Builder::new()).await
    }

    pub(crate) async fn with(world: &World, origin: SocketAddr, builder: &client::Builder) -> Self {
        let stream = world.connect(origin).await;
        Self::over(stream, format!("http://{origin}"), builder).await
    }

    /// Over `stream`, asking for things of `authority`.
    pub(crate) async fn over<S>(stream: S, authority: String, builder: &client::Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (ask, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
        Self { ask, connection: tokio::spawn(connection), authority }
    }

    pub(crate) fn request(&self, method: Method, target: &str) -> Request<()> {
        Request::builder().method(method).uri(format!("{}{target}", self.authority)).body(()).unwrap()
    }

    /// A request without a body.
    pub(crate) async fn get(&mut self, target: &str) -> client::ResponseFuture {
        let request = self.request(Method::GET, target);
        self.ready().await;
        self.ask.send_request(request, true).unwrap().0
    }

    /// A request with one.
    pub(crate) async fn post(&mut self, target: &str) -> (client::ResponseFuture, SendStream<Bytes>) {
        let request = self.request(Method::POST, target);
        self.ready().await;
        self.ask.send_request(request, false).unwrap()
    }

    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.ask.poll_ready(cx)).await.unwrap();
    }
}

/// All of a body, its capacity given back, and its trailers.
pub(crate) async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        let _gone = body.flow_control().release_capacity(data.len());
    }
    Ok((all, body.trailers().await?))
}
