//! `agentctl audit stats`, `backup`, `restore`, `compact` and `reindex`.
//!
//! A daemon that runs is asked; where none does, the files are opened here.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;

use super::super::{Failure, Session, output};
use crate::{
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
    },
};

#[derive(Debug, clap::Subcommand)]
pub(in super::super) enum Command {
    /// How large the log is, and what takes the room
    Stats,
    /// Write a backup of the log to a file, while it is written to
    Backup {
        /// The file to make; nothing may be there
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put a backup in the place of the log; the gate must be stopped
    Restore {
        /// A file that `backup` made
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also where there is a log: that is kept aside, under a name with the time in it
        #[arg(long)]
        force: bool,
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
        Command::Backup { file } => backup(session, file),
        Command::Restore { file, force } => restore(session, file, *force),
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
    match client.ask(Request::Upkeep { ask: Upkeep::Stats })? {
        Payload::Stats(stats) => Ok(*stats),
        _ => Err(Failure::Unexpected),
    }
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
    client.stream(Request::Upkeep { ask: Upkeep::Compact }, true, |item| match item {
        Item::Upkeep(item) => match *item {
            UpkeepItem::Copied { bytes } => {
                progress.add(bytes);
                Ok(())
            }
            UpkeepItem::Compacted(compacted) => {
                done = Some(compacted);
                Ok(())
            }
            UpkeepItem::Piece { .. } | UpkeepItem::Dumped(_) => Err(Failure::Unexpected),
        },
        _ => Err(Failure::Unexpected),
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

fn backup(session: &mut Session, file: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(Failure::Invalid(Some(format!("there is something at {} already", file.display()))));
    }
    let part = beside(file, "part");
    // Of one that was broken off.
    if part.exists() {
        fs::remove_file(&part).map_err(unusable(&part))?;
    }
    let made = receive(session, &part).and_then(|dumped| {
        let rows = dump::rows(&part)?;
        if rows != dumped.rows {
            let message = format!("the backup has {rows} rows of {}: try again", dumped.rows);
            return Err(Failure::Invalid(Some(message)));
        }
        fs::rename(&part, file).map_err(unusable(file))?;
        settled(file)?;
        Ok(dumped)
    });
    if made.is_err() && part.exists() {
        fs::remove_file(&part).map_err(unusable(&part))?;
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
        client.stream(Request::Upkeep { ask: Upkeep::Backup }, true, |item| match item {
            Item::Upkeep(item) => match *item {
                UpkeepItem::Piece { base64 } => {
                    let piece = BASE64.decode(base64.as_bytes()).map_err(|_| Failure::Unexpected)?;
                    progress.add(piece.len() as u64);
                    Ok(loader.feed(&piece)?)
                }
                UpkeepItem::Dumped(dumped) => {
                    told = Some(dumped);
                    Ok(())
                }
                UpkeepItem::Copied { .. } | UpkeepItem::Compacted(_) => Err(Failure::Unexpected),
            },
            _ => Err(Failure::Unexpected),
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

fn restore(session: &mut Session, file: &Path, force: bool) -> Result<(), Failure> {
    let path = Paths::below(&session.root).store;
    let journal = path.with_extension("journal");
    if daemon(session)?.is_some() {
        return Err(Failure::Invalid(Some(
            "the gate runs: stop it first (systemctl stop agentgated)".into(),
        )));
    }
    let there = path.exists() || journal.exists();
    if path.exists() {
        // Also says whether somebody has it open; and what its journal holds is in it then.
        if !force {
            return Err(StoreError::Exists { path }.into());
        }
        drop(Store::open(&path)?);
    } else if there && !force {
        return Err(StoreError::Exists { path: journal }.into());
    }
    let rows = dump::rows(file)?;
    let part = beside(&path, "restore");
    fs::copy(file, &part).map_err(unusable(&part))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o600)).map_err(unusable(&part))?;
    fs::File::open(&part).and_then(|file| file.sync_all()).map_err(unusable(&part))?;
    let now = crate::model::Timestamp::now().0 / 1_000_000;
    let mut aside = Vec::new();
    for old in [&path, &journal] {
        if old.exists() {
            let kept = beside(old, &format!("before-{now}"));
            fs::rename(old, &kept).map_err(unusable(old))?;
            aside.push(kept.display().to_string());
        }
    }
    fs::rename(&part, &path).map_err(unusable(&path))?;
    settled(&path)?;
    let store = Store::open(&path)?;
    let next = store.next_id();
    drop(store);
    let mut text = format!("{rows} rows are in place; the next record gets id {next}");
    if !aside.is_empty() {
        text.push_str(&format!("; what was there is kept as {}", aside.join(" and ")));
    }
    said(session, &text)
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
        assert!(run(&mut session, &Command::Backup { file: file.clone() }).is_err(), "no log");
        assert!(!file.exists() && !beside(&file, "part").exists());
        put(&Store::open(&path).unwrap(), 1..300);
        run(&mut session, &Command::Backup { file: file.clone() }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(
            run(&mut session, &Command::Backup { file: file.clone() }).is_err(),
            "nothing is overwritten"
        );
        put(&Store::open(&path).unwrap(), 300..310);
        let restore = |force| Command::Restore { file: file.clone(), force };
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
        let kept = kept
            .map(|entry| entry.unwrap().path())
            .find(|kept| kept.to_string_lossy().contains("audit.redb.before-"));
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
        let command = Command::Restore { file, force: true };
        assert!(run(&mut session(root.path()), &command).is_err());
        assert!(!path.exists());
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
