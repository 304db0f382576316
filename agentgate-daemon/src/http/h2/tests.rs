//! A relay between two pairs of `h2` ends over pipes in memory: what an agent's library and an origin's
//! see of each other through it.

use std::{
    future::poll_fn,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::{io::DuplexStream, sync::mpsc, task::JoinSet};

use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// What the taps of one exchange heard, in the order in which they heard it.
type Heard = Arc<Mutex<Vec<String>>>;

fn tap(heard: &Heard, name: &'static str) -> impl FnMut(Seen<'_>) -> ControlFlow<()> + Send + 'static {
    let heard = heard.clone();
    move |seen| {
        let mut heard = heard.lock().unwrap();
        match seen {
            // Of bodies made of one letter the number of bytes is enough.
            Seen::Data(data) => match heard.last_mut() {
                Some(last) if last.starts_with(name) && last.contains(" bytes") => {
                    let so_far: usize = last.split(' ').nth(1).unwrap().parse().unwrap();
                    *last = format!("{name} {} bytes", so_far + data.len());
                }
                _ => heard.push(format!("{name} {} bytes", data.len())),
            },
            Seen::End => heard.push(format!("{name} end")),
            Seen::Failed(why) => heard.push(format!("{name} failed: {why}")),
        }
        ControlFlow::Continue(())
    }
}

/// An agent, an origin, and the relay between.
struct Between {
    agent: client::SendRequest<Bytes>,
    arrivals: mpsc::UnboundedReceiver<(Request<RecvStream>, server::SendResponse<Bytes>)>,
    heard: Heard,
    tasks: JoinSet<()>,
}

impl Between {
    async fn new() -> Self {
        Self::with(IDLE, &client::Builder::new(), &server::Builder::new()).await
    }

    async fn with(idle: Duration, agent: &client::Builder, origin: &server::Builder) -> Self {
        let mut tasks = JoinSet::new();
        let (near_agent, far_agent) = tokio::io::duplex(1 << 16);
        let (near_origin, far_origin) = tokio::io::duplex(1 << 16);
        let heard = Heard::default();
        let (seen, arrivals) = mpsc::unbounded_channel();
        let origin = origin.clone();
        tasks.spawn(async move {
            let mut connection = origin.handshake::<_, Bytes>(far_origin).await.unwrap();
            while let Some(Ok(arrived)) = connection.accept().await {
                let _nobody = seen.send(arrived);
            }
        });
        tasks.spawn(relay(near_agent, near_origin, idle, heard.clone()));
        let (agent, connection) = agent.handshake(far_agent).await.unwrap();
        tasks.spawn(async move {
            let _over = connection.await;
        });
        Self { agent, arrivals, heard, tasks }
    }

    async fn arrived(&mut self) -> (Request<RecvStream>, server::SendResponse<Bytes>) {
        self.arrivals.recv().await.unwrap()
    }

    /// Waits until the taps have heard this last.
    async fn heard(&self, last: &str) -> Vec<String> {
        let mut turns = 0;
        loop {
            let heard = self.heard.lock().unwrap().clone();
            if heard.last().is_some_and(|l| l == last) {
                return heard;
            }
            turns += 1;
            assert!(turns < 100_000, "{heard:?}");
            tokio::task::yield_now().await;
        }
    }
}

async fn relay(agent: DuplexStream, origin: DuplexStream, idle: Duration, heard: Heard) {
    let mut tasks = JoinSet::new();
    let (sender, connection) = to_origin(1 << 16).handshake::<_, Bytes>(origin).await.unwrap();
    tasks.spawn(async move {
        let _over = connection.await;
    });
    let mut agent = to_agent(1 << 16, true).handshake::<_, Bytes>(agent).await.unwrap();
    while let Some(Ok((request, respond))) = agent.accept().await {
        let (sender, heard) = (sender.clone(), heard.clone());
        tasks.spawn(async move {
            let (head, body) = request.into_parts();
            let mut head = Request::from_parts(head, ());
            *head.version_mut() = http::Version::HTTP_2;
            let up = tap(&heard, "up");
            let mut asking = match ask(sender, head, body.into(), respond, idle, up) {
                Ok(asking) => asking,
                Err((error, _)) => return heard.lock().unwrap().push(format!("unsent: {error}")),
            };
            let answer = match asking.answer().await {
                Ok(answer) => answer,
                Err(broke) => {
                    heard.lock().unwrap().push(format!("no answer: {broke}"));
                    return ToAgent::Unanswered(asking.into_agent()).reset(broke.reason());
                }
            };
            let (head, body) = answer.into_parts();
            let Ok(mut answering) = asking.pass(head, body, tap(&heard, "down")) else { return };
            match answering.finish().await {
                Ok(None) => heard.lock().unwrap().push("done".into()),
                Ok(Some(reason)) => heard.lock().unwrap().push(format!("done, unwanted: {reason:?}")),
                Err(broke) => {
                    heard.lock().unwrap().push(format!("broke: {broke}"));
                    // What came before it goes on before it.
                    tokio::task::yield_now().await;
                    ToAgent::Answered(answering.into_agent()).reset(broke.reason());
                }
            }
        });
    }
}

