//! Reloads, edits and the watcher, on files in a directory of their own.

use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::policy::{Given, HostFacts, Judgement, RequestContext, Scheme};

const GOOD: &str = "version = 1\nmode = \"enforce\"\n";

struct Files(TempDir);

impl Files {
    fn new(policy: Option<&str>) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("state")).unwrap();
        if let Some(policy) = policy {
            files.write("policy.toml", policy);
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn handle(&self) -> PolicyHandle {
        PolicyHandle::load(PolicyPaths {
            policy: self.path("policy.toml"),
            lists: self.path("lists"),
            mode: self.path("state/mode"),
        })
    }
}

/// The rule that decides a request for `host`.
fn rule(handle: &PolicyHandle, host: &str) -> String {
    let name = crate::model::Host::parse(host).unwrap();
    let subject = crate::model::Subject::unknown(crate::model::SessionId("test@1".to_owned()), 1, 0);
    let context = RequestContext {
        original: "203.0.113.7:443".parse().unwrap(),
        scheme: Scheme::Https,
        sni: Some(&name),
        given: Given::Names(std::slice::from_ref(&name)),
        subject: &subject,
        body: Default::default(),
    };
    let head = http::Request::builder().uri("/").header("host", host).body(()).unwrap().into_parts().0;
    let judgement: Judgement = handle.current().judge(context, head);
    judgement.verdict().rule.clone()
}

#[test]
fn good_at_the_start() {
    let files = Files::new(Some(GOOD));
    fs::create_dir(files.path("lists")).unwrap();
    files.write("lists/allow.txt", "a.example\n");
    let handle = files.handle();
    let status = handle.status();
    assert_eq!((status.generation, status.summary.allow), (1, 1));
    assert!(status.errors.is_empty() && status.loaded_at.is_some() && !status.mode_overridden);
    assert_eq!(rule(&handle, "a.example"), "allow:a.example");
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["mode"], "enforce", "flat on the wire: {json}");
    assert_eq!(serde_json::from_value::<PolicyStatus>(json).unwrap(), status);
}

#[test]
fn broken_or_missing_at_the_start_lets_nothing_through() {
    let not_utf8 = |files: &Files| fs::write(files.path("policy.toml"), b"version = 1\n# \xff\n").unwrap();
    let large = |files: &Files| {
        let file = fs::File::create(files.path("policy.toml")).unwrap();
        file.set_len(files::LARGEST + 1).unwrap();
    };
    let directory = |files: &Files| fs::create_dir(files.path("policy.toml")).unwrap();
    let fifo = |files: &Files| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            files.path("policy.toml"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
    };
    let bad_list = |files: &Files| {
        files.write("policy.toml", "version = 1\nmode = \"audit\"\n");
        fs::create_dir(files.path("lists")).unwrap();
        files.write("lists/deny.txt", "\nhttps://x/\n");
    };
    type Prepare<'a> = &'a dyn Fn(&Files);
    let rows: [(Prepare<'_>, &str); 8] = [
        (&|_| {}, "there is no policy"),
        (&|files| files.write("policy.toml", "version = 1\nmode = \"off\"\n"), "policy.toml:2:8: `off`"),
        (&|files| files.write("policy.toml", ""), "missing key `version`"),
        (&not_utf8, "line 2 is not UTF-8"),
        (&large, "larger than 16 MiB"),
        (&directory, "not a regular file"),
        (&fifo, "not a regular file"),
        (&bad_list, "deny.txt:2:1:"),
    ];
    for (prepare, expect) in rows {
        let files = Files::new(None);
        prepare(&files);
        let handle = files.handle();
        let status = handle.status();
        assert!(status.errors.iter().any(|error| error.contains(expect)), "{expect}: {:?}", status.errors);
        assert_eq!((status.summary.mode, status.loaded_at), (Mode::Enforce, None));
        assert_eq!(rule(&handle, "a.example"), "mode:enforce");

        let _ = fs::remove_file(files.path("policy.toml"));
        let _ = fs::remove_dir(files.path("policy.toml"));
        let _ = fs::remove_file(files.path("lists/deny.txt"));
        files.write("policy.toml", "version = 1\nmode = \"blocklist\"\n");
        let mended = handle.reload().unwrap();
        assert_eq!((mended.generation, mended.errors.len()), (2, 0), "{expect}");
        assert_eq!(rule(&handle, "a.example"), "mode:blocklist");
    }
}

#[test]
fn broken_at_reload_keeps_the_last_good() {
    let files = Files::new(Some("version = 1\nhosts.allow = [\"a.example\"]\n"));
    let handle = files.handle();
    let generation = handle.subscribe();
    for (policy, expect) in
        [(Some("version = 1\nmode = 1\n"), "policy.toml:2:8"), (None, "there is no policy")]
    {
        match policy {
            Some(text) => files.write("policy.toml", text),
            None => fs::remove_file(files.path("policy.toml")).unwrap(),
        }
        let status = handle.reload().unwrap_err();
        assert!(status.errors[0].contains(expect), "{:?}", status.errors);
        assert_eq!(status, handle.status());
        assert_eq!((status.generation, status.summary.allow), (1, 1));
        assert_eq!(rule(&handle, "a.example"), "allow:a.example");
        assert!(!generation.has_changed().unwrap());
    }
    files.write("policy.toml", "version = 1\nhosts.allow = [\"b.example\"]\n");
    let status = handle.reload().unwrap();
    assert!(status.errors.is_empty());
    assert_eq!(status.generation, 2);
    assert_eq!(*generation.borrow(), 2);
    assert_eq!(rule(&handle, "a.example"), "mode:enforce");
    assert_eq!(rule(&handle, "b.example"), "allow:b.example");
}

#[test]
fn the_same_again_is_no_other_generation() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    files.write("policy.toml", "# a comment\nversion = 1\n");
    assert_eq!(handle.reload().unwrap().generation, 1);
    files.write("policy.toml", "broken");
    assert!(handle.reload().is_err());
    files.write("policy.toml", GOOD);
    let status = handle.reload().unwrap();
    assert_eq!((status.generation, status.errors.len()), (1, 0));
}

