//! Long bodies, one connection, one after the other.

use std::time::Instant;

use super::{Client, Report, Stretch, http1};

/// What is sent or fetched before measuring.
const WARM_UP: u64 = 8 << 20;
const PIECE: usize = 64 * 1024;

pub(super) async fn down(client: &Client, bytes: u64, times: usize) -> anyhow::Result<Report> {
    run(client, bytes, times, async |connection: &mut http1::Connection, bytes| {
        let got = connection.ask(&http1::get(&client.host, &format!("/bytes/{bytes}"), false)).await?;
        anyhow::ensure!(got == bytes, "{got} bytes instead of {bytes}");
        Ok(())
    })
    .await
}

pub(super) async fn up(client: &Client, bytes: u64, times: usize) -> anyhow::Result<Report> {
    let piece = vec![b'u'; PIECE];
    run(client, bytes, times, async |connection: &mut http1::Connection, bytes| {
        let head = format!(
            "POST /sink HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\nContent-Length: {bytes}\r\n\r\n",
            client.host
        );
        connection.send(head.as_bytes()).await?;
        let mut left = bytes;
        while left > 0 {
            let now = left.min(PIECE as u64);
            connection.send(piece.get(..now as usize).unwrap_or_default()).await?;
            left -= now;
        }
        let mut said = Vec::new();
        connection
            .answer(|data| {
                said.extend_from_slice(data);
                Ok(())
            })
            .await?;
        anyhow::ensure!(said == bytes.to_string().as_bytes(), "the origin has another length");
        Ok(())
    })
    .await
}

/// The times in the report are of whole transfers.
async fn run(
    client: &Client,
    bytes: u64,
    times: usize,
    mut transfer: impl AsyncFnMut(&mut http1::Connection, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let mut report = Report { connections: 1, ..Report::default() };
    let mut connection = http1::Connection::open(client).await?;
    transfer(&mut connection, WARM_UP.min(bytes)).await?;
    let stretch = Stretch::begin(client)?;
    let mut all = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        if let Err(error) = transfer(&mut connection, bytes).await {
            report.failed(&error);
            break;
        }
        all.push(began.elapsed().as_nanos() as u64);
        report.count += 1;
    }
    stretch.end(client, &mut report)?;
    report.times(all);
    Ok(report)
}
