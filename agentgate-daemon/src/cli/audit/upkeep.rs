//! `agentctl audit stats`, `backup`, `restore`, `compact` and `reindex`.
//!
//! A daemon that runs is asked; where none does, the files are opened here.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::{Failure, Session, output};
use crate::{
    chain::{PublicKey, Report, Trust},
    config::Paths,
    control::{
        client::{Client, ClientError},
        wire::{Item, Payload, Request, Upkeep, UpkeepItem},
    },
    store::{
        Store, StoreError,
        compact::Compacted,
        dump::{self, Dumped, Loader},
        stats::Stats,
        verify::verify_file,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(in super::super) enum Command {
    /// How large the log is, and what takes the room
    Stats,
    /// Write a backup of the log to a file, while it is written to, and verify it
    Backup {
        /// The file to make; nothing may be there
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Keep it also where it is found not to be whole, as a log is that was damaged before
        #[arg(long)]
        unverified: bool,
    },
    /// Verify a backup and put it in the place of the log; the gate must be stopped
    Restore {
        /// A file that `backup` made
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also where there is a log: that is kept aside, under a name with the time in it
        #[arg(long)]
        force: bool,
        /// Also where the backup is found not to be whole
        #[arg(long)]
        unverified: bool,
    },
    /// Give room that is free within the log's file back to the disk
    Compact,
    /// Make every index of the log anew from its entries; the gate must be stopped
    Reindex,
}

pub(in super::super) fn run(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Stats => {
            let stats = stats(session)?;
            show(session, &stats)
        }
        Command::Backup { file, unverified } => backup(session, file, *unverified),
        Command::Restore { file, force, unverified } => restore(session, file, *force, *unverified),
        Command::Compact => {
            let Compacted { before, after } = compact(session)?;
            if session.output.json {
                session.output.json(&Compacted { before, after })?;
            } else {
                session.output.line(&format!("{} before, {} now", size(before), size(after)))?;
            }
            session.output.flush()
        }
        Command::Reindex => {
            own(session)?.reindex()?;
            said(session, "every index is made anew")
        }
    }
}

/// The daemon; `None` where none runs.
pub(super) fn daemon(session: &Session) -> Result<Option<Client>, Failure> {
    match session.connect() {
        Ok(client) => Ok(Some(client)),
        Err(Failure::Daemon(ClientError::NotRunning { .. })) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The log of a gate that does not run.
fn own(session: &Session) -> Result<Store, Failure> {
    let path = Paths::below(&session.root).store;
    if !path.exists() {
        return Err(Failure::Invalid(Some(format!("there is no audit log at {}", path.display()))));
    }
    Ok(Store::open(path)?)
}

fn stats(session: &Session) -> Result<Stats, Failure> {
    let Some(client) = daemon(session)? else { return Ok(own(session)?.stats()?) };
    let Payload::Stats(stats) = client.ask(Request::Upkeep { ask: Upkeep::Stats })? else {
        return Err(Failure::Unexpected);
    };
    Ok(*stats)
}

fn compact(session: &Session) -> Result<Compacted, Failure> {
    let mut progress = Progress::new("copied");
    let Some(client) = daemon(session)? else {
        return Ok(own(session)?.compact(|bytes| {
            progress.add(bytes);
            true
        })?);
    };
    let mut done = None;
    client.stream(Request::Upkeep { ask: Upkeep::Compact }, true, |item| {
        let Item::Upkeep(item) = item else { return Err(Failure::Unexpected) };
        match *item {
            UpkeepItem::Copied { bytes } => progress.add(bytes),
            UpkeepItem::Compacted(compacted) => done = Some(compacted),
            UpkeepItem::Piece { .. } | UpkeepItem::Dumped(_) => return Err(Failure::Unexpected),
        }
        Ok(())
    })?;
    done.ok_or(Failure::Unexpected)
}

/// How far it is, on a terminal.
struct Progress {
    what: &'static str,
    bytes: u64,
    told: u64,
    terminal: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        use io::IsTerminal as _;
        Self { what, bytes: 0, told: 0, terminal: io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.terminal && self.bytes - self.told >= 256 << 20 {
            self.told = self.bytes;
            output::complain(&format!("{} {} so far", size(self.bytes), self.what));
        }
    }
}

pub(super) fn unusable(path: &Path) -> impl Fn(io::Error) -> Failure {
    move |source| StoreError::File { path: path.to_owned(), source }.into()
}

fn backup(session: &mut Session, file: &Path, unverified: bool) -> Result<(), Failure> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(Failure::Invalid(Some(format!("there is something at {} already", file.display()))));
    }
    let part = beside(file, "part");
    // Of one that was broken off.
    remove(&part)?;
    let made = receive(session, &part).and_then(|dumped| {
        let rows = dump::rows(&part)?;
        if rows != dumped.rows {
            let message = format!("the backup has {rows} rows of {}: try again", dumped.rows);
            return Err(Failure::Invalid(Some(message)));
        }
        if !unverified {
            whole(&verified(&part)?, "the backup, as the log that it was made of,")?;
        }
        fs::rename(&part, file).map_err(unusable(file))?;
        settled(file)?;
        Ok(dumped)
    });
    if made.is_err() {
        remove(&part)?;
    }
    let dumped = made?;
    if session.output.json {
        session.output.json(&dumped)?;
        return session.output.flush();
    }
    said(
        session,
        &format!("{} rows, {}; SHA-256 of the stream {}", dumped.rows, size(dumped.bytes), dumped.digest),
    )
}

/// Makes the file of what the log holds.
fn receive(session: &Session, part: &Path) -> Result<Dumped, Failure> {
    let mut loader = Loader::create(part)?;
    let mut progress = Progress::new("received");
    let told = if let Some(client) = daemon(session)? {
        let mut told = None;
        client.stream(Request::Upkeep { ask: Upkeep::Backup }, true, |item| {
            let Item::Upkeep(item) = item else { return Err(Failure::Unexpected) };
            match *item {
                UpkeepItem::Piece { base64 } => {
                    let piece = BASE64.decode(base64.as_bytes()).map_err(|_| Failure::Unexpected)?;
                    progress.add(piece.len() as u64);
                    loader.feed(&piece)?;
                }
                UpkeepItem::Dumped(dumped) => told = Some(dumped),
                UpkeepItem::Copied { .. } | UpkeepItem::Compacted(_) => return Err(Failure::Unexpected),
            }
            Ok(())
        })?;
        told
    } else {
        let mut failed = None;
        let told = own(session)?.dump(|piece| {
            progress.add(piece.len() as u64);
            failed = loader.feed(&piece).err();
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        told
    };
    let loaded = loader.finish(part)?;
    if told.as_ref() == Some(&loaded) { Ok(loaded) } else { Err(Failure::Unexpected) }
}

/// `file` with another end to its name, in the same directory.
pub(super) fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    file.with_file_name(name)
}

/// The names in the directory of `file` are durable.
pub(super) fn settled(file: &Path) -> Result<(), Failure> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable(directory))
}

