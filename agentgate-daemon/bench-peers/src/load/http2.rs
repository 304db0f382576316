//! A client's side of HTTP/2.

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;

use super::Client;

/// Room for answers: never what limits.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A connection; clones are for streams of it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    requests: SendRequest<Bytes>,
    uri: http::Uri,
}

impl Connection {
    pub(super) async fn open(client: &Client, path: &str) -> anyhow::Result<Self> {
        let stream = client.open().await?;
        anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "it speaks no HTTP/2");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (requests, connection) = builder.handshake(stream).await.context("HTTP/2 preface")?;
        // Its errors are told to whoever has a stream on it.
        tokio::spawn(connection);
        Ok(Self { requests, uri: format!("https://{}{path}", client.host).parse()? })
    }

    /// Asks, and gives the length of the body of an answer that must be a 200.
    pub(super) async fn ask(&mut self) -> anyhow::Result<u64> {
        let mut request = Request::new(());
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(http::header::USER_AGENT, http::HeaderValue::from_static("bench"));
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("*/*"));
        let ready = self.requests.clone().ready().await.context("a new stream")?;
        self.requests = ready;
        let (answer, _) = self.requests.send_request(request, true).context("send")?;
        let answer = answer.await.context("answer")?;
        anyhow::ensure!(answer.status() == 200, "status {}", answer.status());
        let mut body = answer.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data.context("body")?;
            length += data.len() as u64;
            body.flow_control().release_capacity(data.len())?;
        }
        Ok(length)
    }
}
