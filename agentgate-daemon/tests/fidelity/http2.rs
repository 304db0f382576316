//! HTTP/2, over TLS and in the clear: `h2` at both ends, several streams at once on each connection. A reset
//! by one side must reach the other with its code and touch no other stream.

mod ends;
mod plan;

use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{client, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::{
    ends::{ask, serve},
    plan::{FIELD, Plan, Wrong},
};
use super::{
    generate::Random,
    setup::{LOOPBACK, PATIENCE, World, client_config},
};

const NAME: &str = "open.example";
/// Streams that are under way at once on one connection.
const STREAMS: usize = 12;

/// The exchanges under way, by their number; nothing for those that their agent gave up.
type Known = Mutex<HashMap<u64, Option<Arc<Plan>>>>;

#[derive(Debug, Default)]
struct Shared {
    known: Known,
    wrong: Wrong,
    done: AtomicU64,
    ids: AtomicU64,
    /// Streams that an origin which was leaving did not take.
    untaken: AtomicU64,
}

/// What one side lets the other have under way.
fn window(random: &mut Random) -> u32 {
    [1000, 5000, 16_384, 65_535, 1_000_000][random.below(5)]
}

/// Serves one connection of the origin.
async fn origin<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut random: Random,
    shared: Arc<Shared>,
    leaves: bool,
) {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(window(&mut random))
        .initial_connection_window_size(window(&mut random).max(65_535))
        .max_frame_size([16_384, 20_000, 100_000][random.below(3)])
        .header_table_size([0, 100, 4096][random.below(3)])
        .max_concurrent_streams([1, 3, 100, 100][random.below(4)])
        .enable_connect_protocol();
    // Reached ahead of need, and not needed.
    let Ok(mut serving) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut leaves = (leaves && random.once_in(4)).then(|| 1 + random.below(STREAMS));
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = serving.accept().await {
        let id = request.headers().get(FIELD).and_then(|id| id.to_str().ok()?.parse().ok());
        let plan = id.and_then(|id: u64| shared.known.lock().unwrap().get(&id).cloned());
        match plan {
            Some(Some(plan)) => {
                let shared = shared.clone();
                streams.spawn(async move {
                    plan.progress.begun.store(true, Ordering::SeqCst);
                    let served = timeout(2 * PATIENCE, serve(&plan, request, respond)).await;
                    let served = served.unwrap_or_else(|_| Err("it stalled".to_owned()));
                    plan.progress.served.send_replace(true);
                    if let Err(why) = served {
                        shared.wrong.push(format!("at the origin: {why} of {plan:?}"));
                    }
                });
            }
            Some(None) => {}
            None => shared.wrong.push(format!("the origin got a head of nobody's: {request:?}")),
        }
        leaves = match leaves {
            Some(1) => {
                serving.graceful_shutdown();
                None
            }
            Some(more) => Some(more - 1),
            None => None,
        };
    }
    while streams.join_next().await.is_some() {}
}

