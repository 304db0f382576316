//! The audit log on file systems of the test's own: one that may not be written, and one that is full.

#![expect(clippy::unwrap_used, reason = "a fault of the set-up fails the test")]
#![expect(unsafe_code, reason = "unshare(2) of a thread that the test made for it")]

use std::{fs, path::Path};

use agentgate::{
    model::{Kind, Record, RecordId, State, Timestamp},
    store::{Store, StoreError},
};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};

/// Runs `test` on a small file system that nobody else sees.
fn on_a_disk(size: &str, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
            // SAFETY: the flags touch no file descriptors and no memory that others rely on.
            unsafe { rustix::thread::unshare_unsafe(flags) }.expect("a namespace needs root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let options = std::ffi::CString::new(format!("size={size}")).unwrap();
            mount("none", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
            test(dir.path());
        });
    });
}

/// Makes the mount read-only, or writable again.
fn set_writable(at: &Path, writable: bool) {
    let flags = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
    mount_remount(at, flags, "").unwrap();
}

#[test]
#[ignore = "needs root: mounts a file system in a namespace of its own"]
fn a_read_only_file_system_is_told() {
    on_a_disk("16m", |dir| {
        let path = dir.join("audit.redb");
        set_writable(dir, false);
        let none = Store::open(&path).unwrap_err();
        assert_eq!(none.code(), "store_file");
        assert!(none.to_string().contains("Read-only file system"), "{none}");
        set_writable(dir, true);
        drop(Store::open(&path).unwrap());
        let before = fs::read(&path).unwrap();
        set_writable(dir, false);
        let error = Store::open(&path).unwrap_err();
        assert!(error.to_string().contains("Read-only file system"), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        set_writable(dir, true);
        Store::open(&path).unwrap();
    });
}

#[test]
#[ignore = "needs root: mounts a file system in a namespace of its own"]
fn a_full_disk_is_told_and_room_again_is_enough() {
    on_a_disk("8m", |dir| {
        let path = dir.join("audit.redb");
        let filler = dir.join("filler");
        let fill = || {
            let mut file = fs::File::create(&filler).unwrap();
            while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        };
        // Nothing is half made.
        fill();
        let error = Store::open(&path).unwrap_err();
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert!(matches!(error, StoreError::File { .. } | StoreError::Redb(_) | StoreError::Journal(_)));
        fs::remove_file(&filler).unwrap();
        let store = std::sync::Arc::new(Store::open(&path).unwrap());
        let options = agentgate::audit::AuditOptions {
            retry: std::time::Duration::from_millis(5),
            ..agentgate::audit::AuditOptions::default()
        };
        let (audit, thread) = agentgate::audit::Audit::start(store.clone(), options);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let record = || Record::new(Kind::Exchange, Timestamp(1));
            let mut granted = vec![audit.note(record()).await.unwrap()];
            fill();
            // What was reserved before is there to be used.
            let refused = loop {
                let mut large = record();
                large.note = Some(format!("{}{}", granted.len(), "x".repeat(60_000)));
                match audit.note(large).await {
                    Ok(id) => granted.push(id),
                    Err(error) => break error,
                }
                assert!(granted.len() < 10_000, "a full disk takes everything");
            };
            assert_eq!(refused.code(), "audit_unavailable");
            assert!(refused.to_string().contains("No space left on device"), "{refused}");
            fs::remove_file(&filler).unwrap();
            let last = loop {
                match audit.note(record()).await {
                    Ok(id) => break id,
                    Err(error) => assert_eq!(error.code(), "audit_unavailable"),
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(last, RecordId(granted.len() as u64 + 1));
            granted.push(last);
            thread.drain(std::time::Duration::from_secs(20)).await;
            for id in granted {
                assert_eq!(store.get(id).unwrap().unwrap().state, State::Done, "{id}");
            }
        });
    });
}
