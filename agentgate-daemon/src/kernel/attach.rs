//! Attaching: all programs on the cgroup or none, as pinned links; on a restart the links stay and
//! get the new programs in place.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use aya::{Ebpf, programs::ProgramInfo};

use super::{
    KernelError,
    cgroup::Guarded,
    link::{self, CgroupLink, LinkInfo},
    load::{HOOKS, descriptor},
    pin::{self, PinDirectory},
    step,
};

/// One change, and what undoes it.
enum Change {
    Created { pin: PathBuf, _link: CgroupLink },
    Updated { name: &'static str, link: CgroupLink, before: OwnedFd },
}

/// Puts every program on its hook. On an error what was changed is undone: what guarded the cgroup
/// before guards it again, and nothing else does.
pub(super) fn attach(
    ebpf: &Ebpf,
    guarded: &Guarded,
    pins: &PinDirectory,
) -> Result<Vec<CgroupLink>, KernelError> {
    let existing = existing(guarded, pins)?;
    strangers(guarded, &existing)?;
    let mut changes = Vec::with_capacity(HOOKS.len());
    for ((name, hook), link) in HOOKS.into_iter().zip(existing) {
        match change(ebpf, guarded, pins, name, hook, link) {
            Ok(change) => changes.push(change),
            Err(error) => {
                undo(changes);
                return Err(error);
            }
        }
    }
    Ok(changes
        .into_iter()
        .map(|change| match change {
            Change::Created { _link: link, .. } | Change::Updated { link, .. } => link,
        })
        .collect())
}

/// The pinned links, in the order of [`HOOKS`].
fn existing(
    guarded: &Guarded,
    pins: &PinDirectory,
) -> Result<Vec<Option<(CgroupLink, LinkInfo)>>, KernelError> {
    HOOKS.into_iter().map(|(name, _)| opened(guarded, pins, name)).collect()
}

fn opened(
    guarded: &Guarded,
    pins: &PinDirectory,
    name: &'static str,
) -> Result<Option<(CgroupLink, LinkInfo)>, KernelError> {
    let pin = pins.pin(name);
    if !pin.exists() {
        return Ok(None);
    }
    let shown = pin.display().to_string();
    let link = CgroupLink::open(&pin).map_err(step(&shown))?;
    let info = link.info().map_err(step(&shown))?;
    if info.cgroup == 0 {
        // The cgroup was removed and the link died with it; another cgroup bears the name.
        tracing::warn!(pin = shown, "the pinned link was on a cgroup that is gone");
        std::fs::remove_file(&pin).map_err(step(&shown))?;
        return Ok(None);
    }
    if info.cgroup != guarded.id {
        return Err(step(&shown)(std::io::Error::other(format!(
            "the pinned link guards another cgroup (id {}, not {}): give this daemon a pin directory of its own",
            info.cgroup, guarded.id
        ))));
    }
    Ok(Some((link, info)))
}

/// Refuses a cgroup that programs of ours guard through pins elsewhere: two sets in series would
/// send connections to two listeners.
fn strangers(guarded: &Guarded, existing: &[Option<(CgroupLink, LinkInfo)>]) -> Result<(), KernelError> {
    for ((name, hook), link) in HOOKS.into_iter().zip(existing) {
        let own = link.as_ref().map(|(_, info)| info.program);
        let shown = format!("asking what is attached at {name}");
        for id in link::attached(guarded.directory.as_fd(), hook).map_err(step(&shown))? {
            if own != Some(id) && named(id).map_err(step(&shown))?.as_deref() == Some(name) {
                return Err(KernelError::AlreadyGuarded { cgroup: guarded.path.display().to_string() });
            }
        }
    }
    Ok(())
}

fn named(id: u32) -> Result<Option<String>, aya::programs::ProgramError> {
    aya::programs::loaded_programs()
        .find(|info| info.as_ref().is_ok_and(|info| info.id() == id))
        .transpose()
        .map(|info: Option<ProgramInfo>| info.and_then(|info| info.name_as_str().map(str::to_owned)))
}

fn change(
    ebpf: &Ebpf,
    guarded: &Guarded,
    pins: &PinDirectory,
    name: &'static str,
    hook: link::AttachType,
    existing: Option<(CgroupLink, LinkInfo)>,
) -> Result<Change, KernelError> {
    let program = descriptor(ebpf, name)?;
    if let Some((link, info)) = existing {
        let before =
            link::program(info.program).map_err(step(&format!("keeping the program before {name}")))?;
        link.update(program).map_err(step(&format!("replacing {name}")))?;
        return Ok(Change::Updated { name, link, before });
    }
    let link = CgroupLink::create(program, guarded.directory.as_fd(), hook)
        .map_err(step(&format!("attaching {name}")))?;
    let pin = pins.pin(name);
    link.pin(&pin).map_err(step(&format!("pinning {name}")))?;
    Ok(Change::Created { pin, _link: link })
}

/// Latest first, so that refusing outlasts redirecting.
fn undo(changes: Vec<Change>) {
    for change in changes.into_iter().rev() {
        match change {
            Change::Created { pin, _link } => pin::remove(&pin),
            Change::Updated { name, link, before } => {
                if let Err(error) = link.update(before.as_fd()) {
                    tracing::error!(program = name, %error, "the program before cannot be put back; the new one stays");
                }
            }
        }
    }
}
