//! The service manager's two protocols: its notification socket, and the descriptors that it gives.

use std::{
    ffi::OsString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// The manager that started this process.
#[derive(Clone, Debug)]
pub struct Manager {
    /// As in NOTIFY_SOCKET: a path, or `@` and an abstract name.
    socket: OsString,
}

impl Manager {
    /// From the environment, where sd_notify(3) says that it is.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "sd_notify(3): the variable is the whole interface")]
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        Some(Self { socket })
    }

    /// The one that listens there.
    #[must_use]
    pub fn at(socket: OsString) -> Self {
        Self { socket }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self.socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&self.socket),
        }
    }

    /// Sends states, one a line, with a descriptor.
    pub(super) fn tell(&self, states: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&self.address()?)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let data = [io::IoSlice::new(states.as_bytes())];
        let sent = rustix::net::sendmsg(&socket, &data, &mut control, SendFlags::NOSIGNAL)?;
        if sent == states.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The descriptors that were given, with their names, set to be closed on exec.
#[expect(unsafe_code, reason = "descriptors come as numbers")]
pub(super) fn given() -> Vec<(String, OwnedFd)> {
    match sd_notify::listen_fds_with_names() {
        Ok(given) => given
            .map(|(number, name)| {
                // SAFETY: LISTEN_PID names this process, so the manager put the descriptor there for it to
                // own; the caller asks once.
                (name, unsafe { OwnedFd::from_raw_fd(number) })
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "what the service manager gave cannot be read");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::{Sockets, Wanted};

    #[test]
    #[ignore = "needs root for a network namespace"]
    #[expect(unsafe_code, reason = "unshare(2) of a thread that the test made for it")]
    fn a_socket_of_another_network_namespace_is_closed() {
        let any = "127.0.0.1:0".parse().unwrap();
        let elsewhere = std::thread::spawn(move || {
            // SAFETY: the flag touches no file descriptors and no memory that others rely on.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        });
        let given = [("x.5".to_owned(), elsewhere.join().unwrap().into())];
        let mut sockets = Sockets::with(None, given.into_iter());
        assert!(sockets.take("x", Wanted::Listener(any)).is_none());
        let given = [("x.5".to_owned(), TcpListener::bind("127.0.0.1:0").unwrap().into())];
        let mut sockets = Sockets::with(None, given.into_iter());
        assert!(sockets.take("x", Wanted::Listener(any)).is_some());
    }
}
