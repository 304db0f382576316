//! Coded bodies, cut everywhere, broken, and blown up.

use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

use super::*;

const TEXT: &[u8] =
    b"{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"Hello, world. Hello again.\"}]}\n";
/// [`TEXT`], from another implementation.
const BROTLI: &str = "1b5200009c07760cb1c644f8fd4e17adcadb6b852eba3ec5a2d3225b6570c10907ec0db0340d0e7e8fb1\
                      311d185bfcf2892dc45983a2016e072b15e2305c90737600";
/// Three times, with a window that only the large-window format has.
const BROTLI_LARGE: &str = "115ce00300701ed831c41a138180affd5a642b6f6f2b74d1f529169d14298383661cb0f780a55d\
                            442394a9720858b9a0cd76af9dd8429c19140d7077b032210ec30b721eb4530b";
/// 64 MiB of zeros.
const BROTLI_BOMB: &str = "cfffff7f002400e2b14072effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffcfffff7f\
                           001200715800baf7ff";
/// Of nothing.
const BROTLI_EMPTY: &str = "3b";

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    gzip_with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], text)
}

fn gzip_with(header: &[u8], text: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend(compress_to_vec(text, 6));
    bytes.extend(crc32fast::hash(text).to_le_bytes());
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; zstd_safe::compress_bound(text.len())];
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
    let length = context.compress2(bytes.as_mut_slice(), text).unwrap();
    bytes.truncate(length);
    bytes
}

fn codings(names: &str) -> Codings {
    Codings::parse([names.as_bytes()]).unwrap()
}

fn pieces(codings: &Codings, pieces: &[&[u8]], limits: Limits) -> (Vec<u8>, Ended) {
    let mut decoder = Decoder::new(codings, limits);
    let mut bytes = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut |decoded| bytes.extend_from_slice(decoded));
        decoder.push(&[], &mut |_| panic!("something out of nothing"));
    }
    assert_eq!(decoder.given(), bytes.len() as u64);
    (bytes, decoder.ended())
}

/// Whole, cut at each place, byte by byte; and each prefix decodes to a prefix.
fn check(names: &str, coded: &[u8], expect: &[u8], ended: Ended) {
    let codings = codings(names);
    let limits = Limits::of(1 << 20);
    assert_eq!(pieces(&codings, &[coded], limits), (expect.to_vec(), ended), "{names}");
    for at in 0..=coded.len() {
        let (a, b) = coded.split_at(at);
        assert_eq!(pieces(&codings, &[a, b], limits), (expect.to_vec(), ended), "{names} cut at {at}");
        let (bytes, _) = pieces(&codings, &[a], limits);
        assert!(expect.starts_with(&bytes), "{names}: {at} bytes of it");
    }
    let single: Vec<&[u8]> = coded.chunks(1).collect();
    assert_eq!(pieces(&codings, &single, limits), (expect.to_vec(), ended), "{names} byte by byte");
}

#[test]
fn header_values() {
    let rows: [(&[&str], Result<&str, &str>); 10] = [
        (&[], Ok("identity")),
        (&[""], Ok("identity")),
        (&["identity"], Ok("identity")),
        (&["gzip"], Ok("gzip")),
        (&["X-GZIP"], Ok("gzip")),
        (&["gzip, br"], Ok("gzip, br")),
        (&["deflate", " zstd ,,identity"], Ok("deflate, zstd")),
        (&["gzip,gzip,gzip,gzip"], Ok("gzip, gzip, gzip, gzip")),
        (&["gzip,gzip,gzip,gzip,gzip"], Err("more than 4 content codings")),
        (&["gzip, snap\u{7}py"], Err("content coding \"snap\\\\x07py\" is not known")),
    ];
    for (values, expect) in rows {
        let parsed = Codings::parse(values.iter().map(|value| value.as_bytes()));
        let parsed = parsed.map(|codings| codings.to_string()).map_err(|error| error.to_string());
        assert_eq!(parsed, expect.map(str::to_owned).map_err(str::to_owned), "{values:?}");
    }
}