/// Verifies a file of a log, by all keys that it names itself: whether it is what was written. Whose it is,
/// `audit verify` says.
fn verified(file: &Path) -> Result<Report, Failure> {
    let mut progress = |_, _| ();
    let report = verify_file(file, Trust::default(), &mut progress)?;
    if report.whole || report.keys.iter().all(|key| key.trusted) {
        return Ok(report);
    }
    let keys = report.keys.iter().map(|key| key.key).collect();
    Ok(verify_file(file, Trust { keys, ..Trust::default() }, &mut progress)?)
}

/// An error that says what is wrong with it, unless it is whole.
fn whole(report: &Report, what: &str) -> Result<(), Failure> {
    if report.whole {
        return Ok(());
    }
    let finding = report.findings.first().map(|finding| format!("; first: {finding}")).unwrap_or_default();
    let count = report.findings.len() as u64 + report.more;
    Err(Failure::Invalid(Some(format!(
        "{what} is not whole, with {count} findings{finding}. `agentctl audit verify` says more; --unverified \
         does it all the same"
    ))))
}

/// Locks a file of a log, as whoever has the log open does.
fn locked(path: &Path) -> Result<fs::File, Failure> {
    let file = fs::File::open(path).map_err(unusable(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Busy { path: path.to_owned() }.into()),
        Err(fs::TryLockError::Error(error)) => Err(unusable(path)(error)),
    }
}

fn restore(session: &mut Session, file: &Path, force: bool, unverified: bool) -> Result<(), Failure> {
    let path = Paths::below(&session.root).store;
    let journal = path.with_extension("journal");
    let mut notes = Vec::new();
    for there in [&path, &journal] {
        if there.exists() && !force {
            return Err(StoreError::Exists { path: there.clone() }.into());
        }
    }
    if path.exists() {
        // Whoever has it open has it locked, and that is what counts: not who runs, nor what is in it.
        drop(locked(&path)?);
    }
    let part = beside(&path, "restore");
    remove(&part)?;
    let placed = copied(file, &part, unverified).and_then(|(report, rows)| {
        replace(&part, &path, &journal, &mut notes)?;
        Ok((report, rows))
    });
    if placed.is_err() {
        remove(&part)?;
    }
    let (report, rows) = placed?;
    let store = Store::open(&path)?;
    let next = store.next_id();
    drop(store);
    let mut text = format!("{rows} rows are in place; the next record gets id {next}");
    for note in notes {
        text.push_str("; ");
        text.push_str(&note);
    }
    said(session, &text)?;
    if let Some(words) = other_key(&path, &report) {
        output::complain(&words);
    }
    Ok(())
}

