//! HTTP/1.1, over TLS and in the clear: both ends are plain sockets here, so that nothing but the gate can
//! make a difference.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use agentgate::socket::{Cut, OverTcp, fin, reset};

use super::{
    generate::Random,
    setup::{LOOPBACK, PATIENCE, World, client_config},
};

const NAME: &str = "open.example";

/// One exchange as it is sent, and as it must arrive.
#[derive(Debug)]
struct Exchange {
    /// Of the client: head and body; where it waits for leave, it sends the body after that.
    head: Vec<u8>,
    body: Vec<u8>,
    waits: bool,
    /// What the origin must get for the head.
    head_arrives: Vec<u8>,
    /// The origin answers before it has read the body.
    early: bool,
    /// Of the origin: interim responses (after the head of the request), and the response.
    interim: Vec<u8>,
    response: Vec<u8>,
    /// What the client must get for both.
    answer: Vec<u8>,
    /// The origin closes after the response.
    origin_closes: bool,
    /// The client's connection ends with this.
    last: bool,
    /// How it ends, where that is not after the answer and in good order.
    cut: Option<CutAt>,
    /// The other side has all that is sent before the cut; it has seen the cut.
    arrived: Notify,
    seen: Notify,
    /// How both cut what they send.
    cuts: Random,
}

/// One side ends its connection.
#[derive(Clone, Copy, Debug)]
struct CutAt {
    /// The agent, after so many bytes of its request's body; else the origin, after so many of its answer.
    agent: bool,
    at: usize,
    how: Cut,
    /// All of it was sent before.
    whole: bool,
}

/// The exchanges under way, by their number.
type Known = Arc<Mutex<HashMap<u64, Arc<Exchange>>>>;

const FIELD: &str = "X-Fidelity: ";