#[test]
fn whole_bodies() {
    let long: Vec<u8> = TEXT.repeat(2000);
    check("identity", TEXT, TEXT, Ended::Whole);
    for (names, coded) in [
        ("gzip", gzip(TEXT)),
        ("deflate", compress_to_vec_zlib(TEXT, 6)),
        ("deflate", compress_to_vec(TEXT, 6)),
        ("br", hex(BROTLI)),
        ("zstd", zstd(TEXT)),
        ("gzip, zstd", zstd(&gzip(TEXT))),
        ("br, gzip", gzip(&hex(BROTLI))),
        ("deflate, gzip, zstd, gzip", gzip(&zstd(&gzip(&compress_to_vec_zlib(TEXT, 9))))),
    ] {
        check(names, &coded, TEXT, Ended::Whole);
    }
    for (names, coded) in [
        ("gzip", gzip(&long)),
        ("deflate", compress_to_vec_zlib(&long, 6)),
        ("zstd", zstd(&long)),
        ("zstd, gzip", gzip(&zstd(&long))),
    ] {
        assert_eq!(
            pieces(&codings(names), &[&coded], Limits::of(1 << 20)),
            (long.clone(), Ended::Whole),
            "{names}"
        );
    }
    // Of nothing, and nothing at all.
    for (names, coded) in
        [("gzip", gzip(b"")), ("br", hex(BROTLI_EMPTY)), ("zstd", zstd(b"")), ("gzip, br", vec![])]
    {
        check(names, &coded, b"", Ended::Whole);
    }
}

#[test]
fn members_frames_and_headers() {
    let twice = TEXT.repeat(2);
    check("gzip", &[gzip(TEXT), gzip(TEXT)].concat(), &twice, Ended::Whole);
    check("zstd", &[zstd(TEXT), zstd(TEXT)].concat(), &twice, Ended::Whole);
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice();
    check("zstd", &[skippable, &zstd(TEXT), skippable].concat(), TEXT, Ended::Whole);
    // FEXTRA, FNAME, FCOMMENT, FHCRC; each alone and all.
    let fixed = |flags: u8| vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
    for (flags, fields) in [
        (4, b"\x02\0ab".as_slice()),
        (4, b"\0\0"),
        (8, b"name\0"),
        (16, b"\0"),
        (2, b"\x12\x34"),
        (31, b"\x01\0anam\0comment\0\x12\x34"),
    ] {
        check("gzip", &gzip_with(&[fixed(flags).as_slice(), fields].concat(), TEXT), TEXT, Ended::Whole);
    }
}

#[test]
fn what_is_cut_is_said() {
    for (names, coded) in [
        ("gzip", gzip(TEXT)),
        ("deflate", compress_to_vec_zlib(TEXT, 6)),
        ("br", hex(BROTLI)),
        ("zstd", zstd(TEXT)),
    ] {
        for end in 1..coded.len() {
            let decoded = decode(&codings(names), &coded[..end], Limits::of(1 << 20));
            assert!(decoded.truncated && decoded.faults.is_empty(), "{names}: {end} bytes: {decoded:?}");
            assert!(TEXT.starts_with(&decoded.bytes), "{names}: {end}");
        }
    }
    // A live stream: what was flushed is there at once, though nothing has ended.
    let mut out = vec![0; 1000];
    let mut context = zstd_safe::CCtx::create();
    let mut to = zstd_safe::OutBuffer::around(out.as_mut_slice());
    context.compress_stream(&mut to, &mut zstd_safe::InBuffer::around(TEXT)).unwrap();
    context.flush_stream(&mut to).unwrap();
    let length = to.pos();
    assert_eq!(pieces(&codings("zstd"), &[&out[..length]], Limits::of(1 << 20)), (TEXT.to_vec(), Ended::Cut));
}

