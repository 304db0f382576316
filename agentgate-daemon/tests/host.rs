//! What policy and kernel are told of the host, in a network namespace of the test's own.

#![expect(clippy::unwrap_used, reason = "a fault of the set-up fails the test")]
#![expect(unsafe_code, reason = "unshare(2) of a thread that the test made for it")]

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use agentgate::{
    drain::Drain,
    forward::Resolver,
    host::Follower,
    kernel::fake::FakeKernel,
    reload::{PolicyHandle, PolicyPaths},
};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::AAAA},
};
use tokio::{net::UdpSocket, time::timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn policy(directory: &Path) -> PolicyHandle {
    let file = directory.join("policy.toml");
    std::fs::write(&file, "version = 1\nmode = \"blocklist\"\nnetwork.private = \"allow\"\n").unwrap();
    PolicyHandle::load(PolicyPaths {
        policy: file,
        lists: directory.join("lists"),
        mode: directory.join("mode"),
    })
}

/// A resolver with DNS64: `ipv4only.arpa` has the address 192.0.0.170 below `prefix`, and no other name
/// is there. Where `prefix` is `None` there is none behind it.
async fn name_server(prefix: Option<Ipv6Addr>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut response = Message::response(request.metadata.id, request.metadata.op_code);
            response.metadata.recursion_available = true;
            for query in &request.queries {
                response.add_query(query.clone());
                let known =
                    query.name().to_ascii().trim_end_matches('.').eq_ignore_ascii_case("ipv4only.arpa");
                match prefix {
                    Some(prefix) if known && query.query_type() == RecordType::AAAA => {
                        let bits = prefix.to_bits() | 0xc000_00aa;
                        let rdata = RData::AAAA(AAAA(Ipv6Addr::from_bits(bits)));
                        response.add_answer(Record::from_rdata(query.name().clone(), 60, rdata));
                    }
                    Some(_) if known => {}
                    Some(_) | None => response.metadata.response_code = ResponseCode::NXDomain,
                }
            }
            socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "{arguments:?}");
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !holds() {
            // There is nothing to wait on: the fake kernel tells nobody that it was told.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

#[tokio::test]
async fn addresses_are_installed_at_the_start_and_prefixes_as_soon_as_they_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, kernel) = (policy(directory.path()), Arc::new(FakeKernel::default()));
    let server = name_server(Some("2001:db8:64::".parse().unwrap())).await;
    let resolver = Resolver::new(&[server]).unwrap();
    let follower = Follower::start(resolver, kernel.clone(), policy.clone()).unwrap();
    assert!(kernel.host_addresses().contains(&"127.0.0.1".parse().unwrap()), "{:?}", kernel.host_addresses());
    let admits = |ip: &str| policy.current().addresses().admits(ip.parse().unwrap(), 443).is_ok();
    let drain = Drain::default();
    let running = tokio::spawn(follower.run(drain.watch()));
    until("the prefix is known", || !admits("2001:db8:64::169.254.169.254")).await;
    assert!(admits("2001:db8:64::8.8.8.8"));
    assert!(admits("2001:db8:65::169.254.169.254"));
    drain.start();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

/// A resolver that says nothing is no fault and delays nothing: it is not even asked before the gate is up.
#[tokio::test]
async fn a_silent_resolver_does_not_delay_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, kernel) = (policy(directory.path()), Arc::new(FakeKernel::default()));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let resolver = Resolver::new(&[silent.local_addr().unwrap()]).unwrap();
    let follower = Follower::start(resolver, kernel.clone(), policy).unwrap();
    assert!(!kernel.host_addresses().is_empty());
    let mut question = [0; 512];
    assert!(silent.recv(&mut question).is_err(), "nobody was asked");
    let silent = UdpSocket::from_std(silent).unwrap();
    let drain = Drain::default();
    let running = tokio::spawn(follower.run(drain.watch()));
    assert!(timeout(PATIENCE, silent.recv(&mut question)).await.unwrap().unwrap() > 0);
    drain.start();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

/// Addresses that come and go on an interface are followed, in both families.
#[test]
#[ignore = "needs root for a network namespace"]
fn addresses_are_followed() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::thread::UnshareFlags::NEWNET;
            // SAFETY: the flag touches no file descriptors and no memory that others rely on.
            unsafe { rustix::thread::unshare_unsafe(flags) }.expect("a namespace needs root");
            ip(&["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(follow());
        });
    });
}

async fn follow() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, kernel) = (policy(directory.path()), Arc::new(FakeKernel::default()));
    let resolver = Resolver::new(&[name_server(None).await]).unwrap();
    let drain = Drain::default();
    let follower = Follower::start(resolver, kernel.clone(), policy.clone()).unwrap();
    let running = tokio::spawn(follower.run(drain.watch()));
    let lan: IpAddr = "192.168.77.5".parse().unwrap();
    let v6: IpAddr = "2001:db8:77::5".parse().unwrap();
    let told = |ip: IpAddr| kernel.host_addresses().contains(&ip);
    let admits = |ip: IpAddr| policy.current().addresses().admits(ip, 443).is_ok();
    assert!(!told(lan) && admits(lan) && admits(v6));
    ip(&["link", "add", "lan0", "type", "veth", "peer", "name", "lan1"]);
    ip(&["link", "set", "lan0", "up"]);
    ip(&["addr", "add", "192.168.77.5/24", "dev", "lan0"]);
    ip(&["-6", "addr", "add", "2001:db8:77::5/64", "dev", "lan0", "nodad"]);
    until("both addresses are closed", || told(lan) && told(v6) && !admits(lan) && !admits(v6)).await;
    assert!(admits("192.168.77.6".parse().unwrap()), "its neighbours are what they were");
    ip(&["addr", "del", "192.168.77.5/24", "dev", "lan0"]);
    until("the one that went is open again", || !told(lan) && told(v6) && admits(lan)).await;
    ip(&["link", "del", "lan0"]);
    until("a link takes its addresses along", || !told(v6) && admits(v6)).await;
    drain.start();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}
