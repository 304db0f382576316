//! Streams and the events in them, cut everywhere.

use super::*;

/// An event that outlives its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    range: (u64, u64),
    name: String,
    data: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    truncated: bool,
    unfinished: bool,
}

fn events(pieces: &[&[u8]], cap: usize) -> Vec<Seen> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut seen = Vec::new();
    let mut sink = |event: Event<'_>| {
        seen.push(Seen {
            range: (event.range.start, event.range.end),
            name: text(event.name),
            data: event.data.map(text),
            id: event.id.map(text),
            retry: event.retry,
            truncated: event.truncated,
            unfinished: !event.complete,
        });
    };
    let mut parser = Parser::new(cap);
    for piece in pieces {
        parser.push(piece, &mut sink);
    }
    parser.finish(&mut sink);
    seen
}

/// Whole, cut at each place, and byte by byte.
fn check(bytes: &[u8], cap: usize, expect: &[Seen]) {
    assert_eq!(events(&[bytes], cap), expect, "{}", bytes.escape_ascii());
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(events(&[a, b], cap), expect, "{} cut at {at}", bytes.escape_ascii());
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(events(&single, cap), expect, "{} byte by byte", bytes.escape_ascii());
}

fn data(start: u64, end: u64, data: &str) -> Seen {
    Seen { range: (start, end), data: Some(data.to_owned()), ..Seen::default() }
}

fn empty(start: u64, end: u64) -> Seen {
    Seen { range: (start, end), ..Seen::default() }
}

#[test]
fn examples_of_the_standard() {
    check(b"data: YHOO\ndata: +2\ndata: 10\n\n", 100, &[data(0, 30, "YHOO\n+2\n10")]);
    let id = |id: &str, seen: Seen| Seen { id: Some(id.to_owned()), ..seen };
    check(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        100,
        &[
            empty(0, 15),
            id("1", data(15, 40, "first event")),
            id("", data(40, 62, "second event")),
            data(62, 82, " third event"),
        ],
    );
    let unfinished = Seen { unfinished: true, ..data(13, 19, "") };
    check(
        b"data\n\ndata\ndata\n\ndata:",
        100,
        &[data(0, 6, ""), data(6, 17, "\n"), Seen { range: (17, 22), ..unfinished }],
    );
    check(b"data:test\n\ndata: test\n\n", 100, &[data(0, 11, "test"), data(11, 23, "test")]);
}

#[test]
fn endings_marks_and_fields() {
    let named = |name: &str, seen: Seen| Seen { name: name.to_owned(), ..seen };
    let rows: Vec<(&[u8], Vec<Seen>)> = vec![
        (b"", vec![]),
        (b"\n\n\r\n\r\r", vec![]),
        // CR LF: the last LF is the next event's.
        (b"data: a\r\n\r\ndata: b\r\n\r\n", vec![data(0, 10, "a"), data(10, 21, "b")]),
        (b"data: a\r\rdata: b\r\r", vec![data(0, 9, "a"), data(9, 18, "b")]),
        (b"data: a\r\n\ndata: b\n\r\n", vec![data(0, 10, "a"), data(10, 19, "b")]),
        // A byte order mark is one only at the start.
        (b"\xef\xbb\xbfdata: a\n\n", vec![data(0, 12, "a")]),
        (b"\xef\xbb\xbf\n\xef\xbb\xbfdata: a\n\n", vec![empty(0, 16)]),
        (b"\xef\xbbdata: a\n\n", vec![empty(0, 11)]),
        // Field names are exact, and one space is taken.
        (b"Data: a\n\n", vec![empty(0, 9)]),
        (b" data: a\n\n", vec![empty(0, 10)]),
        (b"data : a\n\n", vec![empty(0, 10)]),
        (b"data::a\n\n", vec![data(0, 9, ":a")]),
        (b"data:\ta\n\n", vec![data(0, 9, "\ta")]),
        (b"unknown: a\ndata: b\n\n", vec![data(0, 20, "b")]),
        (b"event: a\nevent: b\ndata: c\n\n", vec![named("b", data(0, 27, "c"))]),
        (b"event: a\nevent\ndata: c\n\n", vec![data(0, 24, "c")]),
        // The name is of one event alone.
        (b"event: a\n\ndata: c\n\n", vec![named("a", empty(0, 10)), data(10, 19, "c")]),
        (b"id: a\0b\ndata: c\n\n", vec![data(0, 17, "c")]),
        (b"retry: 1500\n\n", vec![Seen { retry: Some(1500), ..empty(0, 13) }]),
        (b"retry: 15s\n\n", vec![empty(0, 12)]),
        (b"retry:\n\n", vec![empty(0, 8)]),
        (b"retry: 99999999999999999999\n\n", vec![empty(0, 29)]),
        // An invalid byte stays the reader's.
        (b"data: \xff\n\n", vec![data(0, 9, "\u{fffd}")]),
        (b"data: a\n", vec![Seen { unfinished: true, ..data(0, 8, "a") }]),
        (b"data: a\ndata: b", vec![Seen { unfinished: true, ..data(0, 15, "a\nb") }]),
        (b": ping", vec![Seen { unfinished: true, ..empty(0, 6) }]),
    ];
    for (bytes, expect) in rows {
        check(bytes, 100, &expect);
    }
}