/// Found by fuzzing: a window that is full before the scratch buffer is held back what was there.
#[test]
fn nothing_is_held_back_wherever_the_window_ends() {
    for zeros in [40_000, 98_880, 200_000] {
        let coded = gzip(&vec![0; zeros]);
        let cut = &coded[..coded.len() - 8];
        for step in [1, 7, 60, cut.len()] {
            let chunks: Vec<&[u8]> = cut.chunks(step).collect();
            let (bytes, ended) = pieces(&codings("gzip"), &chunks, Limits::of(1 << 20));
            assert_eq!((bytes.len(), ended), (zeros, Ended::Cut), "in pieces of {step}");
        }
    }
}

#[test]
fn all_before_corrupt_data_is_given_however_it_is_cut() {
    let text = vec![b'a'; 100_000];
    let mut deflated = compress_to_vec(&text, 6);
    // Not the last block any more, and what follows is none.
    deflated[0] &= !1;
    deflated.extend([0xff; 6]);
    check("deflate", &deflated, &text, Ended::Faulty(Fault::Corrupt(Coding::Deflate)));
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], deflated.as_slice()].concat();
    check("gzip", &gzip, &text, Ended::Faulty(Fault::Corrupt(Coding::Gzip)));
}

/// What an outer coding gives beyond its cap is not decoded, and all below it is.
#[test]
fn a_cap_between_codings_falls_on_the_same_byte_however_it_is_cut() {
    // Stored blocks of one byte each: six bytes coded for one.
    let text = b"\0\x01\0\xfe\xff.".repeat(30_000);
    let coded = gzip(&text);
    let codings = codings("deflate, gzip");
    let limits = Limits::of(20_000);
    let (whole, ended) = pieces(&codings, &[&coded], limits);
    assert_eq!((whole.len(), ended), (17_589, Ended::Faulty(Fault::Between(Coding::Gzip))));
    for step in [1, 7, 100] {
        let parts = pieces(&codings, &coded.chunks(step).collect::<Vec<_>>(), limits);
        assert!(parts == (whole.clone(), ended), "in pieces of {step}: {} bytes", parts.0.len());
    }
}

#[test]
fn what_is_wrong_is_said() {
    let faulty = |coding, fault: fn(Coding) -> Fault| Ended::Faulty(fault(coding));
    // One byte of the checksum, then of the length.
    for at in [5, 2] {
        let mut coded = gzip(TEXT);
        let place = coded.len() - at;
        coded[place] ^= 1;
        check("gzip", &coded, TEXT, faulty(Coding::Gzip, Fault::Checksum));
    }
    let mut coded = zstd(TEXT);
    *coded.last_mut().unwrap() ^= 1;
    let (_, ended) = pieces(&codings("zstd"), &[&coded], Limits::of(1 << 20));
    assert_eq!(ended, faulty(Coding::Zstd, Fault::Checksum));
    let mut coded = compress_to_vec_zlib(TEXT, 6);
    *coded.last_mut().unwrap() ^= 1;
    check("deflate", &coded, TEXT, faulty(Coding::Deflate, Fault::Corrupt));
    // Not that coding at all.
    for (names, coded, fault) in [
        ("gzip", TEXT, Fault::Corrupt(Coding::Gzip)),
        ("deflate", b"\xff\xff\xff\xff", Fault::Corrupt(Coding::Deflate)),
        ("zstd", TEXT, Fault::Corrupt(Coding::Zstd)),
        ("br", b"\xff\xff\xff\xff\xff\xff", Fault::Corrupt(Coding::Brotli)),
        ("gzip", b"\x1f\x8b\x08\xe0", Fault::Corrupt(Coding::Gzip)),
    ] {
        check(names, coded, b"", Ended::Faulty(fault));
    }
    // After the end.
    for (coding, names, coded) in [
        (Coding::Gzip, "gzip", gzip(TEXT)),
        (Coding::Deflate, "deflate", compress_to_vec(TEXT, 6)),
        (Coding::Brotli, "br", hex(BROTLI)),
        (Coding::Zstd, "zstd", zstd(TEXT)),
    ] {
        let trailed = [coded.as_slice(), b"trailing"].concat();
        check(names, &trailed, TEXT, faulty(coding, Fault::Trailing));
        let decoded = decode(&codings(names), &trailed, Limits::of(1 << 20));
        assert!(!decoded.truncated, "{names}: what follows the end is not of the body");
    }
    let inner_cut = gzip(&zstd(TEXT)[..20]);
    let decoded =
        decode(&codings("zstd, gzip"), &[inner_cut.as_slice(), b"trailing"].concat(), Limits::of(1 << 20));
    assert!(decoded.truncated, "{decoded:?}");
}

