//! Guarded processes with a network of their own, as containers and sandboxes have it: the gate comes to
//! them, or they are refused.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use fake_internet::world::{DENIED, OPEN, SINK};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::timeout,
};

use super::Scenario;
use crate::lab::{
    case::{Case, since},
    inside::Lab,
    log::{Pattern, Record},
    row::Row,
};

/// For what is in there: the gate's look, two pages and a datagram.
const PATIENCE: Duration = Duration::from_secs(60);
const DONE: Pattern = Pattern {
    kind: Some("exchange"),
    state: Some("done"),
    host: Some(OPEN),
    action: Some("allow"),
    rule: None,
    protocol: None,
    version: None,
    status: Some(200),
    flag: None,
    blame: None,
    original: None,
};

/// The first attempts come before the gate does, and are refused.
macro_rules! fetches {
    () => {
        "for i in $(seq 100); do
             curl -sS -m 20 -o /dev/null -w 'page: %{http_code}\\n' https://open.example/ && break
             sleep 0.1
         done
         curl -sS -m 20 -o /dev/null -w 'denied: %{http_code}\\n' --resolve denied.example:443:198.51.100.30 https://denied.example/
         echo '
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b\"x\", (\"203.0.113.80\", 9999))
    print(\"sent\")
except PermissionError:
    print(\"not permitted\")
' | python3 -
         "
    };
}

/// Its own loopback and nothing else.
const ALONE: &str = concat!("ip link set lo up\n", fetches!());

/// A sandbox without privileges: its network is a process of the same session, which makes sockets
/// outside for the packets that it is handed. Packets that no socket of the sandbox was judged for come to
/// it by its own device, and are then that process's to send.
const STACK: &str =
    "unshare --user --map-root-user --net sh -c 'echo in; exec sleep 100' >/tmp/stack.$$ & box=$!
     until grep -q in /tmp/stack.$$; do sleep 0.05; done; rm /tmp/stack.$$
     mkfifo /tmp/stack.$$; exec 7<>/tmp/stack.$$; rm /tmp/stack.$$
     slirp4netns --configure --mtu=65520 --ready-fd=7 $box tap0 >/dev/null 2>&1 & stack=$!
     head -c 1 <&7 >/dev/null
     nsenter --target $box --user --net --preserve-credentials sh -c \"$0\"
     kill $stack $box
     ";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::case(
            Case::inside("a network namespace of the agent's own", &["unshare", "--net", "sh", "-c", ALONE])
                .says("page: 200")
                .says("denied: 403")
                .says("not permitted")
                .requests(OPEN, 1)
                .logs(DONE),
        ),
        Scenario::case(
            Case::inside("a sandbox behind a network stack of its own", &["sh", "-c", STACK, INSIDE_STACK])
                .says("page: 200")
                .says("denied: 403")
                .says("not permitted")
                .says("handed over")
                .nothing_at(SINK)
                .logs(DONE),
        ),
        Scenario::Story("a container with a wire to the world", |lab| Box::pin(wired(lab))),
    ]
}

/// And a datagram for the sink, written to the sandbox's own device.
const INSIDE_STACK: &str = concat!(
    fetches!(),
    r#"
echo '
import socket, struct
def sum16(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
try:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("tap0", 0))
    udp = struct.pack("!HHHH", 4444, 9999, 9, 0) + b"x"
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0,
                       socket.inet_aton("10.0.2.100"), socket.inet_aton("203.0.113.80"))
    head = head[:10] + struct.pack("!H", sum16(head)) + head[12:]
    ether = b"\xff" * 6 + s.getsockname()[4] + b"\x08\x00"
    for i in range(5):
        s.send(ether + head + udp)
    print("handed over")
except OSError as error:
    # AF_PACKET is closed by seccomp, or by LSM where the kernel has it.
    print("handed over: not possible,", error)
' | python3 -
"#
);

/// What `--cgroup-parent=agent.slice` makes of a container: a guarded process whose namespace has a wire
/// that root made.
async fn wired(lab: &mut Lab) -> anyhow::Result<Row> {
    let mut row = Row::new("", "in a network namespace with a veth pair: curl, a datagram");
    let mark = lab.newest().await?;
    let shell =
        ["unshare", "--net", "sh", "-c", "echo in; read go; eval \"$0\"", fetches!()].map(str::to_owned);
    let mut container = lab.inside(&shell).stdin(Stdio::piped()).spawn().context("agentctl run")?;
    let pid = container.id().context("it ended")?;
    let mut said = BufReader::new(container.stdout.take().context("stdout")?).lines();
    timeout(PATIENCE, said.next_line()).await.context("the container does not start")??;
    let own = format!("--net=/proc/{pid}/ns/net");
    run(&format!("ip link add box0 type veth peer name eth0 netns {pid}")).await?;
    run("ip addr add 10.98.0.1/30 dev box0").await?;
    run("ip link set box0 up").await?;
    for line in [
        "link set lo up",
        "addr add 10.98.0.2/30 dev eth0",
        "link set eth0 up",
        "route add default via 10.98.0.1",
    ] {
        run(&format!("nsenter {own} ip {line}")).await?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward")?;
    let before = lab.internet.journal.snapshot();
    let unguarded =
        run(&format!("nsenter {own} curl -sS -m 20 -H host:open.example http://198.51.100.10/")).await?;
    row.expect(unguarded.contains("This is open.example."), || {
        format!("the wire leads nowhere: {unguarded}")
    });
    let direct = since(&before, lab.internet.journal.snapshot());
    row.expect(direct.connections_to(OPEN).any(|c| c.peer.ip().to_string() == "10.98.0.2"), || {
        "what is not guarded did not go by the wire".to_owned()
    });

    let before = lab.internet.journal.snapshot();
    container.stdin.take().context("stdin")?.write_all(b"go\n").await?;
    let mut lines = Vec::new();
    while let Some(line) = timeout(PATIENCE, said.next_line()).await.context("the container hangs")?? {
        lines.push(line);
    }
    timeout(PATIENCE, container.wait()).await.context("the container does not end")??;
    row.saw(&lines.join("; "));
    for words in ["page: 200", "denied: 403", "not permitted"] {
        row.expect(lines.iter().any(|line| line.contains(words)), || format!("it did not say {words:?}"));
    }
    let arrived = since(&before, lab.internet.journal.snapshot());
    let peers: Vec<String> = arrived.connections.iter().map(|c| c.peer.ip().to_string()).collect();
    row.origin = format!("connections from {}", peers.join(", "));
    row.expect(!peers.iter().any(|peer| peer == "10.98.0.2"), || "something went by the wire".to_owned());
    row.expect(arrived.requests_to(OPEN).count() == 1, || "the page was not fetched once".to_owned());
    row.expect(arrived.connections_to(DENIED).count() == 0, || "a denied host was reached".to_owned());
    row.expect(arrived.datagrams_to(SINK).count() == 0, || "a datagram arrived".to_owned());
    let records = lab.records_with(mark, &DONE).await?;
    match records.iter().find(|record| DONE.matches(record)) {
        Some(record) => row.log = format!("{}; {}", record.summary(), record.who().unwrap_or_default()),
        None => row.differs.push("the page is not recorded".to_owned()),
    }
    if !row.ok() {
        row.details = records.iter().map(Record::summary).collect::<Vec<_>>().join("\n");
    }
    Ok(row)
}

/// A command of the lab itself, which has to succeed.
async fn run(line: &str) -> anyhow::Result<String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| line.to_owned())?;
    anyhow::ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