fn exchange(random: &mut Random, id: u64, authority: &str, scheme: &str) -> Exchange {
    let method =
        random.pick(&["GET", "POST", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PROPFIND", "M-SEARCH"]);
    let mut target = b"/".to_vec();
    let length = random.below(30);
    target.extend(random.text(b"azAZ09-._~!$&'()*+,;=:@/", length));
    if random.once_in(3) {
        target.extend_from_slice(b"%2f%C3%A9?q=");
        let length = random.below(30);
        target.extend(random.text(b"azAZ09-._~!$&'()*+,;=:@/?{}[]|%25", length));
    }
    if random.once_in(8) {
        target = [format!("{scheme}://{authority}").as_bytes(), &target].concat();
    }
    let (body, framing) = match random.below(4) {
        0 | 1 => (Vec::new(), Vec::new()),
        2 => {
            let body = random.body();
            let line = format!("{}{}\r\n", random.pick(&["Content-Length: ", "content-length:"]), body.len());
            (body, line.into_bytes())
        }
        _ => {
            let body = random.body();
            let line = random.pick(&["Transfer-Encoding: chunked\r\n", "transfer-encoding:Chunked\r\n"]);
            (random.chunked(&body), line.as_bytes().to_vec())
        }
    };
    // HTTP/1.0 has neither chunks nor interim responses, and closes.
    let old = !framing.to_ascii_lowercase().starts_with(b"transfer") && random.once_in(10);
    let waits = !old && !body.is_empty() && random.once_in(6);
    let last = !old && random.once_in(5);
    let close = if last { random.pick(&["Connection: close\r\n", "connection:Close\r\n"]) } else { "" };
    let keep = if !last && !old && random.once_in(4) { "Connection: Keep-Alive\r\n" } else { "" };
    let expect = if waits { "Expect: 100-continue\r\n" } else { "" };
    let host = random.pick(&["Host: ", "host:", "HOST:\t"]);
    let lines = |close: &str, random: &mut Random| {
        let (before, after) = (random.fields(), random.fields());
        let mut head = format!("{method} ").into_bytes();
        head.extend_from_slice(&target);
        head.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
        head.extend_from_slice(&before);
        head.extend_from_slice(
            format!("{host}{authority}\r\n{keep}{close}{FIELD}{id}\r\n{expect}").as_bytes(),
        );
        head.extend_from_slice(&framing);
        head.extend_from_slice(&after);
        head.extend_from_slice(b"\r\n");
        head
    };
    // The same random fields in both.
    let head = lines(close, &mut random.clone());
    let head_arrives = lines("", random);

    let status = random.pick(&["200", "201", "204", "206", "301", "304", "400", "404", "429", "500", "599"]);
    let reason = random.pick(&["OK", "", "a reason  of some \u{e9}length", "Not Found"]);
    let bodiless = method == "HEAD" || status == "204" || status == "304";
    let old_origin = old || random.once_in(20);
    let mut origin_closes = old_origin || random.once_in(12);
    let content = random.body();
    let (mut sent, framing) = match random.below(3) {
        0 if !bodiless && origin_closes => (content, String::new()),
        1 if !old_origin => (random.chunked(&content), "transfer-encoding: chunked\r\n".to_owned()),
        _ => {
            let line = format!("Content-Length: {}\r\n", content.len());
            (content, line)
        }
    };
    if bodiless {
        sent.clear();
    }
    let says_close = origin_closes && (framing.is_empty() || random.once_in(2));
    origin_closes &= says_close || framing.is_empty() || old_origin;
    let fields = random.fields();
    let response = |close: &str, more: &str| {
        let mut out = format!("HTTP/1.{} {status} ", u8::from(!old_origin)).into_bytes();
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(format!("\r\n{close}").as_bytes());
        out.extend_from_slice(&fields);
        out.extend_from_slice(framing.as_bytes());
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&sent);
        out
    };
    let close = if says_close { "Connection: close\r\n" } else { "" };
    // A client that closes is told so by whoever ends its connection: the gate, unless the origin did.
    let told = if last && !says_close && !old_origin && (bodiless || !framing.is_empty()) {
        "Connection: close\r\n"
    } else {
        ""
    };
    let mut interim = Vec::new();
    if !old && random.once_in(10) {
        interim.extend_from_slice(b"HTTP/1.1 103 Early  Hints\r\nlink: </a>\r\nLINK:</b>\r\n\r\n");
    }
    if waits {
        interim.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let cut = (!waits && !last && !origin_closes && random.once_in(6)).then(|| {
        let how = [Cut::Closed, Cut::Dropped, Cut::Reset][random.below(3)];
        let (agent, whole) = (random.once_in(2), random.once_in(3));
        let (from, to) = if agent {
            (0, body.len())
        } else {
            let all = response("", "").len();
            (all - sent.len(), all)
        };
        let at = if whole { to } else { from + random.below(to - from + 1) };
        CutAt { agent, at, how, whole: at == to }
    });
    let answer = [interim.as_slice(), &response(close, told)].concat();
    Exchange {
        head,
        head_arrives,
        waits,
        early: cut.is_none() && !waits && !body.is_empty() && !origin_closes && !last && random.once_in(10),
        body,
        interim,
        response: response(close, ""),
        answer,
        origin_closes,
        last: last || origin_closes || cut.is_some(),
        cut,
        arrived: Notify::new(),
        seen: Notify::new(),
        cuts: random.clone(),
    }
}

async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    mut bytes: &[u8],
    cuts: &mut Random,
) -> std::io::Result<()> {
    let small = bytes.len() < 4000;
    while !bytes.is_empty() {
        let piece = if small { cuts.piece(bytes.len()) } else { bytes.len().min(1 + cuts.below(40_000)) };
        let (now, later) = bytes.split_at(piece);
        to.write_all(now).await?;
        to.flush().await?;
        bytes = later;
        match cuts.below(12) {
            0 => tokio::time::sleep(Duration::from_micros(cuts.below(400) as u64)).await,
            1..=3 => tokio::task::yield_now().await,
            _ => {}
        }
    }
    Ok(())
}

/// Reads as many bytes as `expect` has, and says how they differ.
async fn read<R: AsyncRead + Unpin>(from: &mut R, expect: &[u8], what: &str) -> Result<(), String> {
    let mut got = vec![0; expect.len()];
    let mut length = 0;
    while length < got.len() {
        let reading = timeout(PATIENCE, from.read(&mut got[length..])).await;
        match reading {
            Ok(Ok(0)) => break,
            Ok(Ok(more)) => length += more,
            Ok(Err(error)) => return Err(format!("{what}: {error} after {length} of {}", expect.len())),
            Err(_) => return Err(format!("{what}: nothing more after {length} of {}", expect.len())),
        }
    }
    got.truncate(length);
    if got == expect {
        return Ok(());
    }
    let at = got.iter().zip(expect).take_while(|(a, b)| a == b).count();
    let show = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned()
    };
    Err(format!(
        "{what} differs at {at} of {} ({length} came): {:?} instead of {:?}",
        expect.len(),
        show(&got),
        show(expect)
    ))
}