#[test]
fn list_edits_take_effect() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    assert!(handle.edit_list(List::Allow, Edit::Add, "*.Example.com").unwrap());
    assert_eq!(handle.status().generation, 2);
    assert_eq!(rule(&handle, "a.example.com"), "allow:*.example.com");
    assert!(!handle.edit_list(List::Allow, Edit::Add, "*.example.com").unwrap());
    assert!(handle.edit_list(List::Deny, Edit::Add, "a.example.com").unwrap());
    assert_eq!(rule(&handle, "a.example.com"), "deny:a.example.com");
    let allow = fs::read_to_string(files.path("lists/allow.txt")).unwrap();
    assert_eq!(allow, "*.example.com\n", "denying takes nothing off the allow list");
    assert!(handle.edit_list(List::Deny, Edit::Remove, "a.example.com").unwrap());
    assert_eq!(rule(&handle, "a.example.com"), "allow:*.example.com");
    assert_eq!(handle.edit_list(List::Allow, Edit::Add, "a/b").unwrap_err().code(), "invalid_pattern");

    files.write("policy.toml", "broken");
    let error = handle.edit_list(List::Deny, Edit::Add, "b.example.com").unwrap_err();
    assert_eq!(error.code(), "policy_broken");
    assert!(error.to_string().contains("policy.toml:1:"), "{error}");
    assert_eq!(rule(&handle, "b.example.com"), "allow:*.example.com", "the last good stays");
    files.write("policy.toml", GOOD);
    handle.reload().unwrap();
    assert_eq!(rule(&handle, "b.example.com"), "deny:b.example.com", "what was written counts then");
}

#[test]
fn edits_at_one_time_lose_nothing() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let handle = &handle;
            scope.spawn(move || {
                for n in 0..8 {
                    assert!(
                        handle.edit_list(List::Allow, Edit::Add, &format!("h{n}.t{thread}.example")).unwrap()
                    );
                }
            });
        }
    });
    assert_eq!(handle.status().summary.allow, 32);
    assert_eq!(handle.status().generation, 33);
    assert_eq!(handle.reload().unwrap().summary.allow, 32);
}

#[test]
fn mode_override() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    let status = handle.set_mode(Some(Mode::Audit)).unwrap();
    assert_eq!((status.summary.mode, status.mode_overridden), (Mode::Audit, true));
    assert_eq!(rule(&handle, "a.example"), "mode:audit");
    assert_eq!(fs::read_to_string(files.path("policy.toml")).unwrap(), GOOD, "people's file stays");
    assert_eq!(files.handle().status().summary.mode, Mode::Audit, "it outlasts a restart");
    let status = handle.set_mode(None).unwrap();
    assert_eq!((status.summary.mode, status.mode_overridden), (Mode::Enforce, false));
    files.write("state/mode", "off\n");
    assert!(handle.reload().unwrap_err().errors[0].contains("\"off\" is not a mode"));
}

/// Long enough that only a watcher that sees nothing takes it.
const DEADLINE: Duration = Duration::from_secs(20);