/// One connection of an agent with some exchanges.
async fn agent<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    mut random: Random,
    origin: &str,
    shared: &Shared,
) -> Result<(), String> {
    let window = window(&mut random);
    let (sender, connection) = client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size([65_535, 1_000_000][random.below(2)])
        .max_frame_size([16_384, 20_000, 100_000][random.below(3)])
        .header_table_size([0, 100, 4096][random.below(3)])
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let sockets = sender.is_extended_connect_protocol_enabled();
        let plans: Vec<Arc<Plan>> = (0..1 + random.below(STREAMS))
            .map(|_| {
                let id = shared.ids.fetch_add(1, Ordering::Relaxed);
                let connect = sockets && random.once_in(6);
                Arc::new(Plan::new(&mut random, id, origin, window as usize * 100, connect))
            })
            .collect();
        {
            let mut known = shared.known.lock().unwrap();
            known.extend(plans.iter().map(|plan| (plan.id, Some(plan.clone()))));
        }
        let asked = plans.iter().map(|plan| {
            let mut sender = sender.clone();
            let pause = Duration::from_micros(random.below(5000) as u64);
            async move {
                sleep(pause).await;
                let ready = timeout(PATIENCE, poll_fn(|cx| sender.poll_ready(cx))).await;
                let asked = match ready {
                    Ok(Ok(())) => timeout(2 * PATIENCE, ask(plan, &mut sender)).await,
                    other => return Err(format!("the agent's connection is {other:?}")),
                };
                match asked.unwrap_or_else(|_| Err("it stalled".to_owned())) {
                    Ok(true) => {}
                    Ok(false) => drop(shared.untaken.fetch_add(1, Ordering::Relaxed)),
                    Err(why) => return Err(format!("at the agent: {why} of {plan:?}")),
                }
                Ok(())
            }
        });
        for asked in join_all(asked).await {
            asked?;
        }
        for plan in &plans {
            plan.progress.gone.store(true, Ordering::SeqCst);
            shared.known.lock().unwrap().insert(plan.id, None);
            if plan.progress.is_begun() {
                let mut served = plan.progress.served.subscribe();
                let waited = timeout(PATIENCE, served.wait_for(|served| *served)).await;
                if waited.is_err() {
                    return Err(format!("the origin's side has no end of {plan:?}"));
                }
            }
        }
        shared.done.fetch_add(plans.len() as u64, Ordering::Relaxed);
    }
    drop(sender);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(Ok(()))) => Ok(()),
        other => Err(format!("the agent's connection ended with {other:?}")),
    }
}

/// At least `wanted` exchanges over `connections` connections at once: how many there were, and what
/// differed. `direct` leaves the gate out, which tries the test itself.
pub(crate) async fn run(wanted: u64, seed: u64, connections: u64, direct: bool) -> (u64, Vec<String>) {
    let world = Arc::new(World::new(&format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")).await);
    let shared = Arc::new(Shared::default());
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = [plain.local_addr().unwrap(), secure.local_addr().unwrap()];
    let acceptor = TlsAcceptor::from(world.internet.presenting(NAME, &[b"h2"]).unwrap());
    for (listener, acceptor) in [(plain, None), (secure, Some(acceptor))] {
        let shared = shared.clone();
        tokio::spawn(async move {
            for turn in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).unwrap();
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                let random = Random::new(seed ^ turn << 32);
                tokio::spawn(async move {
                    match acceptor {
                        None => origin(stream, random, shared, !direct).await,
                        Some(acceptor) => {
                            // Reached ahead of need, and not needed.
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            origin(stream, random, shared, !direct).await;
                        }
                    }
                });
            }
        });
    }
    let seeds = Arc::new(AtomicU64::new(seed));
    let mut running = JoinSet::new();
    for _ in 0..connections {
        let (world, shared, seeds) = (world.clone(), shared.clone(), seeds.clone());
        running.spawn(async move {
            while shared.done.load(Ordering::Relaxed) < wanted && shared.wrong.is_empty() {
                let seed = seeds.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = connection(&world, at, seed, &shared, direct).await {
                    shared.wrong.push(format!("seed {seed}: {why}"));
                }
            }
        });
    }
    while running.join_next().await.is_some() {}
    (shared.done.load(Ordering::Relaxed), shared.wrong.all())
}

async fn connection(
    world: &World,
    at: [SocketAddr; 2],
    seed: u64,
    shared: &Shared,
    direct: bool,
) -> Result<(), String> {
    let (random, secure) = (Random::new(seed), seed % 2 == 1);
    let at = at[usize::from(secure)];
    let tcp = if direct { TcpStream::connect(at).await.unwrap() } else { world.connect(at).await };
    if !secure {
        return agent(tcp, random, &format!("http://{NAME}:{}", at.port()), shared).await;
    }
    let pem = if direct { world.internet.root_pem() } else { world.ca_pem() };
    let connector = TlsConnector::from(Arc::new(client_config(pem, &[b"h2"])));
    let stream = connector.connect(NAME.try_into().unwrap(), tcp).await.map_err(|error| error.to_string())?;
    agent(stream, random, &format!("https://{NAME}:{}", at.port()), shared).await
}
