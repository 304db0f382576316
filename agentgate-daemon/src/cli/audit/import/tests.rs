//! What was exported comes to a log that is whole and gives the same again; what is hostile or broken comes to
//! none.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, sync::Arc};

use super::*;
use crate::{
    cli::output::Output,
    export::{
        Format, Formatter, Row,
        chained::Chained,
        pages::{From, Pages, Wanted},
        samples,
    },
    filter::Filter,
    model::{Captured, RequestHead, ResponseHead},
    store::{Side, StoreError, Write, order::Closed, verify::verify_file},
};

struct Bench {
    root: tempfile::TempDir,
    session: Session,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        std::fs::create_dir_all(paths.store.parent().unwrap()).unwrap();
        let socket = paths.control_socket;
        let session = Session { root: root.path().to_owned(), socket, output: Output::to_stdout(true) };
        Self { root, session }
    }

    fn store(&self) -> PathBuf {
        Paths::below(self.root.path()).store
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&mut self, files: &[&PathBuf], damaged: bool) -> Result<(), Failure> {
        let args = Args {
            files: files.iter().map(|file| (*file).clone()).collect(),
            key: Vec::new(),
            damaged,
            store: None,
        };
        import(&mut self.session, &args, &mut io::empty())
    }

    /// Nothing but what was there before `import` is beside the store's place.
    fn is_clean(&self) -> bool {
        std::fs::read_dir(self.store().parent().unwrap()).unwrap().next().is_none()
    }

    /// Why nothing came of it.
    fn refused(&mut self, lines: &[u8], damaged: bool) -> String {
        let file = self.file("hostile", lines);
        let failure = self.import(&[&file], damaged).unwrap_err();
        assert!(self.is_clean(), "{failure}");
        assert_eq!(failure.exit_code(), 1, "{failure}");
        failure.to_string()
    }
}

fn exchange(id: u64, state: State) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap() * 1_000));
    (record.id, record.state) = (RecordId(id), state);
    let body = |text: String| Captured { total: 9, truncated: id.is_multiple_of(3), bytes: text.into_bytes().into() };
    record.request = Some(RequestHead { body: body(format!("asked {id}")), ..RequestHead::default() });
    if state != State::Open {
        let bytes = body("x".repeat(usize::try_from(id).unwrap() * 100));
        record.response = Some(ResponseHead { status: 200, body: bytes, ..ResponseHead::default() });
        record.finished = Some(Timestamp(record.started.0 + 5));
    }
    record
}

/// A log with one record of each kind, and many that begin before others end.
fn log() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    let kinds: Vec<Record> =
        (1..).zip(samples::all()).map(|(id, row)| Record { id: RecordId(id), ..row.record }).collect();
    store.apply(&kinds.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    for at in 100..400 {
        let (begun, done) = (exchange(at, State::Open), exchange(at.max(110) - 10, State::Done));
        let mut writes = vec![Write::Open(&begun)];
        if at >= 110 {
            writes.push(Write::Final(&done));
        }
        store.apply(&writes).unwrap();
    }
    for id in 390..400 {
        store.apply(&[Write::Final(&exchange(id, State::Cancelled))]).unwrap();
    }
    (dir, Arc::new(store))
}

fn export(from: &From, filter: &str, bodies: bool, next: u64) -> Vec<u8> {
    let parsed = Filter::parse(filter, Timestamp(0)).unwrap();
    let wanted = Wanted { filter: parsed, bodies, ..Wanted::default() };
    let mut chain = Chained::new(from.clone(), wanted, filter.to_owned(), next);
    let mut out = Vec::new();
    loop {
        let turned = chain
            .step(|line| {
                serde_json::to_writer(&mut out, line).unwrap();
                out.push(b'\n');
                Ok::<_, StoreError>(())
            })
            .unwrap();
        if turned.is_over() {
            serde_json::to_writer(&mut out, &chain.end()).unwrap();
            out.push(b'\n');
            return out;
        }
    }
}

fn rows(from: &From, open: bool) -> Vec<Row> {
    let mut pages = Pages::new(from.clone(), Wanted { bodies: true, open, ..Wanted::default() }, 0);
    let mut rows = Vec::new();
    loop {
        let turned = pages
            .turn(|row| {
                rows.push(row);
                Ok::<_, StoreError>(1)
            })
            .unwrap();
        assert_eq!((turned.pruned, turned.unreadable), (0, 0));
        if turned.is_over() {
            return rows;
        }
    }
}

fn plain(rows: &[Row], bodies: bool) -> Vec<u8> {
    let (mut formatter, mut out) = (Formatter::new(Format::Jsonl, bodies).unwrap(), Vec::new());
    rows.iter().for_each(|row| assert!(formatter.row(row, &mut out).unwrap()));
    out
}