#[test]
fn windows_have_a_limit() {
    // A frame header that asks for 16 MiB, and one for 8 MiB.
    let asks = |log: u8| [b"\x28\xb5\x2f\xfd\0".as_slice(), &[(log - 10) << 3], b"\x01\0\0"].concat();
    check("zstd", &asks(24), b"", Ended::Faulty(Fault::Window(Coding::Zstd)));
    check("zstd", &asks(23), b"", Ended::Whole);
    check("br", &hex(BROTLI_LARGE), b"", Ended::Faulty(Fault::Corrupt(Coding::Brotli)));
    // A dictionary that nobody has.
    let wants = b"\x28\xb5\x2f\xfd\x01\x58\x07\x01\0\0";
    check("zstd", wants, b"", Ended::Faulty(Fault::Dictionary(Coding::Zstd)));
}

#[test]
fn bombs_stop_at_the_cap_to_the_byte() {
    let zeros = vec![0; 8 << 20];
    for (names, coded) in [
        ("gzip", gzip(&zeros)),
        ("deflate", compress_to_vec_zlib(&zeros, 9)),
        ("br", hex(BROTLI_BOMB)),
        ("zstd", zstd(&zeros)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
        ("zstd, br, gzip", gzip(&zstd(&zstd(&zeros)))),
    ] {
        // The last row's br does not decode: nothing is given out.
        let expect = if names.contains("br, ") { 0 } else { 100_000 };
        let decoded = decode(&codings(names), &coded, Limits::of(100_000));
        assert_eq!(decoded.bytes.len(), expect, "{names}");
        assert!(decoded.truncated, "{names}");
        assert!(decoded.bytes.capacity() <= 300_000, "{names}: {}", decoded.bytes.capacity());
        let pieces_of = pieces(&codings(names), &coded.chunks(3).collect::<Vec<_>>(), Limits::of(100_000));
        assert_eq!(pieces_of.0, decoded.bytes, "{names}");
    }
    // At the cap exactly is whole; nothing is not.
    assert_eq!(pieces(&codings("gzip"), &[&gzip(TEXT)], Limits::of(TEXT.len() as u64)).1, Ended::Whole);
    assert_eq!(pieces(&codings("gzip"), &[&gzip(TEXT)], Limits::of(0)), (vec![], Ended::Capped));
    assert_eq!(pieces(&codings("identity"), &[TEXT], Limits::of(10)), (TEXT[..10].to_vec(), Ended::Capped));
    // An outer coding that gives out far more than the cap, of which the inner one makes nothing.
    let nothing = b"\0\0\0\xff\xff".repeat(1 << 20);
    let fault = Fault::Between(Coding::Gzip);
    assert_eq!(
        pieces(&codings("deflate, gzip"), &[&gzip(&nothing)], Limits::of(1000)).1,
        Ended::Faulty(fault)
    );
}

#[test]
fn no_flipped_byte_panics() {
    let limits = Limits::of(10_000);
    for (names, coded) in [
        ("gzip", gzip(TEXT)),
        ("deflate", compress_to_vec_zlib(TEXT, 6)),
        ("br", hex(BROTLI)),
        ("zstd", zstd(TEXT)),
    ] {
        for at in 0..coded.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = coded.clone();
                changed[at] = value;
                assert!(decode(&codings(names), &changed, limits).bytes.len() <= 10_000);
            }
        }
    }
}