fn request(method: Method) -> Request<()> {
    Request::builder().method(method).uri("https://origin.example/x?y=z").body(()).unwrap()
}

/// All of a body, its capacity given back, and its trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        let _gone = body.flow_control().release_capacity(data.len());
    }
    Ok((all, body.trailers().await?))
}

/// Sends `bytes` as the receiver takes them.
async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let piece = bytes.split_to(stream.capacity().min(bytes.len()));
        stream.send_data(piece, end && bytes.is_empty()).unwrap();
    }
}

#[tokio::test]
async fn heads_and_the_place_of_the_end_are_kept() {
    let mut between = Between::new().await;
    let mut get = request(Method::GET);
    for (name, value) in
        [("cookie", "a=1"), ("x-b", "1"), ("cookie", "b=2"), ("x-a", "2"), ("te", "trailers")]
    {
        get.headers_mut().append(name, value.parse().unwrap());
    }
    let (answer, _) = between.agent.send_request(get.clone(), true).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    assert!(arrived.body().is_end_stream(), "no body is END_STREAM on HEADERS");
    assert_eq!(arrived.uri(), get.uri());
    let listed = |headers: &HeaderMap| -> Vec<(String, String)> {
        headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    };
    assert_eq!(listed(arrived.headers()), listed(get.headers()));
    let head = Response::builder().status(204).header("x-c", "3").body(()).unwrap();
    respond.send_response(head, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["x-c"]), (StatusCode::NO_CONTENT, &"3".parse().unwrap()));
    assert!(answer.body().is_end_stream());
    assert_eq!(between.heard("done").await, ["up end", "down end", "done"]);

    // An end of its own stays one: an empty DATA frame after the last byte.
    let (answer, mut body) = between.agent.send_request(request(Method::POST), false).unwrap();
    body.send_data("one".into(), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    let mut arriving = arrived.into_body();
    assert_eq!(arriving.data().await.unwrap().unwrap(), "one");
    assert!(!arriving.is_end_stream());
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(arriving.data().await.unwrap().unwrap(), "");
    assert!(arriving.is_end_stream());
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    down.send_data("two".into(), true).unwrap();
    let mut down = answer.await.unwrap().into_body();
    assert_eq!(down.data().await.unwrap().unwrap(), "two");
    assert!(down.is_end_stream());
}

#[tokio::test]
async fn a_call_both_ways_with_trailers() {
    let mut between = Between::new().await;
    let (answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    let mut arriving = arrived.into_body();
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for turn in ["a", "bb", "ccc"] {
        up.send_data(turn.into(), false).unwrap();
        assert_eq!(arriving.data().await.unwrap().unwrap(), turn);
        down.send_data(turn.into(), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), turn);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "6".parse().unwrap());
    up.send_trailers(trailers.clone()).unwrap();
    assert!(arriving.data().await.is_none());
    assert_eq!(arriving.trailers().await.unwrap().unwrap(), trailers);
    trailers.insert("grpc-status", "0".parse().unwrap());
    down.send_trailers(trailers.clone()).unwrap();
    assert_eq!(read(answer).await.unwrap().1.unwrap(), trailers);
    let heard = between.heard("done").await;
    assert!(heard.contains(&"up end".into()) && heard.contains(&"down end".into()), "{heard:?}");
}

#[tokio::test]
async fn informational_answers_go_before_the_final_one() {
    let mut between = Between::new().await;
    let (mut answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    for status in [100, 103] {
        let head = Response::builder().status(status).header("link", "<x>").body(()).unwrap();
        respond.send_informational(head).unwrap();
        let early = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((early.status().as_u16(), early.headers().len()), (status, 1));
    }
    up.send_data("go".into(), true).unwrap();
    assert_eq!(read(arrived.into_body()).await.unwrap().0, b"go");
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_origin_without_an_end_to_informational_answers_is_ended() {
    let mut between = Between::new().await;
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    for _ in 0..100 {
        let _over = respond.send_informational(Response::builder().status(103).body(()).unwrap());
    }
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    let reset = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::CANCEL);
}

#[tokio::test]
async fn a_reset_passes_with_its_code_before_the_answer() {
    let mut between = Between::new().await;
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::from(0xbeef)] {
        let (_answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
        let (_arrived, mut respond) = between.arrived().await;
        up.send_reset(reason);
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), reason);
    }
    for reason in [Reason::REFUSED_STREAM, Reason::HTTP_1_1_REQUIRED, Reason::ENHANCE_YOUR_CALM] {
        let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
        let (_arrived, mut respond) = between.arrived().await;
        respond.send_reset(reason);
        let error = answer.await.unwrap_err();
        assert_eq!((error.reason(), error.is_remote()), (Some(reason), true));
    }
}