/// Records and bodies, but for their places and for what the import says of itself.
fn told(rows: Vec<Row>, bodies: bool) -> (Vec<Record>, Vec<String>) {
    let (mut records, mut notes) = (Vec::new(), Vec::new());
    for Row { mut record, .. } in rows {
        match &record.note {
            Some(note) if note.starts_with("imported ") => notes.push(note.clone()),
            Some(_) | None => {
                for body in [
                    record.request.as_mut().map(|head| &mut head.body),
                    record.response.as_mut().map(|head| &mut head.body),
                ] {
                    if let Some(body) = body.filter(|_| !bodies) {
                        body.bytes = bytes::Bytes::new();
                    }
                }
                records.push(record);
            }
        }
    }
    (records, notes)
}

fn whole(path: &Path) {
    let report = verify_file(path, Trust::default(), &mut |_, _| {}).unwrap();
    assert!(report.whole, "{report:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Two members, as tools write that add to a file.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [first, second]
        .into_iter()
        .flat_map(|part| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        })
        .collect()
}

#[test]
fn what_comes_of_an_export_gives_the_same_again() {
    let (_dir, store) = log();
    let from = From::Store(store);
    let all = rows(&from, true);
    let ends = rows(&from, false);
    let chained = |bodies| export(&from, "", bodies, 0);
    let forms: [(&str, Vec<u8>, bool, bool); 7] = [
        ("with", chained(true), true, true),
        ("without", chained(false), false, true),
        ("gz", gzip(&chained(true)), true, true),
        ("zst", zstd::encode_all(&chained(true)[..], 1).unwrap(), true, true),
        ("plain", plain(&ends, true), true, false),
        ("begun", plain(&all, true), true, true),
        ("bare", plain(&ends, false), false, false),
    ];
    for (name, bytes, bodies, open) in forms {
        let mut bench = Bench::new();
        let file = bench.file(name, &bytes);
        bench.import(&[&file], false).unwrap();
        let path = bench.store();
        whole(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let made = From::File(Arc::new(Closed::open(&path).unwrap()));
        let (records, notes) = told(rows(&made, true), bodies);
        let (expect, _) = told(if open { all.clone() } else { ends.clone() }, bodies);
        assert_eq!(records, expect, "{name}");
        assert_eq!(notes.len(), 1, "{name}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let hash = data_encoding::HEXLOWER.encode(digest.as_ref());
        assert!(notes[0].contains(&file.display().to_string()) && notes[0].contains(&hash), "{}", notes[0]);
        // What was exported of the one is what is exported of the other.
        let again = told(rows(&made, open), bodies).0.len();
        assert_eq!(again, expect.len(), "{name}");
        let is_export = notes[0].contains("; verified: whole");
        assert_eq!(is_export, !["plain", "begun", "bare"].contains(&name), "{}", notes[0]);
        drop(made);
        // The gate goes on behind the highest id.
        let store = Store::open(&path).unwrap();
        assert_eq!(store.next_id(), RecordId(401));
        let body = store.body(RecordId(200), Side::Request);
        match (bodies, name) {
            (true, _) => assert_eq!(body.unwrap().unwrap(), "asked 200", "{name}"),
            (false, "without") => assert!(matches!(body, Err(StoreError::BodyDropped { .. })), "{body:?}"),
            (false, _) => assert_eq!(body.unwrap(), None),
        }
        let key = path.with_extension("key");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(path.with_extension("pub").exists());
        assert!(!upkeep::beside(&path, "import").exists());
        // There is a log now.
        drop(store);
        let failure = bench.import(&[&file], true).unwrap_err();
        assert!(matches!(failure, Failure::Store(StoreError::Exists { .. })), "{failure}");
    }
}

#[test]
fn parts_make_one_log_and_overlaps_none() {
    let (_dir, store) = log();
    let from = From::Store(store);
    let expect = told(rows(&from, true), true).0;
    // A checkpoint is at 256: the parts meet there, in the midst of records that are under way.
    let (mut first, second) = (export(&from, "id:<300", true, 0), export(&from, "", true, 256));
    first.clear();
    let lines = export(&from, "", true, 0);
    let mut entries = 0;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        first.extend_from_slice(line);
        entries += u64::from(line.starts_with(b"{\"type\":\"entry\""));
        if line.starts_with(b"{\"type\":\"checkpoint\"") && entries == 256 {
            break;
        }
    }
    first.extend_from_slice(b"{\"type\":\"end\",\"entries\":256}\n");
    let mut bench = Bench::new();
    let (one, two) = (bench.file("one", &first), bench.file("two", &second));
    bench.import(&[&one, &two], false).unwrap();
    whole(&bench.store());
    let made = From::File(Arc::new(Closed::open(&bench.store()).unwrap()));
    let (records, notes) = told(rows(&made, true), true);
    assert_eq!(records, expect);
    assert_eq!(notes.len(), 2);
    for files in [[&one, &one], [&two, &two], [&two, &one]] {
        let mut bench = Bench::new();
        let failure = bench.import(&files, true).unwrap_err();
        assert!(failure.to_string().contains("is in "), "{failure}");
        assert!(failure.to_string().contains(&files[0].display().to_string()), "{failure}");
        assert!(bench.is_clean());
    }
}

#[test]
fn an_export_that_is_not_whole_is_taken_only_when_asked_for() {
    let (_dir, store) = log();
    let lines = export(&From::Store(store), "", true, 0);
    let text: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let at = text.iter().position(|line| line.starts_with(b"{\"type\":\"entry\"")).unwrap() + 30;
    let changed = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines: Vec<Vec<u8>> = text.iter().map(|line| line.to_vec()).collect();
        change(&mut lines);
        lines.concat()
    };
    let replaced = |from: &str, to: &str| {
        changed(&|lines| {
            let line = String::from_utf8(lines[at].clone()).unwrap();
            assert!(line.contains(from), "{line}");
            lines[at] = line.replacen(from, to, 1).into_bytes();
        })
    };
    let n = format!("\"n\":{}", serde_json::from_slice::<serde_json::Value>(text[at]).unwrap()["n"]);
    let cases: [(&str, Vec<u8>); 11] = [
        ("a line is gone", changed(&|lines| drop(lines.remove(at)))),
        ("a line is there twice", changed(&|lines| lines.insert(at, lines[at].clone()))),
        ("two lines changed places", changed(&|lines| lines.swap(at, at + 1))),
        ("cut off between lines", changed(&|lines| lines.truncate(lines.len() - 3))),
        ("cut off within a line", lines[..lines.len() - 40].to_vec()),
        ("another number", replaced(&n, "\"n\":77777")),
        ("the record is another than its entry", replaced("\"times\":1", "\"times\":3")),
        ("no base64", replaced("\"entry\":\"", "\"entry\":\"!")),
        ("no record", replaced("\"entry\":\"AQ", "\"entry\":\"Ag")),
        ("an entry is another", replaced("\"entry\":\"AQh", "\"entry\":\"AQi")),
        ("no JSON", changed(&|lines| lines[at] = b"{\"type\":\"entry\",\n".to_vec())),
    ];
    for (what, lines) in &cases {
        let mut bench = Bench::new();
        let why = bench.refused(lines, false);
        assert!(why.contains("nothing was imported"), "{what}: {why}");
        let file = bench.file("damaged", lines);
        bench.import(&[&file], true).unwrap_or_else(|failure| panic!("{what}: {failure}"));
        whole(&bench.store());
        let made = From::File(Arc::new(Closed::open(&bench.store()).unwrap()));
        let (records, notes) = told(rows(&made, true), true);
        assert!(notes[0].contains("verified: not whole"), "{what}: {}", notes[0]);
        assert!(records.len() > 500, "{what}: {}", records.len());
    }
}

