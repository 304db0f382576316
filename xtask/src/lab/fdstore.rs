//! A stand-in for the service manager: hears what the daemon says of itself, keeps the descriptors that it
//! hands over, and gives them to the next one, as sd_notify(3) and sd_listen_fds(3) have it.

use std::{
    fs,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use tokio::{io::Interest, net::UnixDatagram, process::Command};

/// Descriptors that one message carries at most.
const RIGHTS: usize = 4;
/// Above every number that is given to the daemon.
const OUT_OF_THE_WAY: i32 = 100;
/// The first number of sd_listen_fds(3).
const FIRST: usize = 3;

/// The manager of one service.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    stored: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// Listens at `path`.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_file(path)?;
        }
        let socket = UnixDatagram::bind(path).context("bind the readiness socket")?;
        Ok(Self { socket, path: path.to_owned(), stored: Vec::new() })
    }

    /// Empties the store, as a stop does.
    pub(crate) fn forget(&mut self) {
        self.stored.clear();
    }

    /// Names of what is stored.
    pub(crate) fn stored(&self) -> Vec<&str> {
        self.stored.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Lets `spawn` start a command that is the service, with everything that is stored.
    pub(crate) fn start<T>(
        &self,
        command: Command,
        spawn: impl FnOnce(Command) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut script = String::from("export LISTEN_PID=$$;");
        let mut copies = Vec::new();
        for (number, (_, socket)) in (FIRST..).zip(&self.stored) {
            let copy = fcntl_dupfd_cloexec(socket, OUT_OF_THE_WAY)?;
            fcntl_setfd(&copy, FdFlags::empty())?;
            script.push_str(&format!(" exec {number}<&{0} {0}<&-;", copy.as_raw_fd()));
            copies.push(copy);
        }
        script.push_str(" exec \"$@\"");
        let inner = command.as_std();
        let mut shell = Command::new("bash");
        shell.args(["-c", &script, "service"]).arg(inner.get_program()).args(inner.get_args());
        shell.env("NOTIFY_SOCKET", &self.path).stdin(std::process::Stdio::null()).kill_on_drop(true);
        if !self.stored.is_empty() {
            shell.env("LISTEN_FDS", self.stored.len().to_string());
            shell.env("LISTEN_FDNAMES", self.stored().join(":"));
        }
        // The copies are inherited by whatever is started until they go, which is this one command.
        spawn(shell)
    }

    /// Hears messages until the service is ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        loop {
            let socket = &self.socket;
            let (text, sockets) = socket.async_io(Interest::READABLE, || receive(socket)).await?;
            if self.heard(&text, sockets) {
                return Ok(());
            }
        }
    }

    /// Hears what a service that is gone has said.
    pub(crate) fn hear_out(&mut self) -> io::Result<()> {
        loop {
            match receive(&self.socket) {
                Ok((text, sockets)) => self.heard(&text, sockets),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
    }

    /// Does what a message asks for; true where it says that the service is ready.
    fn heard(&mut self, text: &str, sockets: Vec<OwnedFd>) -> bool {
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let name = line("FDNAME=").unwrap_or("stored").to_owned();
        if line("FDSTORE=") == Some("1") {
            self.stored.extend(sockets.into_iter().map(|socket| (name.clone(), socket)));
        }
        if line("FDSTOREREMOVE=") == Some("1") {
            self.stored.retain(|(stored, _)| *stored != name);
        }
        line("READY=") == Some("1")
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    let text = String::from_utf8_lossy(bytes.get(..got.bytes).unwrap_or_default()).into_owned();
    Ok((text, sockets))
}
