//! Server-sent events: how long each was under way, by the clock that both ends share.

use anyhow::Context as _;

use super::{Client, PATIENCE, Report, Stretch, clock_ns, http1};

/// Events of a short stream.
const FEW: u64 = 10;

/// The times in the report are delays of events.
pub(super) async fn run(
    client: &Client,
    events: u64,
    milliseconds: u64,
    streams: usize,
    shorts: usize,
) -> anyhow::Result<Report> {
    let mut report = Report { connections: 1, ..Report::default() };
    let mut connection = http1::Connection::open(client).await?;
    connection.ask(&http1::get(&client.host, "/1k", false)).await?;
    let stretch = Stretch::begin(client)?;
    let (mut delays, mut firsts) = (Vec::new(), Vec::new());
    let lengths = std::iter::repeat_n(FEW, shorts).chain(std::iter::repeat_n(events, streams));
    for length in lengths {
        let one = stream(client, &mut connection, length, milliseconds, &mut delays, &mut firsts);
        let ended = tokio::time::timeout(PATIENCE, one).await.context("a stream without an end");
        if let Err(error) = ended.and_then(|ended| ended) {
            report.failed(&error);
            break;
        }
    }
    stretch.end(client, &mut report)?;
    report.count = delays.len() as u64;
    report.times(delays);
    firsts.sort_unstable();
    report.first_event_us = Some(super::percentile(&firsts, 0.5));
    Ok(report)
}

async fn stream(
    client: &Client,
    connection: &mut http1::Connection,
    events: u64,
    milliseconds: u64,
    delays: &mut Vec<u64>,
    firsts: &mut Vec<u64>,
) -> anyhow::Result<()> {
    let began = clock_ns();
    connection.send(&http1::get(&client.host, &format!("/sse/{events}/{milliseconds}"), false)).await?;
    let mut rest = Vec::new();
    let mut seen = 0;
    connection
        .answer(|data| {
            let now = clock_ns();
            rest.extend_from_slice(data);
            while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = rest.drain(..end + 2).collect();
                let text = std::str::from_utf8(&event)?.trim();
                let sent: u64 = text.strip_prefix("data: ").context("no event")?.parse()?;
                delays.push(now.saturating_sub(sent));
                if seen == 0 {
                    firsts.push(now - began);
                }
                seen += 1;
            }
            Ok(())
        })
        .await?;
    anyhow::ensure!(seen == events, "{seen} events instead of {events}");
    Ok(())
}
