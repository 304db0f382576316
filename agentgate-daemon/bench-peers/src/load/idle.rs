//! Connections that do nothing, and one that asks once.

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;

use super::{Client, PATIENCE, Report, http1};

/// Opens them, has each answer once, says `ready`, and keeps them until standard input ends. Then each must
/// still answer.
pub(super) async fn run(client: &Client, connections: usize) -> anyhow::Result<Report> {
    let request = http1::get(&client.host, "/1k", false);
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let one = async {
            let mut connection = http1::Connection::open(client).await?;
            connection.ask(&request).await?;
            Ok::<_, anyhow::Error>(connection)
        };
        let opened = tokio::time::timeout(PATIENCE, one).await.context("no answer").and_then(|opened| opened);
        open.push(opened.with_context(|| format!("connection {number}"))?);
    }
    println!("ready");
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    let mut report = Report { connections: connections as u64, ..Report::default() };
    for connection in &mut open {
        match connection.ask(&request).await {
            Ok(_) => report.count += 1,
            Err(error) => report.failed(&error),
        }
    }
    Ok(report)
}

/// One request. The count is the status; no answer at all is an error.
pub(super) async fn probe(client: &Client) -> anyhow::Result<Report> {
    let mut report = Report { connections: 1, ..Report::default() };
    let asked = async {
        let mut connection = http1::Connection::open(client).await?;
        connection.send(&http1::get(&client.host, "/1k", true)).await?;
        connection.any_answer(|_| Ok(())).await
    };
    match tokio::time::timeout(PATIENCE, asked).await.context("no answer").and_then(|answered| answered) {
        Ok((status, _)) => report.count = u64::from(status),
        Err(error) => report.failed(&error),
    }
    Ok(report)
}
