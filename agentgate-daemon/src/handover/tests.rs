//! Keeping and taking, against a manager on a socket of the test's own.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::*;

struct Scene {
    _dir: tempfile::TempDir,
    socket: UnixDatagram,
    manager: Manager,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { _dir: dir, socket, manager: Manager::at(path.into()) }
    }

    fn heard(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(&self.socket, &mut data, &mut control, RecvFlags::empty()).ok()?;
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                sockets.extend(rights);
            }
        }
        Some((String::from_utf8_lossy(&bytes[..got.bytes]).into_owned(), sockets))
    }

    fn given(&self, names: &[&str], socket: impl Into<OwnedFd>) -> Sockets {
        let socket = socket.into();
        let copies = names.iter().map(|name| ((*name).to_owned(), socket.try_clone().unwrap()));
        Sockets::with(Some(self.manager.clone()), copies)
    }
}

#[test]
fn a_socket_is_kept_and_taken_again_with_its_age() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    scene.given(&[], listener.try_clone().unwrap()).keep("listener4", listener.as_fd(), 77);
    let (states, mut sockets) = scene.heard().unwrap();
    assert_eq!(states, "FDSTORE=1\nFDNAME=listener4.77\nFDPOLL=0\n");
    let mut next = scene.given(&["listener4.77"], sockets.pop().unwrap());
    drop(listener);
    let (taken, since) = next.take("listener4", Wanted::Listener(at)).unwrap();
    assert_eq!(since, 77);
    let taken = TcpListener::from(taken);
    drop(std::net::TcpStream::connect(at).unwrap());
    assert!(taken.accept().is_ok(), "who connected meanwhile waited");
    assert!(next.take("listener4", Wanted::Listener(at)).is_none(), "once");
    next.close_rest();
    assert!(scene.heard().is_none(), "what is in use stays in the store");
}

#[test]
fn what_is_not_wanted_is_closed_and_taken_from_the_store() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let six: SocketAddr = "[::1]:0".parse().unwrap();
    let listener = || OwnedFd::from(TcpListener::bind(any).unwrap());
    let datagrams = || OwnedFd::from(UdpSocket::bind(any).unwrap());
    let connected = {
        let listener = TcpListener::bind(any).unwrap();
        OwnedFd::from(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let wide = OwnedFd::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let other_port: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let to_one_peer = {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        OwnedFd::from(socket)
    };
    for (socket, wanted) in [
        (listener(), Wanted::Datagrams(any)),
        (listener(), Wanted::Listener(six)),
        (listener(), Wanted::Listener(other_port)),
        (datagrams(), Wanted::Listener(any)),
        (connected, Wanted::Listener(any)),
        (file, Wanted::Listener(any)),
        (wide, Wanted::Listener(any)),
        (to_one_peer, Wanted::Datagrams(any)),
    ] {
        let scene = Scene::new();
        assert!(scene.given(&["x.5"], socket).take("x", wanted).is_none(), "{wanted:?}");
        assert_eq!(scene.heard().unwrap().0, "FDSTOREREMOVE=1\nFDNAME=x.5\n");
    }
    let scene = Scene::new();
    assert!(scene.given(&["x.5"], listener()).take("x", Wanted::Listener(any)).is_some());
    assert!(scene.given(&["x.5"], datagrams()).take("x", Wanted::Datagrams(any)).is_some());
    assert!(scene.heard().is_none());
}

/// A socket of tomorrow would have every connection until then refused, as made before the gate listened.
#[test]
fn a_socket_cannot_be_of_the_future() {
    let scene = Scene::new();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let name = format!("x.{}", since_boot_ns() + 3_600_000_000_000);
    let mut sockets = scene.given(&[&name], TcpListener::bind(any).unwrap());
    assert!(sockets.take("x", Wanted::Listener(any)).is_none());
    assert_eq!(scene.heard().unwrap().0, format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
}

#[test]
fn what_nobody_takes_is_closed() {
    let scene = Scene::new();
    let names = ["listener4.5", "no number", "odd.x", "two\nlines"];
    let mut sockets = scene.given(&names, TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.close_rest();
    let said: Vec<String> = std::iter::from_fn(|| scene.heard()).map(|(said, _)| said).collect();
    let expect =
        ["no number", "odd.x", "listener4.5"].map(|name| format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
    assert_eq!(said, expect);
}