#[test]
fn what_is_over_the_cap_is_cut_and_said() {
    let cut = |seen: Seen| Seen { truncated: true, ..seen };
    let rows: Vec<(&[u8], Vec<Seen>)> = vec![
        (b"data: 12345678\n\n", vec![data(0, 16, "12345678")]),
        (b"data: 123456789\n\n", vec![cut(data(0, 17, "12345678"))]),
        (b"data: 1234567\ndata: 9\n\n", vec![cut(data(0, 23, "1234567\n"))]),
        (b"data: 12345678\ndata\n\n", vec![cut(data(0, 21, "12345678"))]),
        (b"data: 1234\ndata: 678\n\n", vec![data(0, 22, "1234\n678")]),
        (b"data: 123456789\n\ndata: 1\n\n", vec![cut(data(0, 17, "12345678")), data(17, 26, "1")]),
    ];
    for (bytes, expect) in rows {
        check(bytes, 8, &expect);
    }
    // Lines far longer than anything that is kept: comment, name, data.
    let long = "x".repeat(1000);
    for (line, expect) in [
        (format!(":{long}\n\n"), empty(0, 1003)),
        (format!("event:{long}\n\n"), cut(Seen { name: "x".repeat(NAME), ..empty(0, 1008) })),
        (format!("id:{long}\n\n"), cut(Seen { id: Some("x".repeat(NAME)), ..empty(0, 1005) })),
        (format!("data:{long}\n\n"), cut(data(0, 1007, "xxxxxxxx"))),
    ] {
        check(line.as_bytes(), 8, &[expect]);
    }
}

#[test]
fn data_in_one_piece_is_not_copied() {
    let stream = b"event: delta\ndata: {\"a\":1}\n\ndata: {\"b\":2}\n\n".as_slice();
    let within = stream.as_ptr_range();
    let mut count = 0;
    Parser::new(1000).push(stream, &mut |event| {
        let data = event.data.unwrap();
        assert!(within.contains(&data.as_ptr()), "copied");
        count += 1;
    });
    assert_eq!(count, 2);
}

#[test]
fn an_idle_parser_holds_little() {
    let mut parser = Parser::new(1 << 20);
    let long = "x".repeat(1 << 19);
    parser.push(format!("data: {long}").as_bytes(), &mut |_| {});
    parser.push(format!("\ndata: {long}\n\n").as_bytes(), &mut |event| assert!(event.truncated));
    assert!(parser.partial.capacity() <= KEPT && parser.block.data.capacity() <= KEPT);
}
