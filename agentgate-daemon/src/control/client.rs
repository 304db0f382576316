//! The command line's end of the control socket: blocking, one request per connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::wire::{self, Envelope, ErrorReply, Item, LINE_CAP, Payload, Reply, Request};

/// How long the daemon may take over an answer. Enrolment through systemd is the slowest and gives up
/// itself after 5 s.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("agentgated is not running ({path}: {source}); start it with `systemctl start agentgated`", path = path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The socket is closed to this user.
    #[error("no permission for {path}: use sudo, or join the group agentgate and log in again", path = path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon said no.
    #[error("{}", describe(.0))]
    Refused(ErrorReply),
    /// No answer within 30 s.
    #[error("agentgated does not answer on {path}", path = path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is none.
    #[error(
        "agentgated answered with what this agentctl does not understand ({0}); are both of one version?"
    )]
    Protocol(String),
    /// The connection broke.
    #[error("connection to agentgated: {0}")]
    Io(#[from] io::Error),
}

fn describe(error: &ErrorReply) -> String {
    if error.hint.is_empty() { error.message.clone() } else { format!("{}; {}", error.message, error.hint) }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon's socket.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] or [`ClientError::Permission`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| {
            let (kind, path) = (source.kind(), path.to_owned());
            if kind == io::ErrorKind::PermissionDenied {
                ClientError::Permission { path }
            } else if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                ClientError::NotRunning { path, source }
            } else {
                ClientError::Io(source)
            }
        })?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks for one whole answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(mut self, request: Request) -> Result<Payload, ClientError> {
        self.send(request)?;
        match self.receive()? {
            Reply::Ok(payload) => Ok(*payload),
            Reply::Error(error) => Err(ClientError::Refused(error)),
            other @ (Reply::Item(_) | Reply::End) => {
                Err(ClientError::Protocol(format!("unexpected {other:?}")))
            }
        }
    }

    /// Asks for a streamed answer and gives each item to `each` until the end. With `patient` there may
    /// be any time between items, as in following the log.
    ///
    /// # Errors
    /// [`ClientError`], or what `each` returned.
    pub fn stream<E: From<ClientError>>(
        mut self,
        request: Request,
        patient: bool,
        mut each: impl FnMut(Item) -> Result<(), E>,
    ) -> Result<(), E> {
        self.send(request).map_err(E::from)?;
        if patient {
            self.stream.get_ref().set_read_timeout(None).map_err(ClientError::Io).map_err(E::from)?;
        }
        loop {
            match self.receive().map_err(E::from)? {
                Reply::Item(item) => each(*item)?,
                Reply::End => return Ok(()),
                Reply::Error(error) => return Err(ClientError::Refused(error).into()),
                Reply::Ok(other) => return Err(ClientError::Protocol(format!("unexpected {other:?}")).into()),
            }
        }
    }

    /// The connection, for whoever may have to end it while an answer is waited for.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn connection(&self) -> Result<UnixStream, ClientError> {
        Ok(self.stream.get_ref().try_clone()?)
    }

    fn send(&mut self, request: Request) -> Result<(), ClientError> {
        let line =
            wire::encode(&Envelope::from(request)).map_err(|e| ClientError::Protocol(e.to_string()))?;
        match self.stream.get_mut().write_all(&line) {
            // A daemon that refuses the peer answers and closes without reading; the answer is waiting.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(())
            }
            other => other.map_err(|e| self.broken(e)),
        }
    }

    fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let cap = LINE_CAP as u64 + 1;
        if let Err(e) = self.stream.by_ref().take(cap).read_until(b'\n', &mut line) {
            return Err(self.broken(e));
        }
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Protocol(if line.is_empty() {
                "the connection ended without an answer".to_owned()
            } else {
                format!("a line of {} bytes without an end", line.len())
            }));
        }
        wire::decode(&line).map_err(|e| ClientError::Protocol(e.to_string()))
    }

    fn broken(&self, error: io::Error) -> ClientError {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            ClientError::Timeout { path: self.path.clone() }
        } else {
            ClientError::Io(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_stale_socket_say_how_to_start_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let error = Client::connect(&path).unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("systemctl start agentgated"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(Client::connect(&path), Err(ClientError::NotRunning { .. })));
    }

    #[test]
    fn answers_that_are_none_are_protocol_errors() {
        for answer in [&b""[..], b"{}\n", b"{\"ok\":", b"\"end\"\n", b"\xff\xfe\n"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let daemon = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
                stream.write_all(answer).unwrap();
            });
            let error = Client::connect(&path).unwrap().ask(Request::Status).unwrap_err();
            assert!(matches!(error, ClientError::Protocol(_)), "{answer:?}: {error}");
            daemon.join().unwrap();
        }
    }
}
