//! What is written for agents to trust, and what of it is mounted where.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use super::*;

fn contents() -> Contents {
    Contents {
        bundle: b"BUNDLE".to_vec(),
        added: b"ADDED".to_vec(),
        java: b"JAVA".to_vec(),
        each: vec![(b"ONE".to_vec(), Some("0a0b0c0d".into())), (b"TWO".to_vec(), None)],
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_directory_is_copied_with_the_gate_s_roots_in_it_and_follows_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let (from, copy) = (dir.path().join("certs"), dir.path().join("system/etc/ssl/certs"));
    fs::create_dir_all(from.join("java")).unwrap();
    fs::create_dir(from.join("other")).unwrap();
    fs::write(from.join("Root.pem"), "ROOT").unwrap();
    fs::write(from.join("ca-certificates.crt"), "ROOT").unwrap();
    fs::write(from.join("java/cacerts"), "java's").unwrap();
    fs::write(from.join("secret.key"), "KEY").unwrap();
    fs::set_permissions(from.join("secret.key"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("Root.pem", from.join("0a0b0c0d.0")).unwrap();
    let place = || mirror::place(&from, Kind::Directory, &copy, &contents()).unwrap();
    place();
    assert_eq!(read(&copy.join("ca-certificates.crt")), "BUNDLE");
    assert_eq!(read(&copy.join("java/cacerts")), "JAVA");
    // Beside another root of the same subject, through links as they are.
    assert_eq!(
        (read(&copy.join("0a0b0c0d.0")), read(&copy.join("0a0b0c0d.1"))),
        ("ROOT".into(), "ONE".into())
    );
    assert_eq!(read(&copy.join("agentgate-1.pem")), "TWO");
    assert!(!copy.join("secret.key").exists() && !copy.join("other").exists());
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o755);

    // Agents have the directory mounted: it stays the same one, and so do files that are as they were.
    let numbers = || [&copy, &copy.join("Root.pem")].map(|path| fs::metadata(path).unwrap().ino());
    let before = numbers();
    fs::remove_file(from.join("0a0b0c0d.0")).unwrap();
    fs::write(from.join("New.pem"), "NEW").unwrap();
    place();
    assert_eq!(numbers(), before);
    assert_eq!((read(&copy.join("0a0b0c0d.0")), read(&copy.join("New.pem"))), ("ONE".into(), "NEW".into()));
    assert!(!copy.join("0a0b0c0d.1").exists());

    fs::remove_dir_all(&from).unwrap();
    place();
    assert!(!copy.exists());
}

#[test]
fn files_and_links_are_places_too() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("bundle.pem"), "ROOT").unwrap();
    symlink("bundle.pem", at("link.pem")).unwrap();
    fs::create_dir(at("anchors")).unwrap();
    for (name, kind, copied) in [
        ("bundle.pem", Kind::Bundle, true),
        ("bundle.pem", Kind::Java, true),
        // It leads to another place.
        ("link.pem", Kind::Bundle, false),
        ("anchors", Kind::Bundle, false),
        ("bundle.pem", Kind::Anchors, false),
        ("anchors", Kind::Anchors, true),
        ("missing", Kind::Bundle, false),
    ] {
        mirror::place(&at(name), kind, &at("copy"), &contents()).unwrap();
        assert_eq!(at("copy").exists(), copied, "{name} {kind:?}");
    }
    mirror::place(&at("bundle.pem"), Kind::Bundle, &at("copy"), &contents()).unwrap();
    assert_eq!(read(&at("copy")), "BUNDLE");
}

#[test]
fn everything_is_written_beside_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let written = write(&dir.path().join("ca-bundle.pem"), &[], &authority.pem()).unwrap();
    let files = &written.files;
    assert!(read(&files.bundle).contains(read(&files.added).trim()));
    assert_eq!(read(&files.added).matches("BEGIN").count(), 1);
    // The authority, as it is, in Java's store.
    let store = fs::read(&files.java).unwrap();
    assert!(store.windows(authority.der().len()).any(|window| window == authority.der().as_ref()));
    assert!(written.left_out.is_empty(), "{:?}", written.left_out);
}

/// What `agentctl run` mounts, the unit does, and the other way round.
#[test]
fn the_unit_mounts_the_same_places() {
    let unit = include_str!("../../../../packaging/systemd/agent@.service");
    let mounted: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("BindReadOnlyPaths="))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("/run/agentgate/system"))
        .collect();
    let expect: Vec<String> =
        PLACES.iter().map(|place| format!("-/run/agentgate/system{0}:{0}", place.path)).collect();
    assert_eq!(mounted, expect);
}
