//! Who has the lock of a store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::file::DATA_NAME;

/// The process that has the lock of the store in `directory`. None if there is none, or it cannot
/// be told, as in another namespace of processes.
pub(crate) fn owner_of(directory: &Path) -> Option<u32> {
    let metadata = fs::metadata(directory.join(DATA_NAME)).ok()?;
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // Bounded: by the locks of the machine.
    locks.lines().find_map(|line| owner_in(line, device, metadata.ino()))
}

/// From a line like `7: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF`; lines of waiting processes
/// have an arrow behind the number.
fn owner_in(line: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, _, mode) = (words.next()?, words.next()?, words.next()?);
    let (process, file) = (words.next()?, words.next()?);
    let mut parts = file.split(':');
    let major = u32::from_str_radix(parts.next()?, 16).ok()?;
    let minor = u32::from_str_radix(parts.next()?, 16).ok()?;
    let is_it = kind == "FLOCK"
        && mode == "WRITE"
        && (major, minor) == device
        && parts.next()?.parse() == Ok(inode);
    process.parse().ok().filter(|process| is_it && *process != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_found_among_other_locks() {
        let owner = |line| owner_in(line, (0xfd, 0x1a), 131);
        assert_eq!(owner("7: FLOCK  ADVISORY  WRITE 4711 fd:1a:131 0 EOF"), Some(4711));
        for other in [
            "7: FLOCK  ADVISORY  READ 4711 fd:1a:131 0 EOF",
            "7: POSIX  ADVISORY  WRITE 4711 fd:1a:131 0 EOF",
            "7: FLOCK  ADVISORY  WRITE 4711 fd:1b:131 0 EOF",
            "7: FLOCK  ADVISORY  WRITE 4711 fd:1a:132 0 EOF",
            "7: FLOCK  ADVISORY  WRITE 0 fd:1a:131 0 EOF",
            "7: -> FLOCK  ADVISORY  WRITE 4712 fd:1a:131 0 EOF",
            "7: FLOCK",
            "",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
