//! Where distributions keep roots for programs that read no variable.

/// What there is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory in which OpenSSL looks for a root by the hash of its subject; bundles may be in it.
    Directory,
    /// A directory of single roots, which p11-kit reads (GnuTLS does through it).
    Anchors,
    /// All roots in one PEM file.
    Bundle,
    /// All roots in a Java key store.
    Java,
}

/// A place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub path: &'static str,
    pub kind: Kind,
}

const fn place(path: &'static str, kind: Kind) -> Place {
    Place { path, kind }
}

/// All of them, each directory before what is in it. Where one is a link, it leads to another.
/// `agent@.service` mounts the same.
pub const PLACES: [Place; 16] = [
    // Debian, Ubuntu, Alpine, Gentoo, NixOS; and links on the others.
    place("/etc/ssl/certs", Kind::Directory),
    place("/etc/ssl/cert.pem", Kind::Bundle),
    // Fedora, RHEL, Amazon.
    place("/etc/pki/tls/certs", Kind::Directory),
    place("/etc/pki/tls/cert.pem", Kind::Bundle),
    place("/etc/pki/ca-trust/extracted/pem/directory-hash", Kind::Directory),
    place("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", Kind::Bundle),
    place("/etc/pki/ca-trust/extracted/java/cacerts", Kind::Java),
    place("/etc/pki/ca-trust/source/anchors", Kind::Anchors),
    // Arch.
    place("/etc/ca-certificates/extracted/cadir", Kind::Directory),
    place("/etc/ca-certificates/extracted/tls-ca-bundle.pem", Kind::Bundle),
    place("/etc/ca-certificates/trust-source/anchors", Kind::Anchors),
    // SUSE.
    place("/etc/ssl/ca-bundle.pem", Kind::Bundle),
    place("/var/lib/ca-certificates/openssl", Kind::Directory),
    place("/var/lib/ca-certificates/ca-bundle.pem", Kind::Bundle),
    place("/var/lib/ca-certificates/java-cacerts", Kind::Java),
    place("/etc/pki/trust/anchors", Kind::Anchors),
];

/// Names of bundles in a directory of single roots.
pub(super) const BUNDLES: [&str; 4] = ["ca-certificates.crt", "ca-bundle.crt", "ca-bundle.pem", "cert.pem"];

/// Name of a Java key store.
pub(super) const JAVA: &str = "cacerts";
