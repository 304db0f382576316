//! Java's own key stores: each installation has one, which need not be the system's.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Below the home of an installation.
const STORES: [&str; 2] = ["lib/security/cacerts", "jre/lib/security/cacerts"];
/// Where installations are found: each entry of such a directory is the home of one.
const SHARED: [&str; 3] = ["/usr/lib/jvm", "/usr/lib64/jvm", "/opt/java"];
/// The same in the user's home.
const OWN: [&str; 2] = [".sdkman/candidates/java", ".jdks"];
/// Entries of a directory that are looked at.
const MOST: usize = 64;

/// The key stores on this host, without links, each once.
pub(super) fn stores(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = variable("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    // /home/of/it/bin/java
    let path = variable("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).filter_map(|dir| fs::canonicalize(dir.join("java")).ok());
    homes.extend(programs.filter_map(|java| Some(java.parent()?.parent()?.to_owned())));
    let home = variable("HOME").map(PathBuf::from);
    let own = OWN.iter().filter_map(|below| Some(home.as_ref()?.join(below)));
    for directory in SHARED.iter().map(PathBuf::from).chain(own) {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        homes.extend(entries.take(MOST).flatten().map(|entry| entry.path()));
    }
    let stores = homes.iter().flat_map(|home| STORES.iter().map(|store| home.join(store)));
    let mut found: Vec<PathBuf> =
        stores.filter_map(|store| fs::canonicalize(store).ok()).filter(|store| store.is_file()).collect();
    found.retain(|path| path.is_absolute() && !path.starts_with(Path::new("/proc")));
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_found_by_its_variable_and_by_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let store = |name: &str| {
            let store = dir.path().join(name).join(STORES[0]);
            fs::create_dir_all(store.parent().unwrap()).unwrap();
            fs::write(&store, "").unwrap();
            fs::canonicalize(store).unwrap()
        };
        let (by_home, by_path, mine) = (store("a"), store("b"), store("home/.sdkman/candidates/java/21"));
        fs::create_dir(dir.path().join("b/bin")).unwrap();
        fs::write(dir.path().join("b/bin/java"), "").unwrap();
        let variable = |name: &str| match name {
            "JAVA_HOME" => Some(dir.path().join("a").into_os_string()),
            "PATH" => Some(dir.path().join("b/bin").into_os_string()),
            "HOME" => Some(dir.path().join("home").into_os_string()),
            _ => None,
        };
        let found = stores(variable);
        for store in [by_home, by_path, mine] {
            assert!(found.contains(&store), "{store:?} {found:?}");
        }
    }
}
