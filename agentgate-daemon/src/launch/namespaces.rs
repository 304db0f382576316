//! Whether the host lets ordinary users have namespaces, and why not.

use std::{fs, path::Path};

/// Settings that close user namespaces to ordinary users: file, value that closes, what to do.
const OBSTACLES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "the host allows no user namespaces (user.max_user_namespaces)",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "the host allows user namespaces to root only (kernel.unprivileged_userns_clone)",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor allows user namespaces to programs with a profile only \
         (kernel.apparmor_restrict_unprivileged_userns); install packaging/apparmor/agentctl as \
         /etc/apparmor.d/agentctl and load it",
    ),
];

/// What keeps ordinary users from a user namespace, as far as settings tell. A profile of AppArmor may
/// lift the last one.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    obstacle_below(Path::new("/"))
}

fn obstacle_below(root: &Path) -> Option<&'static str> {
    OBSTACLES.iter().find_map(|(file, closes, why)| {
        let text = fs::read_to_string(root.join(file.trim_start_matches('/'))).ok()?;
        (text.trim() == *closes).then_some(*why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_closes_them_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, value: &str| {
            let path = dir.path().join(file.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        };
        assert_eq!(obstacle_below(dir.path()), None, "a kernel without the settings");
        for (file, open) in [(OBSTACLES[0].0, "9\n"), (OBSTACLES[1].0, "1\n"), (OBSTACLES[2].0, "0\n")] {
            write(file, open);
        }
        assert_eq!(obstacle_below(dir.path()), None);
        for (file, closes, why) in OBSTACLES.iter().rev() {
            write(file, &format!("{closes}\n"));
            assert_eq!(obstacle_below(dir.path()), Some(*why));
        }
    }
}
