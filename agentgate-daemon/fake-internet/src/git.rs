//! git's own server (git-http-backend(1)) behind the path `/git/`: clone, fetch and push as at a forge.
//!
//! A repository is made from the same stream when it is asked for first, so that its commits have the same
//! names in every run.

use std::{path::Path, process::Stdio};

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    body::{Body, whole},
    routes::{Received, pattern, respond},
};

/// The answer, where the path is one of a repository's and there is a directory for them.
pub(crate) async fn answer(root: Option<&Path>, received: &Received) -> Option<Response<Body>> {
    let path = received.path.strip_prefix("/git")?;
    let name = path.trim_start_matches('/').split('/').next()?;
    if !name.ends_with(".git") || name.starts_with('.') {
        return None;
    }
    let answered = serve(root?, name, path, received).await;
    Some(answered.unwrap_or_else(|error| {
        respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", whole(format!("{error:#}\n")))
    }))
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    // Nothing of the person's own settings.
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(root);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Feeds it and gives what it printed.
async fn finish(command: &mut Command, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = command.spawn().context("start git")?;
    let mut stdin = child.stdin.take().context("git's input")?;
    // At once, since a full pipe on either side would stop the other.
    let feeding = async move {
        // One that has heard enough closes early.
        let _closed = stdin.write_all(input).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feeding);
    let output = output?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "git: {}: {complaint}", output.status);
    Ok(output.stdout)
}

async fn serve(root: &Path, name: &str, path: &str, received: &Received) -> anyhow::Result<Response<Body>> {
    if !root.join(name).exists() {
        make(root, name).await.context("make the repository")?;
    }
    let field = |name: &str| received.headers.get(name).and_then(|value| value.to_str().ok());
    let mut backend = git(root);
    backend.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    backend.env("PATH_INFO", path).env("REQUEST_METHOD", &received.method).env("REMOTE_USER", "agent");
    backend.env("QUERY_STRING", received.raw_query()).env("CONTENT_LENGTH", received.body.len().to_string());
    for (variable, name) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = field(name) {
            backend.env(variable, value);
        }
    }
    let said = finish(&mut backend, &received.body).await?;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").context("no head of an answer")?;
    let mut response = Response::new(whole(said.get(end + 4..).unwrap_or_default().to_vec()));
    let head = String::from_utf8_lossy(said.get(..end).unwrap_or_default()).into_owned();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name == "Status" {
            *response.status_mut() = value.get(..3).unwrap_or_default().parse()?;
        } else {
            response.headers_mut().append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
    }
    Ok(response)
}

/// A bare repository of two commits, a branch and a tag.
async fn make(root: &Path, name: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(root)?;
    finish(git(root).args(["init", "--quiet", "--bare", "--initial-branch=main", name]), b"").await?;
    let dir = root.join(name);
    // One thread, since several cut packs at places of their own choice.
    for (key, value) in [("http.receivepack", "true"), ("pack.threads", "1")] {
        finish(git(&dir).args(["config", key, value]), b"").await?;
    }
    let big: String = pattern(200_000).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let mut stream = String::new();
    for (number, from, text) in [(1, "", "one\n"), (2, "from :1\n", "one\ntwo\n")] {
        let who = format!("Fake <fake@open.example> {} +0000", 1_700_000_000 + number);
        let length = text.len();
        stream.push_str(&format!(
            "commit refs/heads/main\nmark :{number}\ncommitter {who}\ndata 8\ncommit {number}\n{from}\
             M 100644 inline file.txt\ndata {length}\n{text}\n"
        ));
    }
    stream.push_str(&format!("M 100644 inline big.txt\ndata {}\n{big}\n", big.len()));
    stream.push_str("reset refs/heads/side\nfrom :1\n\nreset refs/tags/v1\nfrom :2\n\n");
    finish(git(&dir).args(["fast-import", "--quiet"]), stream.as_bytes()).await?;
    Ok(())
}
