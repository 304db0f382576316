//! Mounts, names and places, on made-up hierarchies.

use super::*;

#[test]
fn mountinfo() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    let rows: &[(&str, Option<(&str, &str)>)] = &[
        (hybrid, Some(("/", "/sys/fs/cgroup/unified"))),
        ("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 none rw", Some(("/", "/sys/fs/cgroup"))),
        ("30 23 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 none rw", Some(("/docker/ab", "/sys/fs/cgroup"))),
        ("30 23 0:26 / /mnt/a\\040b rw - cgroup2 none rw", Some(("/", "/mnt/a b"))),
        ("31 23 0:28 / /sys/fs/cgroup rw - tmpfs cgroup2 rw", None),
        ("", None),
        ("30 23 - cgroup2", None),
    ];
    for (text, expect) in rows {
        let expect = expect.map(|(root, point)| Mount { root: root.into(), point: point.into() });
        assert_eq!(parse_mountinfo(text), expect, "{text}");
    }
}

#[test]
fn guarded_paths() {
    let rows = [
        ("agent.slice", Some("/cg/agent.slice")),
        ("a/b", Some("/cg/a/b")),
        ("/cg/agent.slice", Some("/cg/agent.slice")),
        ("/cg/agent.slice/", Some("/cg/agent.slice")),
        ("", None),
        ("/cg", None),
        ("/", None),
        ("..", None),
        ("a/../..", None),
        ("/cgroup/agent.slice", None),
        ("/etc", None),
    ];
    for (config, expect) in rows {
        assert_eq!(below(Path::new("/cg"), config), expect.map(PathBuf::from), "{config}");
    }
}

#[test]
fn own_cgroup() {
    let plain = Mount { root: "/".into(), point: "/cg".into() };
    let nested = Mount { root: "/docker/ab".into(), point: "/cg".into() };
    let rows = [
        (&plain, "1:cpu:/x\n0::/agent.slice/a\n", Some("/cg/agent.slice/a")),
        (&plain, "0::/", Some("/cg")),
        (&nested, "0::/docker/ab/c", Some("/cg/c")),
        (&nested, "0::/../x", None),
        (&nested, "0::/docker/ab/../x", None),
        (&plain, "1:cpu:/x\n", None),
    ];
    for (mount, text, expect) in rows {
        let own = own_path(text).and_then(|own| mount.directory_of(own));
        assert_eq!(own, expect.map(PathBuf::from), "{text}");
    }
}

#[test]
fn both_names_of_the_guarded_cgroup() {
    let rows = [
        ("/", "/cg", "/cg/agent.slice", "/agent.slice", "/agent.slice"),
        ("/docker/ab", "/cg", "/cg/agent.slice", "/docker/ab/agent.slice", "/agent.slice"),
        ("/..", "/cg", "/cg/a/agent.slice", "/../a/agent.slice", "/a/agent.slice"),
    ];
    for (root, point, directory, path, below_mount) in rows {
        let guarded =
            GuardedCgroup::on_mount(root, Path::new(point), Path::new(directory)).expect("on the mount");
        assert_eq!((guarded.path(), guarded.below_mount().as_str()), (path, below_mount), "{root}");
        let child = guarded.child("run-1-0.scope");
        assert_eq!(child, format!("{path}/run-1-0.scope"));
        assert_eq!(guarded.directory_of(&child), Some(guarded.directory().join("run-1-0.scope")));
    }
    assert_eq!(GuardedCgroup::on_mount("/", Path::new("/cg"), Path::new("/elsewhere")), None);
    assert_eq!(GuardedCgroup::on_mount("", Path::new("/cg"), Path::new("/cg/x")), None);
}

/// The mount's root, when it is not `/`, stands before every path that `/proc` shows: leaving it out
/// let guarded peers steer the gate in containers.
#[test]
fn a_process_is_placed_whatever_part_of_the_hierarchy_is_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path();
    fs::create_dir_all(point.join("agent.slice/run-1-0.scope")).unwrap();
    fs::create_dir_all(point.join("agent.slice-x/a")).unwrap();
    fs::create_dir_all(point.join("user.slice")).unwrap();
    let rows = [
        ("/", "/agent.slice", Place::Inside),
        ("/", "/agent.slice/run-1-0.scope", Place::Inside),
        // Gone since it was read, and still inside by its name.
        ("/", "/agent.slice/gone/a", Place::Inside),
        ("/", "/agent.slice-x/a", Place::Outside),
        ("/", "/user.slice", Place::Outside),
        ("/", "/", Place::Outside),
        ("/", "/gone", Place::Unknown),
        ("/", "/../other", Place::Unknown),
        ("/", "relative", Place::Unknown),
        ("/box", "/box/agent.slice/run-1-0.scope", Place::Inside),
        ("/box", "/box/user.slice", Place::Outside),
        // Outside what is mounted, and therefore outside what is guarded.
        ("/box", "/user.slice", Place::Outside),
        ("/box", "/", Place::Outside),
        ("/box", "/agent.slice/run-1-0.scope", Place::Outside),
        ("/box", "/../user.slice", Place::Unknown),
        ("/box", "/box/../user.slice", Place::Unknown),
        // The mount was made outside this process's cgroup namespace.
        ("/..", "/../agent.slice/run-1-0.scope", Place::Inside),
        ("/..", "/../user.slice", Place::Outside),
        ("/..", "/agent.slice", Place::Unknown),
    ];
    for (root, path, expect) in rows {
        let guarded = GuardedCgroup::on_mount(root, point, &point.join("agent.slice")).unwrap();
        assert_eq!(guarded.place(path), expect, "{path} with {root} mounted");
    }
    // The same directory by another name is known by its id.
    let alias = GuardedCgroup::on_mount("/", point, &point.join("user.slice/../agent.slice")).unwrap();
    assert_eq!(alias.place("/agent.slice/run-1-0.scope"), Place::Inside);
}
