//! Each record has its line once, whatever happened between.

use std::{collections::BTreeSet, fs, io::Read as _, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::{
    model::{Kind, Record, RecordId, State},
    store::Write,
};

fn record(id: u64, state: State) -> Record {
    let mut record = Record::new(Kind::Control, Timestamp(i64::try_from(id).unwrap() * 1_000));
    (record.id, record.state) = (RecordId(id), state);
    record.note = Some(format!("note {id}"));
    record
}

struct Rig {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    settings: Settings,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let settings = Settings {
            path: dir.path().join("out/audit.jsonl"),
            format: Format::Jsonl,
            rotate_bytes: 0,
            rotate_hours: 0,
            compress: Compress::None,
            keep: 0,
            bodies: false,
        };
        let store = Arc::new(Store::open(dir.path().join("audit.redb")).unwrap());
        Self { dir, store, settings }
    }

    fn add(&self, ids: std::ops::RangeInclusive<u64>) {
        for id in ids {
            self.store.apply(&[Write::Open(&record(id, State::Open))]).unwrap();
            self.store.apply(&[Write::Final(&record(id, State::Done))]).unwrap();
        }
    }

    fn mirror(&self) -> Mirror {
        Mirror::new(self.store.clone(), self.settings.clone())
    }

    /// Ids in all files, in the order of their names and lines.
    fn ids(&self) -> Vec<u64> {
        let mut closed = rotate::closed(&self.settings.path).unwrap();
        closed.sort();
        closed.push(self.settings.path.clone());
        let mut ids = Vec::new();
        for path in closed {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            let bytes = fs::read(&path).unwrap();
            let mut text = String::new();
            match path.extension().unwrap().to_str().unwrap() {
                "gz" => drop(flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap()),
                "zst" => text = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap(),
                _ => text = String::from_utf8(bytes).unwrap(),
            }
            assert!(text.is_empty() || text.ends_with('\n'));
            for line in text.lines() {
                ids.push(serde_json::from_str::<Record>(line).unwrap().id.0);
            }
        }
        ids
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("out/audit.jsonl.place")
    }
}

#[test]
fn a_restart_at_any_moment_writes_each_line_once() {
    let rig = Rig::new();
    rig.add(1..=5);
    assert!(rig.mirror().step());
    let before = fs::read(rig.place()).unwrap();
    rig.add(6..=9);
    assert!(rig.mirror().step());
    let whole = fs::read(&rig.settings.path).unwrap();
    assert_eq!(rig.ids(), (1..=9).collect::<Vec<_>>());
    let known: Place = serde_json::from_slice(&before).unwrap();
    // Killed after so many bytes of the lines, and before their place was written.
    for length in known.length..=whole.len() as u64 {
        fs::write(rig.place(), &before).unwrap();
        fs::write(&rig.settings.path, &whole[..usize::try_from(length).unwrap()]).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&rig.settings.path).unwrap());
        let mirror = rig.mirror();
        assert!(mirror.step(), "{:?}", mirror.report());
        assert_eq!(fs::read(&rig.settings.path).unwrap(), whole, "{length}");
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&rig.settings.path).unwrap()), inode);
    }
    // Bytes that are not what the log gives, as of a file system that lost them.
    fs::write(rig.place(), &before).unwrap();
    let mut torn = whole[..usize::try_from(known.length).unwrap() + 10].to_vec();
    torn.extend_from_slice(&[0; 500]);
    fs::write(&rig.settings.path, &torn).unwrap();
    assert!(rig.mirror().step());
    assert_eq!(fs::read(&rig.settings.path).unwrap(), whole);
}

#[test]
fn closed_files_are_named_in_order_compressed_and_kept_in_number() {
    for (compress, extension) in [(Compress::None, "jsonl"), (Compress::Gzip, "gz"), (Compress::Zstd, "zst")]
    {
        let mut rig = Rig::new();
        (rig.settings.rotate_bytes, rig.settings.compress) = (4096, compress);
        let mirror = rig.mirror();
        for at in 0..20 {
            rig.add(at * 10 + 1..=at * 10 + 10);
            assert!(mirror.step(), "{:?}", mirror.report());
        }
        assert_eq!(rig.ids(), (1..=200).collect::<Vec<_>>(), "{compress:?}");
        let closed = rotate::closed(&rig.settings.path).unwrap();
        assert!(closed.len() > 3);
        assert!(closed.iter().all(|path| path.extension().unwrap() == extension), "{closed:?}");
        rig.settings.keep = 2;
        // A file of somebody else, which looks much like one.
        let other = rig.dir.path().join("out/audit-notes.jsonl");
        fs::write(&other, "mine").unwrap();
        rig.add(201..=260);
        let mirror = rig.mirror();
        assert!(mirror.step());
        rig.add(261..=262);
        assert!(mirror.step());
        assert_eq!(rotate::closed(&rig.settings.path).unwrap().len(), 2);
        assert!(other.exists());
        let ids = rig.ids();
        assert_eq!((ids.last(), ids.len()), (Some(&262), ids.iter().collect::<BTreeSet<_>>().len()));
    }
}