#[test]
fn bodies_that_are_not_those_captured_are_not_kept() {
    let (_dir, store) = log();
    let lines = String::from_utf8(export(&From::Store(store), "id:200", true, 0)).unwrap();
    let real = data_encoding::BASE64.encode(b"asked 200");
    assert!(lines.contains(&real));
    let lines = lines.replace(&real, &data_encoding::BASE64.encode(b"asked 999"));
    let mut bench = Bench::new();
    assert!(bench.refused(lines.as_bytes(), false).contains("not whole"));
    let file = bench.file("damaged", lines.as_bytes());
    bench.import(&[&file], true).unwrap();
    whole(&bench.store());
    let store = Store::open(bench.store()).unwrap();
    let body = store.body(RecordId(200), Side::Request);
    assert!(matches!(body, Err(StoreError::BodyDropped { .. })), "{body:?}");
}

#[test]
fn a_key_that_did_not_sign_is_a_reason_to_stop() {
    let (dir, store) = log();
    let lines = export(&From::Store(store), "", false, 0);
    let mut bench = Bench::new();
    let file = bench.file("export", &lines);
    let (other, _) = crate::chain::SigningKey::generate().unwrap();
    let args = |key: String| Args { files: vec![file.clone()], key: vec![key], damaged: false, store: None };
    let failure =
        import(&mut bench.session, &args(other.public().to_string()), &mut io::empty()).unwrap_err();
    assert!(matches!(failure, Failure::NotImported(Some(_))), "{failure}");
    assert!(bench.is_clean());
    let failure = import(&mut bench.session, &args("no key".to_owned()), &mut io::empty()).unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
    let own = dir.path().join("audit.pub").display().to_string();
    // From standard input, to a place that is named.
    let to = bench.root.path().join("elsewhere.redb");
    let args = Args { files: vec!["-".into()], store: Some(to.clone()), ..args(own) };
    import(&mut bench.session, &args, &mut &lines[..]).unwrap();
    whole(&to);
    let made = From::File(Arc::new(Closed::open(&to).unwrap()));
    let (_, notes) = told(rows(&made, true), false);
    assert!(
        notes[0].contains("by a key that was given") && notes[0].contains("standard input"),
        "{}",
        notes[0]
    );
}

