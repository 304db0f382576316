//! How often the disk is waited for.

use http::Method;
use tokio::net::TcpListener;

use super::{
    content, framed, head_end, read_until, say,
    setup::World,
    sides::{Agent, Origin, open_policy},
};

/// Writes that were durable when the origin had all of a request on a connection of its own; nothing of it
/// is answered, so nothing ends meanwhile.
struct Counted<'w> {
    world: &'w World,
    before: u64,
}

impl<'w> Counted<'w> {
    fn new(world: &'w World) -> Self {
        Self { world, before: world.handles().audit.health().written }
    }

    fn since(&mut self) -> u64 {
        let now = self.world.handles().audit.health().written;
        now - std::mem::replace(&mut self.before, now)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_waits_once_for_what_comes_at_once() {
    let world = World::new(&open_policy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut counted = Counted::new(&world);
    let mut open = Vec::new();
    let mut waits = Vec::new();
    let get = format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let cases = [
        // What is recorded at the start comes with the first.
        (get.clone(), Vec::new(), false),
        (get, Vec::new(), false),
        (framed((at, "/"), &[], false).0, Vec::new(), false),
        (framed((at, "/"), &content(1, 900), false).0, content(1, 900), false),
        (framed((at, "/"), &[], true).0, framed((at, "/"), &content(2, 5000), true).1, false),
        (framed((at, "/"), &[], true).0, framed((at, "/"), &content(3, 5000), true).1, true),
        (framed((at, "/"), &content(4, 200_000), false).0, content(4, 200_000), false),
    ];
    for (head, body, parted) in cases {
        let mut agent = world.connect(at).await;
        let mut first = head.clone().into_bytes();
        if !parted {
            first.extend_from_slice(&body);
        }
        let sent = async {
            say(&mut agent, &first).await;
            agent
        };
        let (mut agent, accepted) = tokio::join!(sent, listener.accept());
        let (mut origin, _) = accepted.unwrap();
        let mut got = Vec::new();
        assert!(read_until(&mut origin, &mut got, |got| head_end(got).is_some()).await);
        if parted {
            say(&mut agent, &body).await;
        }
        assert!(read_until(&mut origin, &mut got, |got| got.len() == head.len() + body.len()).await);
        waits.push(counted.since());
        open.push((agent, origin));
    }
    let [_, none, empty, small, chunks, parted, large] = waits[..] else { panic!("{waits:?}") };
    assert_eq!([empty, small, chunks], [none; 3], "{waits:?}");
    assert_eq!([parted, large], [none + 1; 2], "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_waits_once_for_what_comes_at_once() {
    let world = World::new(&open_policy()).await;
    let mut origin = Origin::new().await;
    let mut agent = Agent::new(&world, origin.at).await;
    let mut counted = Counted::new(&world);
    let mut open = Vec::new();
    let mut waits = Vec::new();
    let answer = agent.get("/first").await;
    open.push((answer, origin.arrived().await));
    counted.since();
    for (length, parted) in [(0, false), (900, false), (900, true), (200_000, false)] {
        std::future::poll_fn(|cx| agent.ask.poll_ready(cx)).await.unwrap();
        let request = agent.request(Method::POST, "/");
        let (answer, mut up) = agent.ask.send_request(request, false).unwrap();
        let body = content(length as u64, length);
        let early = if parted { Some(origin.arrived().await) } else { None };
        up.send_data(body.clone().into(), true).unwrap();
        let mut arrived = match early {
            Some(arrived) => arrived,
            None => origin.arrived().await,
        };
        let mut got = Vec::new();
        while let Some(data) = arrived.body.data().await {
            let data = data.unwrap();
            arrived.body.flow_control().release_capacity(data.len()).unwrap();
            got.extend_from_slice(&data);
        }
        assert_eq!(got, body);
        waits.push(counted.since());
        open.push((answer, arrived));
    }
    assert_eq!(waits, [1, 1, 2, 2]);
}
