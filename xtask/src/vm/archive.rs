//! Archives that the kernel unpacks as its first file system: cpio in the format `newc`, which may stand
//! one behind the other (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// Entries, and the archive as a whole, begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Writes entries; everything in it is root's.
pub(super) struct Archive<W> {
    out: W,
    made: BTreeSet<PathBuf>,
    number: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, made: BTreeSet::new(), number: 0 }
    }

    /// A file with the permissions of `mode`, and the directories above it.
    ///
    /// # Errors
    /// When it cannot be written, or is 4 GiB or more.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.directories(Path::new(path))?;
        self.entry(path, FILE | mode, content)
    }

    /// A symbolic link, and the directories above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.directories(Path::new(path))?;
        self.entry(path, LINK, target.as_bytes())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn directories(&mut self, below: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> =
            below.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for path in above {
            if self.made.insert(path.to_owned()) {
                self.entry(&path.to_string_lossy(), DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        self.number += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // Inode, mode, user, group, links, time, size, device, its own device, name's size, checksum.
        let fields = [self.number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(path);
        head.push('\0');
        self.out.write_all(head.as_bytes())?;
        self.pad(head.len())?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros = [0; ALIGNMENT];
        let missing = written.next_multiple_of(ALIGNMENT) - written;
        self.out.write_all(zeros.get(..missing).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/one", 0o755, b"12345").unwrap();
        archive.file("a/two", 0o600, b"").unwrap();
        archive.link("a/three", "b/one").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        // Fields that the kernel reads: the magic, then eight digits each.
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 6);
        let Ok(mut cpio) = Command::new("cpio")
            .args(["--list", "--verbose", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            // Where it is not installed the virtual machine shows whether the kernel can read it.
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 5, "{listed}");
        assert!(lines[2].starts_with("-rwxr-xr-x") && lines[2].ends_with("a/b/one"), "{listed}");
        assert!(lines[4].ends_with("a/three -> b/one"), "{listed}");
    }
}
