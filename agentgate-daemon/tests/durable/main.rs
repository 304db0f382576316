//! What an origin has all of is on the disk, whatever becomes of the gate then. Needs no root.
//!
//! Gates that are killed, or may write to no file any more, are processes of their own: this program again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commits;
mod full;
mod kill;
#[path = "../proxy/setup.rs"]
#[expect(dead_code, reason = "what the tests of the proxy need of it")]
mod setup;
#[path = "../http2/sides.rs"]
#[expect(dead_code, reason = "what the tests of HTTP/2 need of it")]
mod sides;

use std::{
    ffi::OsStr,
    net::SocketAddr,
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use setup::PATIENCE;

/// Says to a child what it is to be. Whoever runs the ignored tests by hand sees nothing of them.
const PLAY: &str = "AGENTGATE_TEST_DURABLE";

/// This program again, as the ignored test `name`, which is told `play`.
fn child(name: &str, play: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(PLAY, play).stdin(Stdio::null());
    command
}

/// What this child is to be.
fn play() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test's way to tell its child what to do")]
    std::env::var(PLAY).ok()
}

/// Content that is nowhere twice.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The head of a request, and its body as it is framed.
fn framed(to: (SocketAddr, &str), body: &[u8], chunked: bool) -> (String, Vec<u8>) {
    let (host, target) = to;
    if !chunked {
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        return (head, body.to_vec());
    }
    let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut bytes = Vec::new();
    for piece in body.chunks(1000) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    (head, bytes)
}

/// Reads until `enough` says so; false where the peer ended before, or said nothing for long.
async fn read_until(stream: &mut TcpStream, into: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> bool {
    while !enough(into) {
        if !matches!(timeout(PATIENCE, stream.read_buf(into)).await, Ok(Ok(1..))) {
            return false;
        }
    }
    true
}

/// Where the head that `bytes` begin with ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}
