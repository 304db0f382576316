//! Frames and the messages in them, cut everywhere.

use super::*;

const DEFLATE: Extensions = Extensions {
    deflate: Some(Deflate {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    }),
    unknown: false,
};
const FRESH: Extensions = Extensions {
    deflate: Some(Deflate {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    }),
    unknown: false,
};
const NONE: Extensions = Extensions { deflate: None, unknown: false };
const UNKNOWN: Extensions = Extensions { deflate: None, unknown: true };
const SMALL: Limits = Limits { message: 300, inflated: 1000, frame: 70_000 };

/// An event in one line.
fn line(event: &Event<'_>) -> String {
    let shown = |bytes: &[u8]| {
        let start = bytes.get(..24).unwrap_or(bytes).escape_ascii();
        format!("{start}{}", if bytes.len() > 24 { "…" } else { "" })
    };
    match event {
        Event::Message(message) => {
            let mut line = String::new();
            line += if message.binary { "binary " } else { "text " };
            line += &shown(message.payload);
            if message.wire != message.length {
                line += &format!(" {}>{}", message.wire, message.length);
            }
            line += if message.compressed { " compressed" } else { "" };
            line += if message.truncated { " truncated" } else { "" };
            if let Some(why) = message.undecoded {
                line += &format!(" {why:?}");
            }
            line += if message.complete { "" } else { " unfinished" };
            line
        }
        Event::Control(_, Control::Ping(bytes)) => format!("ping {}", shown(bytes)),
        Event::Control(_, Control::Pong(bytes)) => format!("pong {}", shown(bytes)),
        Event::Control(_, Control::Close(code, reason)) => format!("close {code:?} {}", shown(reason)),
        Event::Fault(at, fault) => format!("{at}: {fault:?}"),
    }
}

fn parsed(
    sender: Sender,
    extensions: Extensions,
    limits: Limits,
    pieces: &[&[u8]],
) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut all) = (Vec::new(), Vec::new());
    let mut sink = |event: Event<'_>| {
        lines.push(line(&event));
        all.push(format!("{event:?}"));
    };
    let mut parser = Parser::new(sender, extensions, limits);
    for piece in pieces {
        parser.push(piece, &mut sink);
    }
    parser.finish(&mut sink);
    (lines, all)
}

