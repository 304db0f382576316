//! What the origin received, as text that two runs can be compared by.

use std::fmt::Write as _;

use fake_internet::{
    Snapshot,
    journal::{Connection, Request},
};

use super::case::Noise;

/// Most of a body that a difference shows; its hash covers all of it.
const SHOWN: usize = 2000;

/// The requests of a run, each as a block of lines, in their order unless that is noise.
pub(crate) fn blocks(arrivals: &Snapshot, noise: &[Noise]) -> Vec<String> {
    let mut blocks: Vec<String> = arrivals
        .requests
        .iter()
        .filter(|request| !left_out(request, noise))
        .map(|request| {
            let on = arrivals.connections.iter().find(|connection| connection.id == request.connection);
            block(request, on, noise) + &messages(arrivals, request, noise)
        })
        .collect();
    if noise.iter().any(|noise| matches!(noise, Noise::Order)) {
        blocks.sort();
    }
    blocks
}

/// What came over the WebSocket that a request opened, if it did.
fn messages(arrivals: &Snapshot, request: &Request, noise: &[Noise]) -> String {
    let change = noise.iter().find_map(|noise| match noise {
        Noise::Message(change) => Some(change),
        Noise::Field(_)
        | Noise::Fields(_)
        | Noise::Output(_)
        | Noise::Body(_)
        | Noise::Request(_)
        | Noise::Order => None,
    });
    let its = arrivals.messages.iter().filter(|message| message.request == request.id);
    its.map(|message| {
        let text = change.map_or_else(|| visible(&message.text), |change| change(&message.text));
        let how = if message.deflated { "deflated" } else { "plain" };
        format!("message, opcode {}, {how}: {text}\n", message.opcode)
    })
    .collect()
}

/// Whether a request is not compared.
pub(crate) fn left_out(request: &Request, noise: &[Noise]) -> bool {
    noise.iter().any(|noise| matches!(noise, Noise::Request(random) if random(request)))
}

fn block(request: &Request, connection: Option<&Connection>, noise: &[Noise]) -> String {
    let mut text = String::new();
    let (offered, chosen) =
        connection.map_or((String::new(), "-"), |c| (c.offered.join(","), c.alpn.as_deref().unwrap_or("-")));
    let name = connection.and_then(|c| c.sni.as_deref()).unwrap_or("-");
    // Writing to a String does not fail.
    let _ok = writeln!(
        text,
        "{}:{} {} alpn [{offered}] -> {chosen} sni {name}",
        request.site, request.port, request.version
    );
    if request.raw_head.is_empty() {
        let _ok = writeln!(text, "{} {}", request.method, request.target);
        for (name, value) in &request.headers {
            field(&mut text, name, value, ": ", noise);
        }
    } else {
        raw(&mut text, &request.raw_head, noise);
    }
    body(&mut text, request, noise);
    for (name, value) in &request.trailers {
        text.push_str("trailer ");
        field(&mut text, name, value, ": ", noise);
    }
    text.push_str(match (request.complete, request.aborted) {
        (true, false) => "complete\n",
        (true, true) => "complete, and the peer left before the end of the answer\n",
        (false, _) => "broken off\n",
    });
    text
}

/// A head as it came: only line ends other than CRLF are made visible.
fn raw(text: &mut String, head: &str, noise: &[Noise]) {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
    text.extend(lines.next().map(visible));
    text.push('\n');
    for line in lines {
        match line.split_once(':') {
            // Of the hop, not of the exchange (RFC 9110, 7.6.1); `Upgrade` and named fields are of both.
            Some((name, value)) if name.eq_ignore_ascii_case("connection") && is_of_hop(value) => {}
            Some((name, value)) => {
                let kept = value.trim_start_matches(' ');
                let gap = value.get(..value.len() - kept.len()).unwrap_or_default();
                field(text, &visible(name), &visible(kept), &format!(":{gap}"), noise);
            }
            None => {
                let _ok = writeln!(text, "{}", visible(line));
            }
        }
    }
}

