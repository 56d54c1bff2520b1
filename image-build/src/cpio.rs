//! Writes cpio archives in the "new ASCII" format (magic 070701) that the kernel unpacks as its
//! initramfs (Documentation/driver-api/early-userspace/buffer-format).
//!
//! Archives are reproducible: owner root, time 0, inode numbers by position.

use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive being written.
#[derive(Debug)]
pub struct Archive<W: Write> {
    output: W,
    entries: u32,
    directories: std::collections::BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            entries: 0,
            directories: std::collections::BTreeSet::new(),
        }
    }

    /// Adds a file and the directories that lead to it. `path` is relative, without `.` or `..`.
    ///
    /// # Errors
    /// Writing fails, or the file is larger than the format can say (4 GiB).
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory)?;
        }
        self.entry(path, REGULAR | permissions, content)
    }

    /// Adds a directory and those that lead to it, unless it is already there.
    ///
    /// # Errors
    /// Writing fails.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        if self.directories.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let name_size =
            u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(name.as_bytes())?;
        self.output.write_all(&[0])?;
        // Header and name together, and the content, are padded to four bytes.
        self.pad(header.len() + name.len() + 1)?;
        self.output.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        let padding = length.next_multiple_of(4) - length;
        self.output.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_their_files() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/one", 0o644, b"1").unwrap();
        archive.file("a/b/two", 0o755, b"22").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<usize> = ["a\0", "a/b\0", "a/b/one\0", "a/b/two\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).unwrap())
            .collect();
        assert!(names.is_sorted());
        assert_eq!(text.matches("070701").count(), 5);
    }

    #[test]
    fn the_cpio_program_reads_it_back() {
        let Ok(mut cpio) = std::process::Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            keelson_testing::skip("cpio", "it is not installed");
            return;
        };
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, &[7; 1001]).unwrap();
        archive.directory("etc").unwrap();
        archive.file("etc/initrd-release", 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = cpio.wait_with_output().unwrap();
        assert!(listed.status.success());
        assert_eq!(listed.stdout, b"init\netc\netc/initrd-release\n");
    }
}
