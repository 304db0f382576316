//! What agents are given to trust, in every form that runtimes read it.
//!
//! The daemon writes it all beside its sockets ([`write`]): the bundle, what is added to a client's own
//! roots, a key store for Java, and below `system` a copy of each place where distributions keep roots,
//! with the gate's among them. `agentctl run` and `agent@.service` mount those copies over the originals,
//! in the agent's view only, for programs that read no variable.

mod java;
mod jks;
mod mirror;
mod own;
mod places;
mod subject;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

pub use self::{
    own::Own,
    places::{Kind, PLACES, Place},
};
use super::bundle::{self, BundleError, SYSTEM_BUNDLES};

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The system's roots and the gate's, PEM.
    pub bundle: PathBuf,
    /// What the gate adds to them, PEM.
    pub added: PathBuf,
    /// All of them, as a Java key store.
    pub java: PathBuf,
    /// Below it, by their paths, the copies of the system's places.
    pub system: PathBuf,
}

impl Files {
    /// Those that belong to `bundle`.
    #[must_use]
    pub fn beside(bundle: &Path) -> Self {
        let at = |name: &str| bundle.with_file_name(name);
        Self { bundle: bundle.to_owned(), added: at("ca.pem"), java: at("cacerts"), system: at("system") }
    }

    /// The copy of what is at `path`.
    fn copy_of(&self, path: &Path) -> PathBuf {
        self.system.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    pub files: Files,
    /// The system's bundle that went in, if the host has one.
    pub system: Option<PathBuf>,
    /// Places of the system that could not be copied: what reads them will not trust the gate.
    pub left_out: Vec<BundleError>,
}

/// Writes everything beside `target`, readable by everybody, with the certificates of `extra` and
/// `authority`. What is as it should be is not touched, and no directory is taken away: agents have them
/// mounted.
///
/// # Errors
/// [`BundleError`]; files may be as they were then.
pub fn write(target: &Path, extra: &[PathBuf], authority: &str) -> Result<Written, BundleError> {
    let roots = bundle::gather(&SYSTEM_BUNDLES, extra, authority)?;
    let files = Files::beside(target);
    let contents = Contents::of(&roots);
    for (path, bytes) in
        [(&files.bundle, &contents.bundle), (&files.added, &contents.added), (&files.java, &contents.java)]
    {
        mirror::put(path, bytes)?;
    }
    let copied = PLACES.iter().map(|place| {
        let from = Path::new(place.path);
        mirror::place(from, place.kind, &files.copy_of(from), &contents)
    });
    let left_out = copied.filter_map(Result::err).collect();
    Ok(Written { files, system: roots.system, left_out })
}

/// The bytes of the files.
#[derive(Debug)]
struct Contents {
    bundle: Vec<u8>,
    added: Vec<u8>,
    java: Vec<u8>,
    /// What is added, one by one: PEM, and the hash of its subject.
    each: Vec<(Vec<u8>, Option<String>)>,
}

impl Contents {
    fn of(roots: &bundle::Roots) -> Self {
        let each = roots.added.iter().map(|body| {
            let text = bundle::pem(std::slice::from_ref(body));
            let hash = CertificateDer::from_pem_slice(text.as_bytes()).ok();
            (text.into_bytes(), hash.and_then(|der| subject::hash(&der)))
        });
        let all = bundle::pem(&roots.all);
        // What is no base64 no client can read either.
        let der = CertificateDer::pem_slice_iter(all.as_bytes()).flatten().map(|der| der.to_vec());
        Self {
            java: jks::store(&der.collect::<Vec<_>>()),
            each: each.collect(),
            added: bundle::pem(&roots.added).into_bytes(),
            bundle: all.into_bytes(),
        }
    }
}

/// What an agent's view has in other places than the host: `(what, where)`, to be mounted in this order.
/// `bundle_anew`: the bundle in the view holds more than the host's. Looks at the host, in the environment
/// `variable`.
pub(super) fn covers(
    files: &Files,
    bundle_anew: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(PathBuf, PathBuf)> {
    let mut covers = Vec::new();
    for place in &PLACES {
        let path = Path::new(place.path);
        let copy = files.copy_of(path);
        // A link leads to another place.
        let there = path.symlink_metadata().is_ok_and(|there| !there.is_symlink());
        if !there || !copy.exists() {
            continue;
        }
        match place.kind {
            Kind::Bundle if bundle_anew => covers.push((files.bundle.clone(), path.to_owned())),
            Kind::Bundle | Kind::Anchors | Kind::Java => covers.push((copy, path.to_owned())),
            Kind::Directory => {
                let bundles = places::BUNDLES.iter().map(|name| (copy.join(name), path.join(name)));
                // Looked at in the copy, since that is what will be there.
                let anew: Vec<_> = bundles
                    .filter(|(copy, _)| bundle_anew && copy.symlink_metadata().is_ok_and(|m| m.is_file()))
                    .map(|(_, path)| (files.bundle.clone(), path))
                    .collect();
                covers.push((copy, path.to_owned()));
                covers.extend(anew);
            }
        }
    }
    let covered = |path: &Path| covers.iter().any(|(_, place)| path.starts_with(place));
    let stores: Vec<PathBuf> = java::stores(variable).into_iter().filter(|path| !covered(path)).collect();
    covers.extend(stores.into_iter().map(|path| (files.java.clone(), path)));
    covers
}

#[cfg(test)]
mod tests;