fn is_of_hop(value: &str) -> bool {
    let value = value.trim();
    value.eq_ignore_ascii_case("close") || value.eq_ignore_ascii_case("keep-alive")
}

fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn field(text: &mut String, name: &str, value: &str, between: &str, noise: &[Noise]) {
    let random =
        noise.iter().any(|noise| matches!(noise, Noise::Field(field) if field.eq_ignore_ascii_case(name)));
    let change = noise.iter().find_map(|noise| match noise {
        Noise::Fields(change) => Some(change),
        Noise::Field(_) | Noise::Output(_) | Noise::Body(_) | Noise::Message(_) => None,
        Noise::Request(_) | Noise::Order => None,
    });
    let value = change.map_or_else(|| value.to_owned(), |change| change(value));
    let _ok = writeln!(text, "{name}{between}{}", if random { "*" } else { value.as_str() });
}

fn body(text: &mut String, request: &Request, noise: &[Noise]) {
    let change = noise.iter().find_map(|noise| match noise {
        Noise::Body(change) => Some(change),
        Noise::Field(_)
        | Noise::Fields(_)
        | Noise::Output(_)
        | Noise::Message(_)
        | Noise::Request(_)
        | Noise::Order => None,
    });
    if let Some(change) = change {
        let _ok = writeln!(text, "body, less what is random: {}", change(request));
        return;
    }
    let _ok = writeln!(text, "body of {} bytes, sha256 {}", request.body_len, request.body_sha256);
    if let Ok(body) = std::str::from_utf8(&request.body)
        && !body.is_empty()
    {
        let shown: String = visible(body).chars().take(SHOWN).collect();
        let _ok = writeln!(text, "  {shown}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(raw_head: &str) -> Request {
        Request {
            id: 0,
            connection: 0,
            site: "open.example".to_owned(),
            port: 443,
            method: "GET".to_owned(),
            target: "/".to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: vec![("host".to_owned(), "open.example".to_owned())],
            raw_head: raw_head.to_owned(),
            body_len: 0,
            body: Vec::new(),
            body_sha256: "e3".to_owned(),
            trailers: Vec::new(),
            complete: true,
            answered: true,
            aborted: false,
        }
    }

    fn shown(raw_head: &str, noise: &[Noise]) -> String {
        block(&request(raw_head), None, noise)
    }

    #[test]
    fn heads_differ_by_case_order_and_spaces_but_not_by_the_hop() {
        let head = "GET / HTTP/1.1\r\nHost: open.example\r\nX-A: 1\r\n\r\n";
        assert!(shown(head, &[]).contains("\nHost: open.example\nX-A: 1\n"));
        let same = "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: close\r\nX-A: 1\r\n\r\n";
        assert_eq!(shown(head, &[]), shown(same, &[]));
        for other in [
            "GET / HTTP/1.1\r\nhost: open.example\r\nX-A: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nX-A: 1\r\nHost: open.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:open.example\r\nX-A: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: open.example\r\nX-A: 1 \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: open.example\r\nX-A: 1\r\nX-A: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\n",
        ] {
            assert_ne!(shown(head, &[]), shown(other, &[]), "{other}");
        }
    }

    #[test]
    fn noise_hides_a_value_and_nothing_else() {
        let (one, two) = ("GET / HTTP/1.1\r\nX-Id: 1\r\n\r\n", "GET / HTTP/1.1\r\nX-Id: 2\r\n\r\n");
        assert_ne!(shown(one, &[]), shown(two, &[]));
        assert_eq!(shown(one, &[Noise::Field("x-id")]), shown(two, &[Noise::Field("x-id")]));
        let none = "GET / HTTP/1.1\r\n\r\n";
        assert_ne!(shown(one, &[Noise::Field("x-id")]), shown(none, &[Noise::Field("x-id")]));
        let (mut broken, whole) = (request(one), request(one));
        broken.complete = false;
        assert_ne!(block(&broken, None, &[]), block(&whole, None, &[]));
    }
}