#[test]
fn a_rotation_that_was_cut_off_is_gone_on_with() {
    let mut rig = Rig::new();
    rig.add(1..=20);
    assert!(rig.mirror().step());
    rig.settings.compress = Compress::Gzip;
    let place: Place = serde_json::from_slice(&fs::read(rig.place()).unwrap()).unwrap();
    // Killed after the rename.
    let closed = rotate::close(&rig.settings, &place).unwrap();
    // And within the compression.
    let mut half = closed.clone().into_os_string();
    half.push(".gz.new");
    fs::write(&half, "half").unwrap();
    rig.add(21..=22);
    assert!(rig.mirror().step());
    assert_eq!(rig.ids(), (1..=22).collect::<Vec<_>>());
    assert!(!closed.exists() && !PathBuf::from(half).exists());
}

#[test]
fn trouble_in_the_directory_is_told_and_loses_nothing() {
    let rig = Rig::new();
    rig.add(1..=3);
    let mirror = rig.mirror();
    assert!(mirror.step());
    let out = rig.dir.path().join("out");
    let away = rig.dir.path().join("away");
    fs::rename(&out, &away).unwrap();
    rig.add(4..=6);
    assert!(!mirror.step());
    let report = mirror.report();
    assert!(report.error.is_some() && report.since.is_some(), "{report:?}");
    fs::rename(&away, &out).unwrap();
    assert!(mirror.step());
    assert_eq!(mirror.report(), Report { path: rig.settings.path.clone(), next: 12, ..Report::default() });
    assert_eq!(rig.ids(), (1..=6).collect::<Vec<_>>());
    // A directory in its place, and a link.
    fs::remove_file(&rig.settings.path).unwrap();
    fs::create_dir(&rig.settings.path).unwrap();
    rig.add(7..=8);
    assert!(!mirror.step());
    assert_eq!(mirror.report().behind, 4);
    fs::remove_dir(&rig.settings.path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &rig.settings.path).unwrap();
    assert!(!mirror.step());
    fs::remove_file(&rig.settings.path).unwrap();
    assert!(mirror.step());
    assert_eq!(rig.ids(), [7, 8]);
}

#[test]
fn what_others_do_to_the_file_does_not_stop_it() {
    let mut rig = Rig::new();
    rig.add(1..=2);
    let mirror = rig.mirror();
    assert!(mirror.step());
    // Renamed, as logrotate does.
    let taken = rig.dir.path().join("taken");
    fs::rename(&rig.settings.path, &taken).unwrap();
    rig.add(3..=4);
    assert!(mirror.step());
    assert_eq!(rig.ids(), [3, 4]);
    // Copied and cut.
    fs::OpenOptions::new().write(true).open(&rig.settings.path).unwrap().set_len(0).unwrap();
    rig.add(5..=6);
    assert!(mirror.step());
    assert_eq!(rig.ids(), [5, 6]);
    // Another form goes into another file.
    rig.settings.format = Format::Ocsf;
    rig.add(7..=7);
    assert!(rig.mirror().step());
    let text = fs::read_to_string(&rig.settings.path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("\"class_uid\":6003"));
    // A file that was there before the mirror keeps its content.
    let fresh = Rig::new();
    fs::write(&fresh.settings.path, "not ours\n").unwrap();
    fs::set_permissions(&fresh.settings.path, fs::Permissions::from_mode(0o600)).unwrap();
    fresh.add(1..=1);
    assert!(fresh.mirror().step());
    let closed = rotate::closed(&fresh.settings.path).unwrap();
    assert_eq!(fs::read_to_string(&closed[0]).unwrap(), "not ours\n");
}

#[test]
fn retention_is_told_how_far_it_came() {
    let rig = Rig::new();
    rig.add(1..=300);
    let mirror = rig.mirror();
    let readers = mirror.readers();
    let rules = crate::store::retention::Rules { records: Some(100), ..Default::default() };
    let retain = || {
        let mut run = crate::store::retention::Run::default();
        while rig.store.retain(&rules, &readers, &mut run, Timestamp(0)).unwrap().more {}
    };
    retain();
    assert!(mirror.report().waited_for && rig.store.get(RecordId(1)).unwrap().is_some());
    assert!(mirror.step());
    retain();
    assert!(!mirror.report().waited_for && rig.store.get(RecordId(1)).unwrap().is_none());
    assert_eq!((rig.ids(), mirror.report().lost), ((1..=300).collect(), 0));
    // Another knows how far the one before it came.
    rig.add(301..=500);
    let next = rig.mirror();
    assert!(!next.readers().is_waited_for());
    let mut run = crate::store::retention::Run::default();
    while rig.store.retain(&rules, &next.readers(), &mut run, Timestamp(0)).unwrap().more {}
    assert!(next.report().waited_for && rig.store.get(RecordId(301)).unwrap().is_some());
}