/// Ends a connection.
async fn end<S: AsyncWrite + OverTcp + Unpin>(mut stream: S, how: Cut) -> Result<S, String> {
    stream.flush().await.map_err(|error| error.to_string())?;
    match how {
        Cut::Closed => stream.shutdown().await.map_err(|error| error.to_string())?,
        Cut::Dropped => fin(stream.tcp().unwrap()),
        Cut::Reset => reset(stream.tcp().unwrap()),
    }
    Ok(stream)
}

/// Reads the end, and nothing before it. In the clear there is one kind of FIN.
async fn ended<S: AsyncRead + Unpin>(stream: &mut S, how: Cut, tls: bool, what: &str) -> Result<(), String> {
    let expect = if how == Cut::Dropped && !tls { Cut::Closed } else { how };
    let mut more = [0; 100];
    let read = timeout(PATIENCE, stream.read(&mut more)).await;
    let got = match &read {
        Ok(Ok(0)) => Some(Cut::Closed),
        Ok(Err(error)) => Some(Cut::of(error)),
        Ok(Ok(_)) | Err(_) => None,
    };
    if got == Some(expect) { Ok(()) } else { Err(format!("{what}: {read:?} instead of {expect:?}")) }
}

async fn told(notify: &Notify, what: &str) -> Result<(), String> {
    timeout(PATIENCE, notify.notified()).await.map_err(|_| format!("{what} was waited for in vain"))
}

/// Serves one connection at the origin until it ends.
async fn origin<S>(mut stream: S, known: Known, tls: bool) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + OverTcp + Unpin,
{
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return Ok(()),
                Err(error) => {
                    return Err(format!("the origin got {:?}: {error}", String::from_utf8_lossy(&head)));
                }
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let id = text.split(FIELD).nth(1).and_then(|rest| rest.split('\r').next()?.parse::<u64>().ok());
        let exchange = id.and_then(|id| known.lock().unwrap().remove(&id));
        let Some(exchange) = exchange else {
            return Err(format!("the origin got a head of nobody's: {text:?}"));
        };
        read(&mut head.as_slice(), &exchange.head_arrives, "the head at the origin").await?;
        if head.len() != exchange.head_arrives.len() {
            return Err(format!("the head at the origin is too long: {text:?}"));
        }
        let mut cuts = exchange.cuts.clone();
        let (mut from, mut to) = split(&mut stream);
        let answer = async |to: &mut _, cuts: &mut Random| {
            write(to, &exchange.response, cuts).await.map_err(|error| format!("answering: {error}"))
        };
        write(&mut to, &exchange.interim, &mut cuts).await.map_err(|error| format!("interim: {error}"))?;
        if let Some(cut) = exchange.cut {
            let sent = if cut.agent { cut.at } else { exchange.body.len() };
            read(&mut from, &exchange.body[..sent], "the body at the origin").await?;
            if cut.agent {
                exchange.arrived.notify_one();
                ended(&mut from, cut.how, tls, "the agent's end at the origin").await?;
                exchange.seen.notify_one();
                if cut.how == Cut::Reset {
                    return Ok(());
                }
                if cut.whole {
                    answer(&mut to, &mut cuts).await?;
                }
                return stream.shutdown().await.map_err(|error| error.to_string());
            }
            let part = &exchange.response[..cut.at];
            write(&mut to, part, &mut cuts).await.map_err(|error| format!("answering: {error}"))?;
            told(&exchange.arrived, "the answer's part").await?;
            let stream = end(stream, cut.how).await?;
            if cut.how != Cut::Reset {
                // Until the agent has read the end: what is closed with something unread is reset.
                told(&exchange.seen, "the origin's end").await?;
            }
            drop(stream);
            return Ok(());
        }
        if exchange.early {
            answer(&mut to, &mut cuts).await?;
            read(&mut from, &exchange.body, "the body at the origin").await?;
        } else {
            read(&mut from, &exchange.body, "the body at the origin").await?;
            answer(&mut to, &mut cuts).await?;
        }
        if exchange.origin_closes {
            return stream.shutdown().await.map_err(|error| error.to_string());
        }
    }
}

