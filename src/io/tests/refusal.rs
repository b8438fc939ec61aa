//! Kernels that refuse io_uring, and processes that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use futures::executor::block_on;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::super::{AlignedBuffer, Disk, DiskError, DiskOptions, ReadRequest, UringDisk};

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

/// The reason for which a disk does not open if the system call `call` fails with `errno`.
fn refusal(call: i64, errno: Errno) -> String {
    let refused = move || {
        let directory = tempfile::tempdir().expect("directory");
        let target = env::consts::ARCH.try_into().expect("architecture");
        let filter = SeccompFilter::new(
            BTreeMap::from([(call, vec![])]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.raw_os_error().cast_unsigned()),
            target,
        );
        let program: BpfProgram = filter.expect("filter").try_into().expect("program");
        seccompiler::apply_filter(&program).expect("applied");
        let nested = directory.path().join("store");
        let opened = block_on(UringDisk::open(DiskOptions::new(&nested, 1 << 20)));
        assert!(!nested.exists(), "a refused open has created files");
        match opened {
            Err(DiskError::Unavailable { reason }) => reason,
            Err(error) => panic!("another error: {error:?}"),
            Ok(_) => panic!("the filter let it through"),
        }
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
fn a_memlock_limit_of_zero_is_enough_or_named() {
    if !is_child() {
        in_child("io::tests::refusal::a_memlock_limit_of_zero_is_enough_or_named", true);
        return;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Memlock, none).expect("limit");
    let directory = tempfile::tempdir().expect("directory");
    match block_on(UringDisk::open(DiskOptions::new(directory.path(), 1 << 20))) {
        // Kernels from 5.12 on charge rings to the memory limit instead.
        Ok(disk) => {
            block_on(disk.read(ReadRequest::new(0, 4096))).expect("read");
        }
        Err(DiskError::Unavailable { reason }) => assert!(reason.contains("memlock"), "{reason}"),
        Err(error) => panic!("another error: {error:?}"),
    }
}

#[test]
fn a_killed_owner_keeps_the_lock_only_while_its_requests_last() {
    const TEST: &str = "a_killed_owner_keeps_the_lock_only_while_its_requests_last";
    if let Some(path) = env::var_os("TAMIS_TEST_DIRECTORY") {
        let disk = block_on(UringDisk::open(DiskOptions::new(path, 64 << 20))).expect("disk");
        for count in 0.. {
            let buffer = AlignedBuffer::zeroed(8 << 20);
            block_on(disk.write(count % 8 * (8 << 20), buffer)).0.expect("write");
            println!("written");
        }
    }
    for _ in 0..5 {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
        let mut owner = child(&format!("io::tests::refusal::{TEST}"))
            .env("TAMIS_TEST_DIRECTORY", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let output = BufReader::new(owner.stdout.take().expect("piped"));
        let mut lines = output.lines().map(|line| line.expect("line"));
        assert!(lines.any(|line| line.contains("written")), "the child has not written");
        let options = DiskOptions::new(directory.path(), 64 << 20);
        let refused = block_on(UringDisk::open(options.clone()));
        assert!(matches!(refused, Err(DiskError::Locked { .. })));
        owner.kill().expect("kill");
        owner.wait().expect("wait");
        let start = Instant::now();
        while let Err(error) = block_on(UringDisk::open(options.clone())) {
            assert!(matches!(error, DiskError::Locked { .. }), "{error:?}");
            assert!(start.elapsed() < Duration::from_secs(20), "the lock was not released");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