/// Copies a backup to `part`, and verifies the copy. How many rows it has.
fn copied(file: &Path, part: &Path, unverified: bool) -> Result<(Report, u64), Failure> {
    let from = fs::File::open(file).map_err(unusable(file))?;
    let mut to = fs::OpenOptions::new();
    let mut to = to.write(true).create_new(true).mode(0o600).open(part).map_err(unusable(part))?;
    io::copy(&mut &from, &mut to).and_then(|_| to.sync_all()).map_err(unusable(part))?;
    drop(to);
    let report = verified(part)?;
    if !unverified {
        whole(&report, &file.display().to_string())?;
    }
    Ok((report, dump::rows(part)?))
}

/// Puts `part` in the place of the log, and what was there aside. At no moment is there no log.
fn replace(part: &Path, path: &Path, journal: &Path, notes: &mut Vec<String>) -> Result<(), Failure> {
    // Nobody opens it before its journal is out of the way.
    let _new = locked(part)?;
    let _old = if path.exists() { Some(locked(path)?) } else { None };
    let now = crate::model::Timestamp::now().0 / 1_000_000;
    let how = if path.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, part, CWD, path, how).map_err(|error| unusable(path)(error.into()))?;
    let mut aside = Vec::new();
    // Under names that go together, so that it can be opened and verified with its journal.
    let name = format!("{}.before-{now}", path.file_stem().unwrap_or_default().display());
    for (old, end) in [(part, "redb"), (journal, "journal")] {
        if old.exists() {
            let kept = path.with_file_name(format!("{name}.{end}"));
            fs::rename(old, &kept).map_err(unusable(old))?;
            aside.push(kept.display().to_string());
        }
    }
    settled(path)?;
    if !aside.is_empty() {
        notes.push(format!("what was there is kept as {}", aside.join(" and ")));
    }
    Ok(())
}

/// What to do where the log goes on under another key than the one that signed it.
fn other_key(path: &Path, report: &Report) -> Option<String> {
    let signed = report.keys.last()?.key;
    let now = fs::read_to_string(path.with_extension("pub")).ok().and_then(|pem| PublicKey::read(&pem).ok());
    match now {
        Some(now) if now == signed => None,
        now => {
            let now = now.map_or_else(|| "another".to_owned(), |now| now.to_string());
            Some(format!(
                "warning: the key that signed this log, {signed}, is not here. From now on {now} signs, and nothing \
                 vouches for it: `agentctl audit verify --key {signed} --key {now}` goes by both. To go on under \
                 the key before, put its audit.key beside the log (mode 0600) and restore once more with --force"
            ))
        }
    }
}

/// Removes a file; that there is none is as good.
fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn said(session: &mut Session, text: &str) -> Result<(), Failure> {
    if session.output.json {
        session.output.json(&serde_json::json!({ "done": text }))?;
    } else {
        session.output.line(&super::super::terminal::escape(text))?;
    }
    session.output.flush()
}

fn show(session: &mut Session, stats: &Stats) -> Result<(), Failure> {
    if session.output.json {
        session.output.json(stats)?;
        return session.output.flush();
    }
    for line in lines(stats) {
        session.output.line(&line)?;
    }
    session.output.flush()
}

