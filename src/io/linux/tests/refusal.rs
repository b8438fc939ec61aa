//! Kernels that refuse io_uring, and processes that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use futures::executor::block_on;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::file_disk::ENGINES;
use crate::io::{AlignedBuffer, Disk, DiskEngine, DiskError, DiskOptions, FileDisk, ReadRequest};

const IO_URING_SETUP: i64 = 425;
pub(super) const IO_URING_ENTER: i64 = 426;
const CHILD: &str = "TAMIS_TEST_CHILD";
const NOBODY: u32 = 65534;

/// Whether this process was started by [`in_child`].
pub(super) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

fn child(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("executable"));
    command.args(["--exact", test, "--nocapture"]).env(CHILD, env::temp_dir());
    command
}

/// Runs one test in a process of its own, without privileges if that is possible.
pub(super) fn in_child(test: &str, unprivileged: bool) {
    let mut command = child(test);
    if unprivileged && rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            child(test).output().expect("child")
        }
        output => output.expect("child"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Makes a system call fail on this thread, and those that it starts, for ever.
fn refuse(call: i64, errno: Errno) {
    let target = env::consts::ARCH.try_into().expect("architecture");
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.raw_os_error().cast_unsigned()),
        target,
    );
    let program: BpfProgram = filter.expect("filter").try_into().expect("program");
    seccompiler::apply_filter(&program).expect("applied");
}

/// The reason for which a disk does not open on rings if the system call `call` fails with `errno`.
/// On threads it opens, and tells the same reason.
fn refusal(call: i64, errno: Errno) -> String {
    let refused = move || {
        let directory = tempfile::tempdir().expect("directory");
        refuse(call, errno);
        let nested = directory.path().join("store");
        let options = DiskOptions::new(&nested, 1 << 20);
        let on_rings = DiskOptions { engine: Some(DiskEngine::IoUring), ..options.clone() };
        let opened = block_on(FileDisk::open(on_rings));
        assert!(!nested.exists(), "a refused open has created files");
        let reason = match opened {
            Err(DiskError::NoRing { reason }) => reason,
            Err(error) => panic!("another error: {error:?}"),
            Ok(_) => panic!("the filter let it through"),
        };
        let disk = block_on(FileDisk::open(options)).expect("a disk on threads");
        assert_eq!(disk.engine(), DiskEngine::Threads);
        assert!(disk.refusal().is_some_and(|told| reason.ends_with(told)), "{reason}");
        block_on(disk.write(0, AlignedBuffer::copy_from_slice(&[7; 4096]))).0.expect("written");
        block_on(disk.sync()).expect("synced");
        let found = block_on(disk.read(ReadRequest::new(0, 4096))).expect("read");
        assert!(found.iter().all(|&byte| byte == 7));
        reason
    };
    // A filter cannot be removed, but ends with its thread; threads inherit it.
    thread::spawn(refused).join().expect("thread")
}

#[test]
fn seccomp_is_named() {
    for call in [IO_URING_SETUP, IO_URING_ENTER] {
        let reason = refusal(call, Errno::PERM);
        assert!(reason.contains("seccomp") || reason.contains("io_uring_disabled"), "{reason}");
        let reason = refusal(call, Errno::NOSYS);
        assert!(reason.contains("seccomp"), "{reason}");
    }
}

#[test]
fn memlock_is_named_after_smaller_rings_were_tried() {
    let reason = refusal(IO_URING_SETUP, Errno::NOMEM);
    assert!(reason.contains("memlock"), "{reason}");
}

#[test]
fn a_lack_of_descriptors_is_no_refusal_of_rings() {
    let refused = || {
        for errno in [Errno::MFILE, Errno::NFILE] {
            refuse(IO_URING_SETUP, errno);
            let directory = tempfile::tempdir().expect("directory");
            let nested = directory.path().join("store");
            match block_on(FileDisk::open(DiskOptions::new(&nested, 1 << 20))) {
                Err(DiskError::Unavailable { reason }) => {
                    assert!(reason.contains("nofile"), "{reason}");
                }
                Err(error) => panic!("another error: {error:?}"),
                Ok(disk) => panic!("it has settled for {:?}", disk.engine()),
            }
            assert!(!nested.exists(), "a refused open has created files");
        }
    };
    thread::spawn(refused).join().expect("thread");
}

#[test]
fn threads_need_no_descriptors_for_rings() {
    if !is_child() {
        in_child("io::linux::tests::refusal::threads_need_no_descriptors_for_rings", false);
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(Resource::Nofile, few).expect("limit");
    let null = || std::fs::File::open("/dev/null").ok();
    let mut taken: Vec<_> = std::iter::from_fn(null).collect();
    taken.truncate(taken.len() - 10);
    refuse(IO_URING_SETUP, Errno::PERM);
    let disk = block_on(FileDisk::open(DiskOptions::new(directory.path(), 1 << 20)));
    assert_eq!(disk.expect("a disk on threads").engine(), DiskEngine::Threads);
}

#[test]
fn a_memlock_limit_of_zero_is_enough_or_named() {
    if !is_child() {
        in_child("io::linux::tests::refusal::a_memlock_limit_of_zero_is_enough_or_named", true);
        return;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Memlock, none).expect("limit");
    let directory = tempfile::tempdir().expect("directory");
    let options = DiskOptions::new(directory.path(), 1 << 20);
    let on_rings = DiskOptions { engine: Some(DiskEngine::IoUring), ..options };
    match block_on(FileDisk::open(on_rings)) {
        // Kernels from 5.12 on charge rings to the memory limit instead.
        Ok(disk) => {
            block_on(disk.read(ReadRequest::new(0, 4096))).expect("read");
        }
        Err(DiskError::NoRing { reason }) => assert!(reason.contains("memlock"), "{reason}"),
        Err(error) => panic!("another error: {error:?}"),
    }
}

#[test]
fn a_killed_owner_keeps_the_lock_only_while_its_requests_last() {
    const TEST: &str = "a_killed_owner_keeps_the_lock_only_while_its_requests_last";
    let options = |path: &Path, round: usize| {
        let engine = Some(ENGINES[round % 2]);
        DiskOptions { engine, ..DiskOptions::new(path, 64 << 20) }
    };
    if let Some(path) = env::var_os("TAMIS_TEST_DIRECTORY") {
        let round = env::var("TAMIS_TEST_ROUND").expect("set").parse().expect("a number");
        let disk = block_on(FileDisk::open(options(path.as_ref(), round))).expect("disk");
        for count in 0.. {
            let buffer = AlignedBuffer::zeroed(8 << 20);
            block_on(disk.write(count % 8 * (8 << 20), buffer)).0.expect("write");
            println!("written");
        }
    }
    for round in 0..6 {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
        let mut owner = child(&format!("io::linux::tests::refusal::{TEST}"))
            .env("TAMIS_TEST_DIRECTORY", directory.path())
            .env("TAMIS_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let output = BufReader::new(owner.stdout.take().expect("piped"));
        let mut lines = output.lines().map(|line| line.expect("line"));
        assert!(lines.any(|line| line.contains("written")), "the child has not written");
        let options = options(directory.path(), round + 1);
        let refused = block_on(FileDisk::open(options.clone()));
        assert!(matches!(refused, Err(DiskError::Locked { .. })));
        owner.kill().expect("kill");
        owner.wait().expect("wait");
        let start = Instant::now();
        while let Err(error) = block_on(FileDisk::open(options.clone())) {
            assert!(matches!(error, DiskError::Locked { .. }), "{error:?}");
            assert!(start.elapsed() < Duration::from_secs(20), "the lock was not released");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
