//! A guard over nothing, for tests in one process.

use std::{path::Path, sync::Arc};

use agentgate::{
    app::Guard,
    control::{EnrolError, Enroller, Process},
    kernel::GuardedCgroup,
};

/// The kernel is a fake one, and nobody is enrolled.
pub(crate) fn over_nothing(root: &Path) -> Guard {
    #[derive(Debug)]
    struct Nobody;
    impl Enroller for Nobody {
        fn enrol(&self, process: &Process) -> Result<String, EnrolError> {
            Err(EnrolError::ProcessGone { pid: process.pid() })
        }
    }
    Guard {
        cgroup: GuardedCgroup::on_mount("/", root, &root.join("guarded")).unwrap(),
        enroller: Arc::new(Nobody),
        programs: Vec::new(),
    }
}
