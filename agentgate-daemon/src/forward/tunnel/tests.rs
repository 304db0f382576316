//! What a tunnel moves, how it ends, and what it counts.

use tokio::net::TcpListener;

use super::*;

/// Little, so that tests need not move much.
const COPIED: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(3600);

/// Two ends of one connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Bytes of which no two places are alike.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
        .collect()
}

type Relayed = (Result<(), ForwardError>, [u64; 3], Vec<(Way, Vec<u8>)>);

/// A tunnel between the sockets that it gives back: the agent's, the origin's.
async fn tunnel(
    first: &'static [u8],
    idle: Duration,
    patience: Duration,
) -> (TcpStream, TcpStream, tokio::task::JoinHandle<Relayed>) {
    let ((agent, near), (far, origin)) = (pair().await, pair().await);
    let task = tokio::spawn(async move {
        let moved = Moved::default();
        let mut seen = Vec::new();
        let mut look = |way, bytes: &[u8]| seen.push((way, bytes.to_vec()));
        let first = Bytes::from_static(first);
        let terms = Terms { first, copied: COPIED, idle, patience, moved: &moved, look: &mut look };
        let done = relay(near, far, terms).await;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (done, [count(&moved.up), count(&moved.down), count(&moved.by_kernel)], seen)
    });
    (agent, origin, task)
}

#[tokio::test]
async fn much_passes_both_ways_unchanged_and_each_end_is_passed_on() {
    let (mut agent, mut origin, task) = tunnel(b"first ", LONG, LONG).await;
    let (up, down) = (pattern(1, 7 << 20), pattern(2, 9 << 20));
    let (sent_up, sent_down) = (up.clone(), down.clone());
    let client = tokio::spawn(async move {
        agent.write_all(&sent_up).await.unwrap();
        agent.shutdown().await.unwrap();
        let mut got = Vec::new();
        agent.read_to_end(&mut got).await.unwrap();
        got
    });
    let mut got = Vec::new();
    // Ends although nothing was sent down yet: a half-close goes through.
    origin.read_to_end(&mut got).await.unwrap();
    assert!(got == [b"first ".as_slice(), &up].concat());
    origin.write_all(&sent_down).await.unwrap();
    drop(origin);
    assert!(client.await.unwrap() == down);
    let (done, counts, seen) = task.await.unwrap();
    done.unwrap();
    assert_eq!(counts[..2], [7 << 20, 9 << 20]);
    // How much depends on how often the sender pauses, which is the scheduler's affair.
    assert!(counts[2] > 1 << 20, "the kernel moved {} bytes", counts[2]);
    let shown = |which| {
        let parts = seen.iter().filter(|(way, _)| *way == which).map(|(_, bytes)| bytes.as_slice());
        parts.collect::<Vec<_>>().concat()
    };
    assert_eq!(shown(Way::Up), [b"first ".as_slice(), &up[..SHOWN - 6]].concat());
    assert_eq!(shown(Way::Down), &down[..SHOWN]);
}

#[tokio::test]
async fn little_is_copied_and_a_pause_ends_the_pipe() {
    let (mut agent, mut origin, task) = tunnel(b"", LONG, LONG).await;
    let much = pattern(3, 3 << 20);
    for round in 0..3 {
        for size in [1, 100, FIRST, FIRST + 1] {
            let mut got = vec![0; size];
            agent.write_all(&much[..size]).await.unwrap();
            origin.read_exact(&mut got).await.unwrap();
            assert_eq!(got, &much[..size]);
            origin.write_all(&got).await.unwrap();
            agent.read_exact(&mut got).await.unwrap();
        }
        let mut got = vec![0; much.len()];
        let (sent, read) = tokio::join!(agent.write_all(&much), origin.read_exact(&mut got));
        sent.unwrap();
        read.unwrap();
        assert!(got == much, "round {round}");
        // The clock goes on by itself once everything waits: longer than a pipe is kept.
        tokio::time::pause();
        tokio::time::sleep(PIPE_KEPT * 3).await;
        tokio::time::resume();
    }
    drop(agent);
    drop(origin);
    let (done, [up, down, by_kernel], _) = task.await.unwrap();
    done.unwrap();
    let small = 3 * (1 + 100 + 2 * FIRST as u64 + 1);
    assert_eq!([up, down], [small + (9 << 20), small]);
    assert!(by_kernel > 3 << 20 && by_kernel <= 3 * ((3 << 20) - COPIED), "{by_kernel}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it() {
    let (_agent, _origin, task) = tunnel(b"", Duration::from_secs(7), LONG).await;
    let (done, ..) = task.await.unwrap();
    assert_eq!(done.unwrap_err().to_string(), "the tunnel broke: nothing moved for 7s");
}

/// While the agent goes on sending: it is not idle, only stuck one way.
#[tokio::test]
async fn an_agent_that_takes_nothing_is_let_go() {
    let (mut agent, origin, task) = tunnel(b"", LONG, Duration::from_millis(200)).await;
    let (mut from_tunnel, mut to_tunnel) = origin.into_split();
    let flood = tokio::spawn(async move { while to_tunnel.write_all(&[0; 65536]).await.is_ok() {} });
    let sink = tokio::spawn(async move { tokio::io::copy(&mut from_tunnel, &mut tokio::io::sink()).await });
    let mut writes = 0_u32;
    while agent.write_all(b"still here").await.is_ok() {
        writes += 1;
        tokio::task::yield_now().await;
        if task.is_finished() {
            break;
        }
    }
    let (done, ..) = task.await.unwrap();
    assert_eq!(done.unwrap_err().to_string(), "the tunnel broke: the agent took nothing for 200ms");
    assert!(writes > 0);
    flood.await.unwrap();
    // However it ended for the origin: the bytes that came are not what this is about.
    let _how = sink.await.unwrap();
}

#[tokio::test]
async fn a_reset_ends_it_with_the_error() {
    let (agent, mut origin, task) = tunnel(b"", LONG, LONG).await;
    agent.set_zero_linger().unwrap();
    drop(agent);
    let mut rest = Vec::new();
    let _cut = origin.read_to_end(&mut rest).await;
    drop(origin);
    let (done, ..) = task.await.unwrap();
    assert!(
        matches!(done, Err(ForwardError::Tunnel(error)) if error.kind() == io::ErrorKind::ConnectionReset)
    );
}