async fn next(generation: &mut watch::Receiver<u64>) -> u64 {
    tokio::time::timeout(DEADLINE, generation.changed()).await.expect("the change was seen").unwrap();
    *generation.borrow_and_update()
}

fn rename_over(path: &Path, text: &str) {
    let temporary = path.with_extension("swp");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}

#[tokio::test]
async fn watcher_sees_every_kind_of_edit() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    let (drain, draining) = watch::channel(false);
    let mut generation = handle.subscribe();
    let watching = tokio::spawn(handle.clone().watch(draining));

    // An editor that writes a new file and renames it over the old one, twice: the watch must survive.
    rename_over(&files.path("policy.toml"), "version = 1\nhosts.allow = [\"a.example\"]\n");
    assert_eq!(next(&mut generation).await, 2);
    rename_over(&files.path("policy.toml"), "version = 1\nhosts.allow = [\"b.example\"]\n");
    assert_eq!(next(&mut generation).await, 3);
    assert_eq!(rule(&handle, "b.example"), "allow:b.example");

    // In place.
    files.write("policy.toml", "version = 1\nhosts.allow = [\"c.example\"]\n");
    assert_eq!(next(&mut generation).await, 4);

    // A directory that was not there, with a file in it.
    fs::create_dir(files.path("lists")).unwrap();
    files.write("lists/deny.txt", "c.example\n");
    assert_eq!(next(&mut generation).await, 5);
    assert_eq!(rule(&handle, "c.example"), "deny:c.example");
    fs::remove_file(files.path("lists/deny.txt")).unwrap();
    assert_eq!(next(&mut generation).await, 6);

    // A directory that is replaced as a whole, then a change within the new one.
    fs::create_dir(files.path("fresh")).unwrap();
    files.write("fresh/allow.txt", "d.example\n");
    fs::rename(files.path("lists"), files.path("old")).unwrap();
    fs::rename(files.path("fresh"), files.path("lists")).unwrap();
    assert_eq!(next(&mut generation).await, 7);
    files.write("lists/allow.txt", "e.example\n");
    assert_eq!(next(&mut generation).await, 8);
    assert_eq!(rule(&handle, "e.example"), "allow:e.example");

    // The mode, and an edit through the handle, which the watcher sees too without reloading twice.
    files.write("state/mode", "audit\n");
    assert_eq!(next(&mut generation).await, 9);
    let editing = handle.clone();
    tokio::task::spawn_blocking(move || editing.edit_list(List::Deny, Edit::Add, "f.example"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next(&mut generation).await, 10);
    rename_over(&files.path("state/mode"), "enforce\n");
    assert_eq!(next(&mut generation).await, 11);

    drain.send_replace(true);
    tokio::time::timeout(DEADLINE, watching).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn watcher_ends_with_the_sender_and_keeps_the_last_good() {
    let files = Files::new(Some("version = 1\nhosts.allow = [\"a.example\"]\n"));
    let handle = files.handle();
    let (drain, draining) = watch::channel(false);
    let mut generation = handle.subscribe();
    // Changed between the load and the watch: seen as well.
    files.write("policy.toml", "version = 1\nhosts.allow = [\"b.example\"]\n");
    let watching = tokio::spawn(handle.clone().watch(draining));
    assert_eq!(next(&mut generation).await, 2);
    rename_over(&files.path("policy.toml"), "broken");
    rename_over(&files.path("policy.toml"), "version = 1\nhosts.allow = [\"c.example\"]\n");
    assert_eq!(next(&mut generation).await, 3);
    assert!(handle.status().errors.is_empty());
    drop(drain);
    tokio::time::timeout(DEADLINE, watching).await.unwrap().unwrap().unwrap();
}

/// What is known of the host is told to the policy in force and to those that follow; the same again is
/// no news.
#[test]
fn the_hosts_addresses_outlive_a_reload() {
    let files = Files::new(Some(GOOD));
    let handle = files.handle();
    let told = handle.subscribe();
    let own = "203.0.113.200".parse().unwrap();
    let admits = || handle.current().addresses().admits(own, 443).is_ok();
    assert!(admits());
    let facts = HostFacts { addresses: vec![own], nat64: Vec::new() };
    assert!(handle.set_host(facts.clone()));
    assert!(!admits());
    assert_eq!((handle.status().generation, *told.borrow()), (2, 2));
    assert!(!handle.set_host(facts));
    assert_eq!(handle.status().generation, 2);
    files.write("policy.toml", "version = 1\nmode = \"enforce\"\n[hosts]\nallow = ['*']\n");
    handle.reload().unwrap();
    assert_eq!(handle.status().generation, 3);
    assert!(!admits());
    assert!(handle.set_host(HostFacts::default()));
    assert!(admits());
}