/// Whole, cut at each place, and byte by byte.
fn check(sender: Sender, extensions: Extensions, bytes: &[u8], expect: &[&str]) {
    let name = bytes.get(..60).unwrap_or(bytes).escape_ascii().to_string();
    let (lines, whole) = parsed(sender, extensions, SMALL, &[bytes]);
    assert_eq!(lines, expect, "{name}");
    // Long samples are cut around their headers and at their ends alone.
    let cuts = (0..=bytes.len()).filter(|at| *at < 300 || *at + 20 > bytes.len());
    for at in cuts {
        let (a, b) = bytes.split_at(at);
        assert_eq!(parsed(sender, extensions, SMALL, &[a, b]).1, whole, "{name} cut at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(parsed(sender, extensions, SMALL, &single).1, whole, "{name} byte by byte");
}

fn server(bytes: &[u8], expect: &[&str]) {
    check(Sender::Server, NONE, bytes, expect);
}

/// A server's frame with a short length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()).unwrap() {
        length @ 0..=125 => bytes.push(length as u8),
        length => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

fn masked(mut bytes: Vec<u8>, mask: [u8; 4]) -> Vec<u8> {
    let header = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    bytes[1] |= 0x80;
    let payload = bytes.split_off(header);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

#[test]
fn examples_of_rfc_6455() {
    server(b"\x81\x05Hello", &["text Hello"]);
    check(Sender::Client, NONE, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &["text Hello"]);
    server(b"\x01\x03Hel\x80\x02lo", &["text Hello"]);
    server(b"\x89\x05Hello", &["ping Hello"]);
    check(Sender::Client, NONE, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &["pong Hello"]);
    server(&[b"\x82\x7e\x01\x00".as_slice(), &[b'x'; 256]].concat(), &["binary xxxxxxxxxxxxxxxxxxxxxxxx…"]);
    server(
        &[b"\x82\x7f\0\0\0\0\0\x01\0\0".as_slice(), &[b'x'; 65536]].concat(),
        &["binary xxxxxxxxxxxxxxxxxxxxxxxx… truncated"],
    );
}

#[test]
fn frames_at_the_edges() {
    let rows: Vec<(Vec<u8>, Vec<&str>)> = vec![
        (vec![], vec![]),
        (b"\x81\0".to_vec(), vec!["text "]),
        (b"\x82\0".to_vec(), vec!["binary "]),
        // Control frames within a message; fragments of no bytes.
        (b"\x01\x03Hel\x89\x01a\x80\x02lo".to_vec(), vec!["ping a", "text Hello"]),
        (b"\x01\0\0\0\x80\0".to_vec(), vec!["text "]),
        (b"\x01\x01a\0\x01b\0\0\x80\x01c\x81\x01d".to_vec(), vec!["text abc", "text d"]),
        (frame(0x89, &[b'p'; 125]), vec!["ping pppppppppppppppppppppppp…"]),
        (b"\x89\0\x8a\0".to_vec(), vec!["ping ", "pong "]),
        // Closes.
        (b"\x88\0".to_vec(), vec!["close None "]),
        (b"\x88\x02\x03\xe8".to_vec(), vec!["close Some(1000) "]),
        (b"\x88\x05\x0f\xa0bye".to_vec(), vec!["close Some(4000) bye"]),
        (b"\x88\x01\x03".to_vec(), vec!["0: CloseLength", "close None "]),
        (b"\x88\x02\x03\xed".to_vec(), vec!["0: CloseCode(1005)", "close Some(1005) "]),
        (b"\x88\x02\x03\xf7".to_vec(), vec!["0: CloseCode(1015)", "close Some(1015) "]),
        (b"\x88\x02\x13\x88".to_vec(), vec!["0: CloseCode(5000)", "close Some(5000) "]),
        (b"\x88\x03\x03\xe8\xff".to_vec(), vec!["0: CloseReason", "close Some(1000) \\xff"]),
        (b"\x88\0\x81\x01a".to_vec(), vec!["close None ", "2: AfterClose", "text a"]),
        // Ends within.
        (b"\x81".to_vec(), vec![]),
        (b"\x81\x05He".to_vec(), vec!["text He truncated unfinished"]),
        (b"\x01\x02He\x89\x05p".to_vec(), vec!["text He truncated unfinished"]),
        (b"\x82\x7e\x01".to_vec(), vec![]),
        // What breaks the rules.
        (b"\x80\x01a\x81\x01b".to_vec(), vec!["0: Continuation", "text b"]),
        (b"\x01\x01a\x81\x01b".to_vec(), vec!["3: Interleaved", "text a truncated unfinished", "text b"]),
        (b"\x83\x01a\x81\x01b".to_vec(), vec!["0: Opcode(3)", "text b"]),
        (b"\x8b\x01a".to_vec(), vec!["0: Opcode(11)"]),
        (b"\x09\x01a".to_vec(), vec!["0: FragmentedControl", "ping a"]),
        (frame(0x89, &[b'p'; 126]), vec!["0: LongControl(126)", "ping pppppppppppppppppppppppp…"]),
        (b"\x81\x7e\0\x01a".to_vec(), vec!["0: LengthNotMinimal", "text a"]),
        (b"\x81\x7f\0\0\0\0\0\0\0\x01a".to_vec(), vec!["0: LengthNotMinimal", "text a"]),
        (
            b"\x81\x7f\0\0\0\0\0\x02\0\0a".to_vec(),
            vec!["0: LongFrame(131072)", "text a truncated unfinished"],
        ),
        (b"\x81\x7f\x80\0\0\0\0\0\0\0a\x81\x01b".to_vec(), vec!["0: Length"]),
        (b"\xc1\x01a\x81\x01b".to_vec(), vec!["0: ReservedBits", "text a truncated Unknown", "text b"]),
        (b"\x91\x01a".to_vec(), vec!["0: ReservedBits", "text a truncated Unknown"]),
        (b"\xd9\0".to_vec(), vec!["0: ReservedBits", "ping "]),
        (b"\x81\x02\xc3\x28".to_vec(), vec!["0: Text", "text \\xc3("]),
        (b"\x01\x01\xc3\x80\x01\xa9".to_vec(), vec!["text \\xc3\\xa9"]),
        (b"\x82\x02\xc3\x28".to_vec(), vec!["binary \\xc3("]),
        (masked(b"\x81\x05Hello".to_vec(), *b"abcd"), vec!["0: Masked", "text Hello"]),
    ];
    for (bytes, expect) in rows {
        server(&bytes, &expect);
    }
    check(Sender::Client, NONE, b"\x81\x05Hello", &["0: Unmasked", "text Hello"]);
    check(Sender::Client, NONE, b"\x81\x80\0\0\0\0", &["text "]);
    check(Sender::Server, UNKNOWN, b"\xc1\x01a", &["text a truncated Unknown"]);
}

#[test]
fn masks_come_off_at_any_length() {
    for length in 0..70_u8 {
        let payload: Vec<u8> = (0..length).collect();
        let bytes = masked(frame(0x82, &payload), [0x11, 0xa2, 0x3b, 0xcc]);
        let pieces: Vec<&[u8]> = bytes.chunks(7).collect();
        for pieces in [vec![bytes.as_slice()], pieces] {
            let mut count = 0;
            let mut parser = Parser::new(Sender::Client, NONE, Limits::default());
            for piece in pieces {
                parser.push(piece, &mut |event| match event {
                    Event::Message(message) => {
                        assert_eq!(message.payload, payload);
                        count += 1;
                    }
                    Event::Control(..) | Event::Fault(..) => panic!("{event:?}"),
                });
            }
            assert_eq!(count, 1);
        }
    }
}

/// RFC 7692 7.2.3.
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\0";

#[test]
fn examples_of_rfc_7692() {
    let hello = "text Hello 7>5 compressed";
    check(Sender::Server, DEFLATE, &frame(0xc1, HELLO), &[hello]);
    check(Sender::Client, DEFLATE, &masked(frame(0xc1, HELLO), *b"mask"), &[hello]);
    check(Sender::Server, DEFLATE, b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\0", &[hello]);
    let twice = [frame(0xc1, HELLO), frame(0xc1, HELLO)].concat();
    check(Sender::Server, DEFLATE, &twice, &[hello, hello]);
    check(Sender::Server, FRESH, &twice, &[hello, hello]);
    // The second refers to the first; control frames and plain messages in between change nothing.
    let referring =
        [frame(0xc1, HELLO), frame(0x89, b"p"), frame(0x81, b"plain"), frame(0xc1, b"\xf2\0\x11\0\0")];
    let second = "text Hello 5>5 compressed".replace(" 5>5", "");
    check(Sender::Server, DEFLATE, &referring.concat(), &[hello, "ping p", "text plain", &second]);
    // A block that is stored, one with BFINAL, and two in one message.
    check(Sender::Server, DEFLATE, b"\xc1\x0b\0\x05\0\xfa\xffHello\0", &["text Hello 11>5 compressed"]);
    let last = b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\0\0".as_slice();
    check(Sender::Server, DEFLATE, last, &["text Hello 8>5 compressed"]);
    check(
        Sender::Server,
        DEFLATE,
        &[last, &frame(0xc1, HELLO)].concat(),
        &["text Hello 8>5 compressed", hello],
    );
    // What comes after BFINAL may refer to what came before it.
    let referring = [last, &frame(0xc1, b"\xf2\0\x11\0\0")].concat();
    check(Sender::Server, DEFLATE, &referring, &["text Hello 8>5 compressed", "text Hello compressed"]);
    let two = b"\xc1\x0d\xf2\x48\x05\0\0\0\xff\xff\xca\xc9\xc9\x07\0";
    check(Sender::Server, DEFLATE, two, &["text Hello 13>5 compressed"]);
    // RSV1 in a continuation or a control frame, or with another bit.
    check(
        Sender::Server,
        DEFLATE,
        b"\x41\x03\xf2\x48\xcd\xc0\x04\xc9\xc9\x07\0",
        &["5: ReservedBits", hello],
    );
    check(Sender::Server, DEFLATE, b"\xc9\0", &["0: ReservedBits", "ping "]);
}

#[test]
fn what_cannot_be_inflated_is_said() {
    let hello = "text Hello 7>5 compressed";
    let hello = |bytes: Vec<u8>| -> (Vec<u8>, &str) { ([bytes, frame(0xc1, HELLO)].concat(), hello) };
    // Corrupt: a block of the reserved type. With takeover all after it is lost, without it nothing else.
    let (corrupt, after) = hello(frame(0xc1, b"\x06\0"));
    let first = "text  2>0 compressed truncated Corrupt";
    let lost = "text  7>0 compressed truncated ContextLost";
    check(Sender::Server, DEFLATE, &corrupt, &["0: Deflate", first, lost]);
    check(Sender::Server, FRESH, &corrupt, &["0: Deflate", first, after]);
    // A message that ends within a block is as good as its bytes, but the next starts in the wrong place.
    let (cut, _) = hello(b"\xc1\x02\xf2\x48".to_vec());
    let (lines, _) = parsed(Sender::Server, DEFLATE, SMALL, &[&cut]);
    assert!(lines.last().unwrap().contains("truncated"), "{lines:?}");
    // Interrupted by another message.
    let (torn, _) = hello(b"\x41\x03\xf2\x48\xcd".to_vec());
    check(
        Sender::Server,
        DEFLATE,
        &torn,
        &["5: Interleaved", "text He 3>2 compressed truncated unfinished", lost],
    );
}

/// A message as a client with context takeover writes it: flushed, without the tail.
fn deflated(text: &[u8]) -> Vec<u8> {
    use miniz_oxide::deflate::core::{
        CompressorOxide, TDEFLFlush, compress, create_comp_flags_from_zip_params,
    };
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(6, -15, 0));
    let mut out = vec![0; text.len() + 100];
    let (_, read, written) = compress(&mut compressor, text, &mut out, TDEFLFlush::Sync);
    assert_eq!(read, text.len());
    out.truncate(written);
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
    out.truncate(written - 4);
    out
}

#[test]
fn a_bomb_costs_at_most_the_cap() {
    let hello = "text Hello 7>5 compressed";
    let fits = frame(0xc1, &deflated(&[b'a'; 1000]));
    let bomb = frame(0xc1, &deflated(&[b'a'; 60_000]));
    let shown = "text aaaaaaaaaaaaaaaaaaaaaaaa…";
    let whole = format!("{shown} {}>1000 compressed truncated", fits.len() - 2);
    let blown = format!(
        "{shown} {}>1000 compressed truncated TooLarge",
        bomb.len() - if bomb[1] == 126 { 4 } else { 2 }
    );
    let lost = "text  7>0 compressed truncated ContextLost";
    let bytes = [fits, bomb, frame(0xc1, HELLO), frame(0x81, b"plain")].concat();
    check(Sender::Server, DEFLATE, &bytes, &[&whole, &blown, lost, "text plain"]);
    check(Sender::Server, FRESH, &bytes, &[&whole, &blown, hello, "text plain"]);
}

/// Found by fuzzing: a window that is full in the middle of a scratch buffer held back the rest of a message
/// until the next one came.
#[test]
fn a_message_is_whole_wherever_the_window_ends() {
    for first in [1, 1000, 20_000, 32_767, 32_768] {
        for second in [1, 31_768, 32_768, 40_000, 65_536, 100_000] {
            let bytes: Vec<u8> = [first, second, 5]
                .iter()
                .flat_map(|length| frame(0xc1, &deflated(&vec![b'a'; *length])))
                .collect();
            for step in [1, bytes.len()] {
                let mut parser = Parser::new(Sender::Server, DEFLATE, Limits::default());
                let mut lengths = Vec::new();
                for piece in bytes.chunks(step) {
                    parser.push(piece, &mut |event| match event {
                        Event::Message(message) => {
                            assert!(!message.truncated && message.payload.len() as u64 == message.length);
                            lengths.push(message.length as usize);
                        }
                        Event::Control(..) | Event::Fault(..) => panic!("{event:?}"),
                    });
                }
                assert_eq!(lengths, [first, second, 5], "in pieces of {step}");
            }
        }
    }
}

/// Found by fuzzing: data corrupt behind the end of the window took with it what the same piece had given and
/// the scratch buffer had no room for.
#[test]
fn all_before_corrupt_data_is_given_however_it_is_cut() {
    // 48816 bytes, so that the window's end comes early in the second message.
    let first = [
        b"\xec\xc1\x31\x01\0\0\0\xc2\xa0\xac\xeb\x5f\xc2\x1a\x1e\x40\x01\xfe\xff\xff\xff".as_slice(),
        &[0; 20],
        b"\x01",
        &[0; 12],
        &[0x14; 23],
    ]
    .concat();
    // Matches of 1032 bytes for each of its bytes, then a block of the reserved type.
    let second = [vec![0; 39], vec![0x3e; 26]].concat();
    let bytes = [frame(0xc1, &first), frame(0xc1, &second)].concat();
    for message in [2000, 50_000] {
        let limits = Limits { message, inflated: 50_000, frame: 100_000 };
        let (lines, whole) = parsed(Sender::Server, DEFLATE, limits, &[&bytes]);
        let expected = ["77>48816", "Deflate", "65>40697 compressed truncated Corrupt"];
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line} has not {expected}");
        }
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            let (_, parts) = parsed(Sender::Server, DEFLATE, limits, &[left, right]);
            assert!(parts == whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(parsed(Sender::Server, DEFLATE, limits, &single).1 == whole, "in single bytes");
    }
}

#[test]
fn windows_are_held_only_where_they_are_needed() {
    let held = |parser: &Parser| parser.inflater.as_ref().is_some_and(Inflater::holds_window);
    for (extensions, after) in [(DEFLATE, true), (FRESH, false)] {
        let mut parser = Parser::new(Sender::Server, extensions, Limits::default());
        assert!(!held(&parser), "before anything came");
        parser.push(&frame(0x81, b"plain"), &mut |_| {});
        assert!(!held(&parser), "for what is not compressed");
        parser.push(&frame(0xc1, HELLO), &mut |_| {});
        assert_eq!(held(&parser), after);
        parser.push(&frame(0xc1, b"\x06\0"), &mut |_| {});
        assert!(!held(&parser), "after the context was given up");
    }
    assert!(size_of::<Parser>() < 512, "an idle parser has {} bytes", size_of::<Parser>());
}

/// The shape of Codex: a small warm-up, then the turn, masked, compressed with takeover in several frames;
/// made by another implementation of deflate.
#[test]
fn a_recorded_conversation() {
    let agreed = Extensions::agreed(
        [b"permessage-deflate; client_max_window_bits".as_slice()],
        [b"permessage-deflate".as_slice()],
    );
    let turn = r#"{"type":"response.create","model":"m","generate":false,"input":[]}"#;
    let reply = r#"{"type":"response.create","model":"m","input":[{"role":"user","content":"hi"}]}"#;
    let mut bytes = Vec::new();
    for (index, message) in TURNS.iter().enumerate() {
        let (a, b) = message.split_at(message.len() / 2);
        bytes.extend(masked(frame(0x41, a), [index as u8, 2, 3, 4]));
        bytes.extend(masked(frame(0x89, b""), [0; 4]));
        bytes.extend(masked(frame(0x80, b), [9, 8, 7, index as u8]));
    }
    let mut seen = Vec::new();
    let mut parser = Parser::new(Sender::Client, agreed.unwrap(), Limits::default());
    for piece in bytes.chunks(5) {
        parser.push(piece, &mut |event| match event {
            Event::Message(message) => {
                assert!(!message.truncated && message.compressed);
                seen.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            Event::Control(_, control) => assert_eq!(control, Control::Ping(b"")),
            Event::Fault(..) => panic!("{event:?}"),
        });
    }
    assert_eq!(seen, [turn, reply]);
}

/// [`a_recorded_conversation`], from zlib, without the tails.
const TURNS: [&[u8]; 2] = [
    b"\x14\xc8A\x0a\x800\x0c\x04\xc0\xbf\xec9\xf8\x80|E<\x14]Eh\xd3\x90\xc6\x83\x88\x7f\x17\xe78\x0f\xf2vB\x11\x1c\xdempZ\x83%\x09A\xeb\x1b+\x14\x0d\x82\x83\xc6\xf8[\xf7R\x07\x05\xa7\xf9\x95\xd0yy?\x00",
    b"\xaa&\xce\x04\x98\x86j\xa5\xa2\xfc\x1c\x90\xf2\xd2\xe2\xd4\x22%\x1d\xa5\xe4\xfc\xbc\x92\xd4\xbc\x12%+\xa5\x8cL\xa5\xda\xd8Z\x00\x00",
];