/// One connection of a client with some exchanges; how many there were.
async fn client<S: AsyncRead + AsyncWrite + OverTcp + Unpin>(
    mut stream: S,
    mut random: Random,
    (authority, scheme): (&str, &str),
    known: &Known,
    ids: &AtomicU64,
) -> Result<u64, String> {
    let mut done = 0;
    while done < 8 {
        // Some are sent before those before them are answered.
        let mut line: Vec<Arc<Exchange>> = Vec::new();
        loop {
            let id = ids.fetch_add(1, Ordering::Relaxed);
            let exchange = Arc::new(exchange(&mut random, id, authority, scheme));
            known.lock().unwrap().insert(id, exchange.clone());
            let alone = exchange.waits || exchange.last || exchange.early;
            line.push(exchange);
            if alone || !random.once_in(4) {
                break;
            }
        }
        let last = line.last().unwrap().clone();
        let seen = || String::from_utf8_lossy(&last.head[..last.head.len().min(200)]).into_owned();
        stream = match turn(stream, &line, &mut random, scheme == "https").await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(done + line.len() as u64),
            Err(why) => return Err(format!("{why} of {:?} {:?}", last.cut, seen())),
        };
        done += line.len() as u64;
    }
    Ok(done)
}

/// Some exchanges, sent one after the other; gives the stream back where more may follow.
async fn turn<S: AsyncRead + AsyncWrite + OverTcp + Unpin>(
    mut stream: S,
    line: &[Arc<Exchange>],
    random: &mut Random,
    tls: bool,
) -> Result<Option<S>, String> {
    let last = line.last().unwrap();
    let (mut from, mut to) = split(&mut stream);
    let (leave, may) = tokio::sync::oneshot::channel();
    let sending = async {
        let mut may = Some(may);
        for exchange in line {
            write(&mut to, &exchange.head, random).await.map_err(|error| format!("asking: {error}"))?;
            if exchange.waits
                && let Some(may) = may.take()
            {
                may.await.map_err(|_| "no leave to send".to_owned())?;
            }
            let most = exchange.cut.filter(|cut| cut.agent).map_or(exchange.body.len(), |cut| cut.at);
            let body = &exchange.body[..most];
            write(&mut to, body, random).await.map_err(|error| format!("asking: {error}"))?;
        }
        Ok::<(), String>(())
    };
    let reading = async {
        let mut leave = Some(leave);
        for exchange in line {
            let (interim, rest) = exchange.answer.split_at(exchange.interim.len());
            read(&mut from, interim, "the interim at the client").await?;
            if exchange.waits
                && let Some(leave) = leave.take()
            {
                let _sent_already = leave.send(());
            }
            match exchange.cut {
                Some(cut) if cut.agent => {}
                Some(cut) => read(&mut from, &rest[..cut.at], "the response's part at the client").await?,
                None => read(&mut from, rest, "the response at the client").await?,
            }
        }
        Ok(())
    };
    tokio::try_join!(sending, reading)?;
    match last.cut {
        None if last.last => ended(&mut stream, Cut::Closed, tls, "the client's end").await.map(|()| None),
        None => Ok(Some(stream)),
        Some(cut) if cut.agent => {
            told(&last.arrived, "the request's part").await?;
            let mut stream = end(stream, cut.how).await?;
            if cut.how == Cut::Reset {
                drop(stream);
                return told(&last.seen, "the agent's reset").await.map(|()| None);
            }
            told(&last.seen, "the agent's end").await?;
            if cut.whole {
                let rest = &last.answer[last.interim.len()..];
                read(&mut stream, rest, "the response after the client's end").await?;
            }
            ended(&mut stream, Cut::Closed, tls, "the end after the client's").await.map(|()| None)
        }
        Some(cut) => {
            last.arrived.notify_one();
            let ended = ended(&mut stream, cut.how, tls, "the origin's end at the client").await;
            last.seen.notify_one();
            ended.map(|()| None)
        }
    }
}