#[test]
fn bare_lines_that_are_no_records_are_not_taken() {
    let (_dir, store) = log();
    let rows = rows(&From::Store(store), false);
    let good = String::from_utf8(plain(&rows[..40], true)).unwrap();
    let line = good.lines().nth(20).unwrap();
    let bad = [
        (format!("{good}{line}\n"), "twice"),
        (format!("{good}no json\n"), "line 41: it is no record"),
        (format!("{good}{}\n", r#"{"id":9}"#), "it is no record"),
        (
            format!("{good}{}\n", line.replacen("\"id\":", "\"id\":900719925474099", 1)),
            "is no id of a record",
        ),
        (format!("{good}{}\n", line.replacen("\"id\":", "\"id\":-", 1)), "it is no record"),
        (format!("{good}{}{}", "[".repeat(100_000), "\n"), "it is no record"),
    ];
    for (lines, why) in bad {
        let mut bench = Bench::new();
        let said = bench.refused(lines.as_bytes(), false);
        assert!(said.contains(why), "{said}");
        let file = bench.file("damaged", lines.as_bytes());
        bench.import(&[&file], true).unwrap();
        whole(&bench.store());
        let made = From::File(Arc::new(Closed::open(&bench.store()).unwrap()));
        let (records, notes) = told(self::rows(&made, true), true);
        assert_eq!(records.len(), 40);
        assert!(notes[0].contains("40 entries of 40 records taken") && notes[0].contains("1 lines left out"));
    }
    let mut bench = Bench::new();
    for (lines, why) in [
        (&b""[..], "there is nothing"),
        (b"\n\n", "there is nothing"),
        (b"ts,event\n1,2\n", "neither"),
        (b"{\"type\":\"end\",\"entries\":0}\n", "neither"),
        (b"\x1f\x8b\x08\x00garbage", "line 1"),
        (b"\x28\xb5\x2f\xfdgarbage", "line 1"),
        (b"\xff\xfe\x00", "neither"),
    ] {
        let said = bench.refused(lines, false);
        assert!(said.contains(why), "{said}");
    }
    let packed = gzip(good.as_bytes());
    let said = bench.refused(&packed[..packed.len() - 9], false);
    assert!(said.contains("line "), "{said}");
}

#[test]
fn a_line_without_end_is_cut_short() {
    let mut bench = Bench::new();
    // Of a few KiB, once unpacked more than the longest line.
    let bomb = zstd::encode_all(io::Read::take(io::repeat(b'7'), 300 << 20), 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    let said = bench.refused(&bomb, false);
    assert!(said.contains("more than"), "{said}");
}

#[test]
fn a_log_in_use_is_left_alone_and_what_was_broken_off_is_cleared() {
    let (_dir, store) = log();
    let lines = export(&From::Store(store), "", false, 0);
    let mut bench = Bench::new();
    let (file, path) = (bench.file("export", &lines), bench.store());
    let held = Store::open(&path).unwrap();
    let failure = bench.import(&[&file], false).unwrap_err();
    assert!(matches!(failure, Failure::Store(StoreError::Busy { .. })), "{failure}");
    drop(held);
    // Of one that was killed.
    let left = upkeep::beside(&path, "import");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("audit.redb"), b"half of a log").unwrap();
    {
        let other = std::fs::File::open(&left).unwrap();
        other.lock().unwrap();
        let failure = bench.import(&[&file], false).unwrap_err();
        assert!(failure.to_string().contains("another import is under way"), "{failure}");
        assert!(left.join("audit.redb").exists());
    }
    let key = std::fs::read(path.with_extension("key")).unwrap();
    // The log that is there has no entries: it is kept aside, and its key goes on.
    bench.import(&[&file], false).unwrap();
    whole(&path);
    assert!(!left.exists());
    assert_eq!(std::fs::read(path.with_extension("key")).unwrap(), key);
    let kept = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let kept =
        kept.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("redb.before-"));
    assert_eq!(kept.count(), 1);
    // Something else in the way is not followed.
    let mut bench = Bench::new();
    let file = bench.file("export", &lines);
    std::os::unix::fs::symlink(bench.root.path(), upkeep::beside(&bench.store(), "import")).unwrap();
    assert!(bench.import(&[&file], false).is_err());
    assert!(file.exists() && !bench.store().exists());
}
