//! The name server: A and AAAA for every site, the answers of `odd`, NXDOMAIN for every other name, over
//! UDP and TCP.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::{
    Placement,
    journal::{Journal, Query},
    odd, world,
};

/// Seconds that answers may be kept: short, so that a test never sees an old one.
const TTL: u32 = 1;
/// Largest answer over UDP.
const DATAGRAM: usize = 1232;
/// How long a TCP client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ports that are free for TCP and taken for UDP before that is an error.
const PORTS_TRIED: usize = 16;

#[derive(Debug)]
pub(crate) struct Zone {
    placement: Placement,
}

impl Zone {
    pub(crate) fn new(placement: Placement) -> Self {
        Self { placement }
    }

    /// The addresses of a name; `None` where there is no such name.
    fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        let site = world::find(name)?;
        Some(match self.placement {
            Placement::Public => site.ips().collect(),
            Placement::Loopback => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        })
    }

    /// The answer to one message, or `None` where it deserves none.
    fn answer(&self, bytes: &[u8], seen: impl Fn(String, String)) -> Option<Vec<u8>> {
        let request = Message::from_vec(bytes).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.authoritative = true;
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        for query in &request.queries {
            response.add_query(query.clone());
            let text = query.name().to_ascii();
            let name = text.trim_end_matches('.').to_ascii_lowercase();
            seen(name.clone(), query.query_type().to_string());
            if query.query_class() != DNSClass::IN {
                response.metadata.response_code = ResponseCode::Refused;
                continue;
            }
            if let Some((code, rows)) = odd::answer(&name, query.query_type()) {
                response.metadata.response_code = code;
                for (owner, data) in rows {
                    let Ok(owner) = Name::from_ascii(format!("{owner}.")) else { continue };
                    response.add_answer(Record::from_rdata(owner, TTL, data));
                }
                continue;
            }
            let Some(ips) = self.lookup(&name) else {
                response.metadata.response_code = ResponseCode::NXDomain;
                continue;
            };
            let wanted = query.query_type();
            for ip in ips {
                let rdata = match ip {
                    IpAddr::V4(v4) if wanted == RecordType::A => RData::A(A(v4)),
                    IpAddr::V6(v6) if wanted == RecordType::AAAA => RData::AAAA(AAAA(v6)),
                    IpAddr::V4(_) | IpAddr::V6(_) => continue,
                };
                response.add_answer(Record::from_rdata(query.name().clone(), TTL, rdata));
            }
        }
        response.to_vec().ok()
    }
}

/// An answer as a datagram carries it: the header and the question, truncated, where it is too large.
fn fitting(answer: Vec<u8>) -> Vec<u8> {
    if answer.len() <= DATAGRAM {
        return answer;
    }
    match Message::from_vec(&answer) {
        Ok(message) => message.truncate().to_vec().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// One port number for UDP and TCP, also where `place` leaves it open.
pub(crate) async fn bind(place: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    // Of the ports that the kernel finds free for TCP, one that is free for UDP too. Those that are not
    // are held until then, so that none is given twice.
    let mut passed_over = Vec::new();
    loop {
        let tcp = TcpListener::bind(place).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Err(error)
                if place.port() == 0
                    && error.kind() == std::io::ErrorKind::AddrInUse
                    && passed_over.len() < PORTS_TRIED =>
            {
                passed_over.push(tcp);
            }
            bound => return Ok((bound?, tcp)),
        }
    }
}

pub(crate) async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>, journal: Arc<Journal>) {
    let Ok(local) = socket.local_addr() else { return };
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let seen = |name, kind| journal.query(Query { name, kind, peer, transport: "udp".to_owned(), local });
        if let Some(answer) = zone.answer(buffer.get(..len).unwrap_or_default(), seen).map(fitting) {
            // The peer may be gone: then nobody misses the answer.
            let _gone = socket.send_to(&answer, peer).await;
        }
    }
}

pub(crate) async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>, journal: Arc<Journal>) {
    let mut streams = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        while streams.try_join_next().is_some() {}
        let (zone, journal) = (Arc::clone(&zone), Arc::clone(&journal));
        streams.spawn(async move {
            // Ends when the client stops asking or breaks the protocol; both are the client's business.
            let _ended = converse(stream, peer, &zone, &journal).await;
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    peer: SocketAddr,
    zone: &Zone,
    journal: &Journal,
) -> std::io::Result<()> {
    let local = stream.local_addr()?;
    loop {
        let len = tokio::time::timeout(PATIENCE, stream.read_u16()).await??;
        let mut bytes = vec![0; usize::from(len)];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await??;
        let seen = |name, kind| journal.query(Query { name, kind, peer, transport: "tcp".to_owned(), local });
        let Some(answer) = zone.answer(&bytes, seen) else {
            return Ok(());
        };
        let Ok(len) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        stream.write_u16(len).await?;
        stream.write_all(&answer).await?;
    }
}
