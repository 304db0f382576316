//! Edits keep what they do not mean, and never leave half a file.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn keeps_comments_order_and_line_ends() {
    let check = |before: &str, edit: Edit, pattern: &str, after: Option<&str>| {
        let pattern = pattern.parse().unwrap();
        assert_eq!(edited(before, edit, &pattern).as_deref(), after, "{before:?} {edit:?} {pattern}");
    };
    check("", Edit::Add, "a.example", Some("a.example\n"));
    check("# ours\nb.example\n", Edit::Add, "A.Example.", Some("# ours\nb.example\na.example\n"));
    check("b.example", Edit::Add, "a.example", Some("b.example\na.example\n"));
    check("b.example\r\n", Edit::Add, "a.example", Some("b.example\r\na.example\r\n"));
    check("A.example # why\n", Edit::Add, "a.example", None);
    check("a.example\n", Edit::Add, "a.example:443", Some("a.example\na.example:443\n"));
    check("\u{feff}a.example\n", Edit::Add, "a.example", None);
    check(
        "# top\na.example # why\n\n  b.example\nA.EXAMPLE.\nbroken line\n# end",
        Edit::Remove,
        "a.example",
        Some("# top\n\n  b.example\nbroken line\n# end"),
    );
    check("a.example", Edit::Remove, "a.example", Some(""));
    check("# a.example\n*.a.example\na.example:443\n", Edit::Remove, "a.example", None);
    check("", Edit::Remove, "a.example", None);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn replaces_the_file_and_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let lists = dir.path().join("new/lists");
    assert!(edit_list(&lists, List::Allow, Edit::Add, "a.example").unwrap(), "made where it is missing");
    let path = lists.join("allow.txt");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    // What a crash left behind is no obstacle.
    fs::write(lists.join(".allow.txt.agentgate"), "half").unwrap();

    assert!(edit_list(&lists, List::Allow, Edit::Add, "b.example").unwrap());
    assert!(!edit_list(&lists, List::Allow, Edit::Add, "B.example.").unwrap());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o640);
    assert_ne!(metadata.ino(), inode, "renamed over, not written in place");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a.example\nb.example\n");
    assert_eq!(names(&lists), ["allow.txt"]);

    assert!(edit_list(&lists, List::Allow, Edit::Remove, "a.example").unwrap());
    assert!(!edit_list(&lists, List::Allow, Edit::Remove, "a.example").unwrap());
    assert!(!edit_list(&lists, List::Deny, Edit::Remove, "a.example").unwrap());
    assert_eq!(names(&lists), ["allow.txt"], "removing from no file makes none");
}

#[test]
fn refuses_what_it_should_not_touch() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "x.example\n").unwrap();
    symlink(&target, dir.path().join("deny.txt")).unwrap();
    let error = edit_list(dir.path(), List::Deny, Edit::Add, "a.example").unwrap_err();
    assert_eq!(error.code(), "list_is_symlink");
    assert_eq!(fs::read_to_string(&target).unwrap(), "x.example\n");
    symlink(dir.path().join("nowhere"), dir.path().join("mode")).unwrap();
    assert_eq!(set_mode(&dir.path().join("mode"), None).unwrap_err().code(), "list_is_symlink");

    for pattern in ["", "https://a.example/", "a b", "a.example\nb.example", "# x"] {
        let error = edit_list(dir.path(), List::Allow, Edit::Add, pattern).unwrap_err();
        assert_eq!(error.code(), "invalid_pattern", "{pattern:?}");
    }
    fs::create_dir(dir.path().join("passthrough.txt")).unwrap();
    let error = edit_list(dir.path(), List::Passthrough, Edit::Add, "a.example").unwrap_err();
    assert_eq!(error.code(), "list_not_writable");
    assert_eq!(names(dir.path()), ["deny.txt", "mode", "passthrough.txt", "target"]);
}

#[test]
fn mode_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mode");
    set_mode(&path, None).unwrap();
    set_mode(&path, Some(Mode::Audit)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "audit\n");
    set_mode(&path, Some(Mode::Enforce)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "enforce\n");
    set_mode(&path, None).unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
}