#[tokio::test]
async fn a_reset_passes_with_its_code_amid_the_answer() {
    let mut between = Between::new().await;
    let (answer, mut up) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    down.send_data("begun".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "begun");
    up.send_reset(Reason::CANCEL);
    assert_eq!(poll_fn(|cx| down.poll_reset(cx)).await.unwrap(), Reason::CANCEL);

    let (answer, _up) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    down.send_data("begun".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "begun");
    down.send_reset(Reason::INADEQUATE_SECURITY);
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INADEQUATE_SECURITY));
    let heard = between.heard.lock().unwrap().clone();
    assert!(heard.iter().any(|line| line.starts_with("down failed")), "{heard:?}");
}

#[tokio::test]
async fn an_early_answer_ends_the_request() {
    let mut between = Between::new().await;
    let (answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    up.send_data("some".into(), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    let head = Response::builder().status(413).body(()).unwrap();
    let mut down = respond.send_response(head, false).unwrap();
    down.send_data("too large".into(), true).unwrap();
    // Dropped with all sent, it is RST_STREAM(NO_ERROR).
    drop((arrived, respond, down));
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(read(answer.into_body()).await.unwrap().0, b"too large");
    assert_eq!(poll_fn(|cx| up.poll_reset(cx)).await.unwrap(), Reason::NO_ERROR);
    let heard = between.heard("done, unwanted: NO_ERROR").await;
    assert!(heard.contains(&"down end".into()) && !heard.contains(&"up end".into()), "{heard:?}");
}

#[tokio::test]
async fn a_request_goes_on_after_its_answer() {
    let mut between = Between::new().await;
    let (answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    respond.send_response(Response::new(()), true).unwrap();
    assert!(answer.await.unwrap().body().is_end_stream());
    write(&mut up, vec![b'x'; 300_000].into(), true).await;
    assert_eq!(read(arrived.into_body()).await.unwrap().0.len(), 300_000);
    between.heard("done").await;
}

#[tokio::test]
async fn lengths_that_do_not_match_are_passed_on_as_resets() {
    let mut between = Between::new().await;
    let mut short = request(Method::POST);
    short.headers_mut().insert("content-length", "10".parse().unwrap());
    let (answer, mut up) = between.agent.send_request(short, false).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    up.send_data("five!".into(), true).unwrap();
    assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));

    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let head = Response::builder().header("content-length", "10").body(()).unwrap();
    let mut down = respond.send_response(head, false).unwrap();
    down.send_data("five!".into(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let error = loop {
        match body.data().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_length_on_a_head_is_no_mismatch() {
    let mut between = Between::new().await;
    let (answer, _) = between.agent.send_request(request(Method::HEAD), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let head = Response::builder().header("content-length", "12345").body(()).unwrap();
    respond.send_response(head, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-length"], "12345");
    assert!(answer.body().is_end_stream());
}

/// How much a sender gets rid of while nobody reads at the far end.
async fn unread(mut stream: SendStream<Bytes>) -> usize {
    let mut sent = 0;
    let mut waited = 0;
    loop {
        stream.reserve_capacity(16 * 1024);
        let room = stream.capacity().min(16 * 1024);
        if room > 0 {
            stream.send_data(vec![b'x'; room].into(), false).unwrap();
            sent += room;
            waited = 0;
        } else if waited == 5_000 {
            // Nothing moved in as many turns of everything that runs here.
            return sent;
        }
        waited += 1;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_does_not_read_holds_the_sender_up() {
    let mut reader = client::Builder::new();
    reader.initial_window_size(70_000);
    let mut between = Between::with(IDLE, &reader, &server::Builder::new()).await;
    // The origin does not read: its window and ours.
    let (_answer, up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (_unread, _respond) = between.arrived().await;
    let sent = unread(up).await;
    assert!((1 << 20..2 << 20).contains(&sent), "{sent}");

    // The agent does not.
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let down = respond.send_response(Response::new(()), false).unwrap();
    let _unread = answer.await.unwrap();
    let sent = unread(down).await;
    assert!((4 << 20..5 << 20).contains(&sent), "{sent}");
}

#[tokio::test]
async fn one_unread_stream_does_not_hold_up_another() {
    let mut reader = client::Builder::new();
    reader.initial_window_size(70_000);
    let mut between = Between::with(IDLE, &reader, &server::Builder::new()).await;
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let down = respond.send_response(Response::new(()), false).unwrap();
    let _unread = answer.await.unwrap();
    unread(down).await;

    // The window of the pipe in the agent's library is shared; what it has not read is its own affair.
    let (answer, _) = between.agent.send_request(request(Method::POST), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    let mut between = Between::new().await;
    let size = 3_000_001;
    let (answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let (sent, received, back, answered) = tokio::join!(
        write(&mut up, vec![b'u'; size].into(), true),
        read(arrived.into_body()),
        write(&mut down, vec![b'd'; size].into(), true),
        async { read(answer.await.unwrap().into_body()).await },
    );
    let ((), ()) = (sent, back);
    assert!(received.unwrap().0 == vec![b'u'; size]);
    assert!(answered.unwrap().0 == vec![b'd'; size]);
    between.heard("done").await;
}

#[tokio::test]
async fn streams_wait_for_an_origin_that_takes_one_at_a_time() {
    let mut one = server::Builder::new();
    one.max_concurrent_streams(1);
    let mut between = Between::with(IDLE, &client::Builder::new(), &one).await;
    // So that its SETTINGS have arrived.
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    between.arrived().await.1.send_response(Response::new(()), true).unwrap();
    answer.await.unwrap();

    let (first, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (second, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert!(between.arrivals.try_recv().is_err(), "two at a time");
    }
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    between.arrived().await.1.send_response(Response::new(()), true).unwrap();
    assert_eq!(second.await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_extended_connect_is_a_stream_like_another() {
    let mut websockets = server::Builder::new();
    websockets.enable_connect_protocol();
    let mut between = Between::with(IDLE, &client::Builder::new(), &websockets).await;
    while !between.agent.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut connect = request(Method::CONNECT);
    connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, mut up) = between.agent.send_request(connect, false).unwrap();
    let (arrived, mut respond) = between.arrived().await;
    assert_eq!(arrived.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(arrived.uri().path(), "/x");
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let mut arriving = arrived.into_body();
    let mut answer = answer.await.unwrap().into_body();
    up.send_data("frame".into(), false).unwrap();
    assert_eq!(arriving.data().await.unwrap().unwrap(), "frame");
    down.send_data("back".into(), true).unwrap();
    assert_eq!(answer.data().await.unwrap().unwrap(), "back");
    up.send_data(Bytes::new(), true).unwrap();
    between.heard("done").await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_exchange_and_movement_does_not() {
    let idle = Duration::from_secs(4);
    let mut between = Between::with(idle, &client::Builder::new(), &server::Builder::new()).await;
    let clock = tokio::time::Instant::now();
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    assert!(clock.elapsed() >= idle && clock.elapsed() <= idle * 3 / 2, "{:?}", clock.elapsed());
    assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);

    // A request on its way up is no silence of the origin's.
    let (answer, mut up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    for _ in 0..10 {
        tokio::time::sleep(idle * 3 / 4).await;
        up.send_data("x".into(), false).unwrap();
    }
    up.send_data("x".into(), true).unwrap();
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    // Nor is one direction's rest that of the other.
    for _ in 0..10 {
        tokio::time::sleep(idle * 3 / 4).await;
        down.send_data("x".into(), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "x");
    }
    let clock = tokio::time::Instant::now();
    assert!(body.data().await.unwrap().is_err());
    assert!(clock.elapsed() >= idle && clock.elapsed() <= idle * 3 / 2, "{:?}", clock.elapsed());
    let heard = between.heard.lock().unwrap().clone();
    assert!(heard.contains(&"down failed: nothing came for 4s".into()), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_read_makes_nobody_silent() {
    let idle = Duration::from_secs(4);
    let mut reader = client::Builder::new();
    reader.initial_window_size(10);
    let mut between = Between::with(idle, &reader, &server::Builder::new()).await;
    let (answer, _) = between.agent.send_request(request(Method::GET), true).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    down.send_data(vec![b'x'; 1000].into(), true).unwrap();
    let body = answer.await.unwrap().into_body();
    tokio::time::sleep(idle * 10).await;
    assert_eq!(read(body).await.unwrap().0.len(), 1000);
}

#[tokio::test]
async fn an_agent_that_goes_away_cancels() {
    let mut between = Between::new().await;
    let (_answer, _up) = between.agent.send_request(request(Method::POST), false).unwrap();
    let (_arrived, mut respond) = between.arrived().await;
    // The last handle and the agent's connection task: the socket closes.
    let Between { agent, tasks: _running, .. } = &mut between;
    let _ = agent;
    drop((_answer, _up));
    assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
}