/// At least `wanted` exchanges over `connections` connections at once: how many there were, and what
/// differed.
pub(crate) async fn run(wanted: u64, seed: u64, connections: u64, direct: bool) -> (u64, Vec<String>) {
    let world = Arc::new(World::new(&format!("version = 1\nmode = \"blocklist\"\n{LOOPBACK}")).await);
    let known = Known::default();
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = [plain.local_addr().unwrap(), secure.local_addr().unwrap()];
    let acceptor = TlsAcceptor::from(world.internet.presenting(NAME, &[b"http/1.1"]).unwrap());
    for (listener, acceptor) in [(plain, None), (secure, Some(acceptor))] {
        let (known, wrong) = (known.clone(), wrong.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (known, wrong, acceptor) = (known.clone(), wrong.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let served = match acceptor {
                        None => origin(stream, known, false).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => origin(stream, known, true).await,
                            Err(_) => Ok(()), // reached and not needed
                        },
                    };
                    if let Err(why) = served {
                        wrong.lock().unwrap().push(why);
                    }
                });
            }
        });
    }
    let (done, ids, seeds) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(seed)));
    let mut running = JoinSet::new();
    for _ in 0..connections {
        let (world, known, wrong) = (world.clone(), known.clone(), wrong.clone());
        let (done, ids, seeds) = (done.clone(), ids.clone(), seeds.clone());
        running.spawn(async move {
            while done.load(Ordering::Relaxed) < wanted && wrong.lock().unwrap().is_empty() {
                let seed = seeds.fetch_add(1, Ordering::Relaxed);
                let random = Random::new(seed);
                match connection(&world, at, seed, random, &known, &ids, direct).await {
                    Ok(more) => drop(done.fetch_add(more, Ordering::Relaxed)),
                    Err(why) => wrong.lock().unwrap().push(format!("seed {seed}: {why}")),
                }
            }
        });
    }
    while running.join_next().await.is_some() {}
    let wrong = wrong.lock().unwrap().clone();
    (done.load(Ordering::Relaxed), wrong)
}

async fn connection(
    world: &World,
    at: [SocketAddr; 2],
    seed: u64,
    random: Random,
    known: &Known,
    ids: &AtomicU64,
    direct: bool,
) -> Result<u64, String> {
    let secure = !seed.is_multiple_of(2);
    let at = at[usize::from(secure)];
    let tcp = if direct { TcpStream::connect(at).await.unwrap() } else { world.connect(at).await };
    let authority = format!("{NAME}:{}", at.port());
    if !secure {
        return client(tcp, random, (&authority, "http"), known, ids).await;
    }
    let pem = if direct { world.internet.root_pem() } else { world.ca_pem() };
    let connector = TlsConnector::from(Arc::new(client_config(pem, &[b"http/1.1"])));
    let stream = connector.connect(NAME.try_into().unwrap(), tcp).await.map_err(|error| error.to_string())?;
    client(stream, random, (&authority, "https"), known, ids).await
}
