//! Namespaces of one thread, for tests that attach programs; and the commands that furnish them.

use std::{process::Command, sync::Mutex};

/// Runs a test in a mount namespace and a network namespace of its own: those of one thread, and of what
/// it starts.
pub(crate) fn alone(test: impl FnOnce() + Send) {
    // One after another: a process that another thread is about to start holds every descriptor
    // until its exec(2), also locks and mounts.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::NEWNET;
                // SAFETY: the flags touch no file descriptors and no memory that others rely on.
                unsafe { rustix::thread::unshare_unsafe(flags) }.expect("namespaces need root");
                test();
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs a command that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
