//! `FileSystem`: what a directory lies on, and how much room it has.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{shown, size};

/// A store takes so much more, in parts of its file and in bytes, for the image of a close.
const IMAGE_SHARE: u64 = 32;
const IMAGE_BYTES: u64 = 1 << 20;

/// What a store with a file of so many bytes takes.
pub(super) fn store_room(l2_bytes_max: u64) -> u64 {
    l2_bytes_max.saturating_add(l2_bytes_max / IMAGE_SHARE + IMAGE_BYTES)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    directory: PathBuf,
    /// `ext4`. None if the kernel does not tell.
    kind: Option<String>,
    /// `/dev/nvme0n1p1`.
    source: Option<String>,
    free_bytes: u64,
}

impl FileSystem {
    /// Of a directory that there is.
    pub(super) fn of(directory: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::io("look at", directory, &error);
        let directory = fs::canonicalize(directory).map_err(failed)?;
        if !directory.is_dir() {
            let message = format!("{} is no directory", directory.display());
            return Err(Failure::refused("no_directory", message));
        }
        let room = statvfs(&directory).map_err(|error| failed(error.into()))?;
        let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (kind, source) = mounted(&mounts, &directory).unzip();
        Ok(Self { directory, kind, source, free_bytes })
    }

    /// A failure with the figures, if it has less room than is needed.
    pub(super) fn check_room(&self, needed: u64) -> Result<(), Failure> {
        if needed <= self.free_bytes {
            return Ok(());
        }
        let (directory, free) = (self.directory.display(), self.free_bytes);
        let message = format!(
            "{directory} has {} of free space ({free} bytes), and {} are needed ({needed} bytes)",
            size(free),
            size(needed)
        );
        Err(Failure::refused("no_room", message))
    }

    /// No device is beneath it.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.kind.as_deref(), Some("tmpfs" | "ramfs"))
    }

    /// `/var/cache: ext4 on /dev/vda1, 12.3 GiB free`.
    pub(super) fn line(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("a file system that the kernel does not name");
        let source = self.source.as_deref().unwrap_or("an unknown device");
        let directory = shown(&self.directory.to_string_lossy());
        format!("{directory}: {} on {}, {} free", shown(kind), shown(source), size(self.free_bytes))
    }

    pub(super) fn object(&self) -> Value {
        json!({
            "directory": self.directory.to_string_lossy(),
            "file_system": self.kind,
            "device": self.source,
            "free_bytes": self.free_bytes,
        })
    }
}

/// The file system of a path and its device, by the kernel's list of mounts: the last one among the
/// longest that the path lies in, since later mounts cover earlier ones.
fn mounted(mounts: &str, path: &Path) -> Option<(String, String)> {
    let mount = |line: &str| {
        // id parent major:minor root POINT options [fields] - KIND SOURCE options
        let (before, behind) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(before.split(' ').nth(4)?));
        let mut behind = behind.split(' ');
        let (kind, source) = (behind.next()?, unescaped(behind.next()?));
        let depth = point.components().count();
        path.starts_with(&point).then(|| (depth, (kind.to_owned(), source)))
    };
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, found)| found)
}

/// Blanks are written as `\040`, and some others likewise.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_last_of_the_deepest_mounts() {
        let mounts = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            23 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
            24 23 0:21 / /dev/shm rw shared:3 - tmpfs tmpfs rw\n\
            25 22 254:1 / /mnt/a\\040b rw - xfs /dev/vdb rw\n\
            26 25 254:2 / /mnt/a\\040b rw - btrfs /dev/vdc rw\n";
        let on = |path: &str| mounted(mounts, Path::new(path)).unwrap();
        let both = |kind: &str, source: &str| (kind.to_owned(), source.to_owned());
        assert_eq!(on("/var/cache"), both("ext4", "/dev/vda"));
        assert_eq!(on("/dev/shm/x"), both("tmpfs", "tmpfs"));
        assert_eq!(on("/dev/shmx"), both("devtmpfs", "devtmpfs"));
        assert_eq!(on("/mnt/a b/c"), both("btrfs", "/dev/vdc"));
        assert_eq!(mounted("", Path::new("/")), None);
        assert_eq!(mounted("22 1 254:0 / /\nno line - ", Path::new("/")), None);
    }
}