fn lines(stats: &Stats) -> Vec<String> {
    let mut lines = Vec::new();
    let mut row = |name: &str, value: String| lines.push(format!("{name:<16} {value}"));
    row("records", format!("{}, {} under way; {} pruned", stats.records, stats.underway, stats.pruned));
    row("entries", format!("{}, from {} on", stats.entries, stats.first_entry));
    if let (Some(oldest), Some(newest)) = (stats.oldest, stats.newest) {
        row("begun", format!("{oldest} to {newest}"));
    }
    if stats.bodies_from > stats.first_entry {
        row("bodies", format!("dropped before entry {}", stats.bodies_from));
    }
    row("in use", size(stats.used));
    if let Some(indexed) = stats.indexed {
        let end = stats.first_entry + stats.entries;
        let behind = end.saturating_sub(indexed);
        row(
            "full text",
            if behind == 0 { "of all".to_owned() } else { format!("of all but {behind} entries") },
        );
    }
    row("growth a day", stats.growth.map_or_else(|| "too little time to tell".to_owned(), size));
    row(
        "file",
        format!("{}, {} of disk, {} free within", size(stats.file), size(stats.disk), size(stats.free)),
    );
    row("journal", size(stats.journal));
    lines.push(format!("{:<16} {:>12} {:>12} {:>12}", "TABLE", "ROWS", "BYTES", "PAGES"));
    let mut tables: Vec<_> = stats.tables.iter().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.pages));
    for table in tables {
        lines.push(format!(
            "{:<16} {:>12} {:>12} {:>12}",
            table.name,
            table.rows,
            size(table.bytes),
            size(table.pages)
        ));
    }
    lines
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 || unit == "GiB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::{
        cli::output::Output,
        model::{Kind, Record, RecordId, State, Timestamp},
        store::Write,
    };

    fn session(root: &Path) -> Session {
        let socket = Paths::below(root).control_socket;
        Session { root: root.to_owned(), socket, output: Output::to_stdout(true) }
    }

    fn put(store: &Store, ids: std::ops::Range<u64>) {
        let records: Vec<_> = ids
            .map(|id| {
                let mut record = Record::new(Kind::Exchange, Timestamp(i64::try_from(id).unwrap()));
                (record.id, record.state) = (RecordId(id), State::Done);
                record
            })
            .collect();
        store.apply(&records.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    }

    #[test]
    fn a_backup_is_made_and_put_back() {
        let root = tempfile::tempdir().unwrap();
        let path = Paths::below(root.path()).store;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut session = session(root.path());
        let file = root.path().join("backup.redb");
        assert!(
            run(&mut session, &Command::Backup { file: file.clone(), unverified: false }).is_err(),
            "no log"
        );
        assert!(!file.exists() && !beside(&file, "part").exists());
        put(&Store::open(&path).unwrap(), 1..300);
        run(&mut session, &Command::Backup { file: file.clone(), unverified: false }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(
            run(&mut session, &Command::Backup { file: file.clone(), unverified: false }).is_err(),
            "nothing is overwritten"
        );
        put(&Store::open(&path).unwrap(), 300..310);
        let restore = |force| Command::Restore { file: file.clone(), force, unverified: false };
        let error = run(&mut session, &restore(false)).unwrap_err();
        assert!(matches!(error, Failure::Store(StoreError::Exists { .. })), "{error}");
        {
            let _held = Store::open(&path).unwrap();
            let error = run(&mut session, &restore(true)).unwrap_err();
            assert!(matches!(error, Failure::Store(StoreError::Busy { .. })), "{error}");
        }
        run(&mut session, &restore(true)).unwrap();
        assert_eq!(Store::open(&path).unwrap().next_id(), RecordId(300));
        let kept = fs::read_dir(path.parent().unwrap()).unwrap();
        let kept = kept.map(|entry| entry.unwrap().path()).find(|kept| {
            kept.to_string_lossy().contains("audit.before-") && kept.extension().unwrap() == "redb"
        });
        assert_eq!(Store::open(kept.unwrap()).unwrap().next_id(), RecordId(310));
        for command in [Command::Stats, Command::Compact, Command::Reindex] {
            run(&mut session, &command).unwrap();
        }
        assert!(Store::open(&path).unwrap().get(RecordId(299)).unwrap().is_some());
    }

    #[test]
    fn what_is_no_backup_is_not_put_in_place() {
        let root = tempfile::tempdir().unwrap();
        let path = Paths::below(root.path()).store;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = root.path().join("no");
        fs::write(&file, b"no database").unwrap();
        let command = Command::Restore { file, force: true, unverified: false };
        assert!(run(&mut session(root.path()), &command).is_err());
        assert!(!path.exists());
    }

    /// A byte of a group changed, by somebody with a tool for such files.
    fn tamper(path: &Path) {
        let raw = redb::Database::open(path).unwrap();
        let transaction = raw.begin_write().unwrap();
        {
            let table = redb::TableDefinition::<(u64, u16), &[u8]>::new("packs");
            transaction.delete_table(table).unwrap();
            let meta = redb::TableDefinition::<&str, u64>::new("meta");
            transaction.open_table(meta).unwrap().insert("entries", 7).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn what_is_not_whole_is_neither_kept_nor_put_in_place() {
        let root = tempfile::tempdir().unwrap();
        let path = Paths::below(root.path()).store;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut session = session(root.path());
        let good = root.path().join("good.redb");
        put(&Store::open(&path).unwrap(), 1..300);
        run(&mut session, &Command::Backup { file: good.clone(), unverified: false }).unwrap();
        let bad = root.path().join("bad.redb");
        fs::copy(&good, &bad).unwrap();
        tamper(&bad);
        let before = fs::read(&path).unwrap();
        let restore = |unverified| Command::Restore { file: bad.clone(), force: true, unverified };
        let error = run(&mut session, &restore(false)).unwrap_err().to_string();
        assert!(error.contains("not whole") && error.contains("--unverified"), "{error}");
        assert_eq!(Store::open(&path).unwrap().next_id(), RecordId(300));
        assert!(before.len() >= 4096 && !beside(&path, "restore").exists());
        // A log that was damaged is not taken for a good one, unless told so.
        let file = root.path().join("of-bad.redb");
        let backup = |unverified| Command::Backup { file: file.clone(), unverified };
        {
            let raw = redb::Database::open(&path).unwrap();
            let transaction = raw.begin_write().unwrap();
            let groups = redb::TableDefinition::<(u64, u16), &[u8]>::new("groups");
            transaction.open_table(groups).unwrap().retain(|key, _| key.0 != 120).unwrap();
            transaction.commit().unwrap();
        }
        let error = run(&mut session, &backup(false)).unwrap_err().to_string();
        assert!(error.contains("not whole"), "{error}");
        assert!(!file.exists() && !beside(&file, "part").exists());
        run(&mut session, &backup(true)).unwrap();
        assert!(!verified(&file).unwrap().whole && verified(&good).unwrap().whole);
    }

    #[test]
    fn a_log_that_cannot_be_opened_makes_room_for_a_backup() {
        let root = tempfile::tempdir().unwrap();
        let path = Paths::below(root.path()).store;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut session = session(root.path());
        let file = root.path().join("backup.redb");
        put(&Store::open(&path).unwrap(), 1..300);
        run(&mut session, &Command::Backup { file: file.clone(), unverified: false }).unwrap();
        fs::write(&path, b"no log any more").unwrap();
        assert!(Store::open(&path).is_err());
        let restore = Command::Restore { file, force: true, unverified: false };
        {
            // Only who has it open keeps it, whatever is in it.
            let held = fs::File::open(&path).unwrap();
            held.lock().unwrap();
            let error = run(&mut session, &restore).unwrap_err();
            assert!(matches!(error, Failure::Store(StoreError::Busy { .. })), "{error}");
        }
        run(&mut session, &restore).unwrap();
        assert_eq!(Store::open(&path).unwrap().next_id(), RecordId(300));
        let kept = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept
            .filter(|kept| {
                kept.to_string_lossy().contains("audit.before-") && kept.extension().unwrap() == "redb"
            })
            .collect();
        assert_eq!(fs::read(&kept[0]).unwrap(), b"no log any more");
    }

    #[test]
    fn elsewhere_it_goes_on_under_another_key_and_says_so() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = [one.path(), other.path()].map(|root| Paths::below(root).store);
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let file = one.path().join("backup.redb");
        put(&Store::open(&paths[0]).unwrap(), 1..300);
        run(&mut session(one.path()), &Command::Backup { file: file.clone(), unverified: false }).unwrap();
        let report = verified(&file).unwrap();
        let restore = |force| Command::Restore { file: file.clone(), force, unverified: false };
        run(&mut session(other.path()), &restore(false)).unwrap();
        let words = other_key(&paths[1], &report).unwrap();
        put(&Store::open(&paths[1]).unwrap(), 300..310);
        // What it says to do does.
        let keys: Vec<PublicKey> = words
            .split_once('`')
            .unwrap()
            .1
            .split([' ', '`'])
            .filter_map(|word| word.parse().ok())
            .take(2)
            .collect();
        assert_eq!(keys.len(), 2, "{words}");
        let check = |keys: &[PublicKey]| {
            verify_file(&paths[1], Trust { keys: keys.to_vec(), ..Trust::default() }, &mut |_, _| ()).unwrap()
        };
        assert!(check(&keys).whole, "{:?}", check(&keys));
        assert!(!check(&keys[1..]).whole && !check(&keys[..1]).whole);
        // A backup of such a log is one, and can be put in place.
        let again = other.path().join("again.redb");
        run(&mut session(other.path()), &Command::Backup { file: again.clone(), unverified: false }).unwrap();
        // With the key beside it, it goes on as if nothing had happened.
        fs::copy(paths[0].with_extension("key"), paths[1].with_extension("key")).unwrap();
        run(&mut session(other.path()), &restore(true)).unwrap();
        assert_eq!(other_key(&paths[1], &report), None);
        put(&Store::open(&paths[1]).unwrap(), 300..310);
        assert!(check(&keys[..1]).whole);
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB"), (5 << 40, "5120.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
