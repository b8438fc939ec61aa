//! The socket is there as long as its owner has the store: over closes, drops, kills, forks, stores
//! that cannot be opened, and file systems that cannot have a socket.

#![allow(unsafe_code)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use std::{env, io, thread};

use futures::executor::block_on;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tamis::{BlobCache, L2State};

use super::recorder::Recorder;
use super::{alone, ask, ask_on, builder, close, connect, folder, is_over, open, socket, threads};

fn is_served(path: &Path) -> bool {
    ask(path, "stats").starts_with(r#"{"stats":"#)
}

/// What is in a directory, in order.
fn names(path: &Path) -> Vec<String> {
    let found = fs::read_dir(path).unwrap().map(|one| one.unwrap().file_name());
    let mut names: Vec<_> = found.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_socket_is_private_and_ends_with_the_cache() {
    let (_alone, folder) = (alone(), folder());
    let store = folder.path().join("store");
    let cache = open(&store);
    let metadata = fs::symlink_metadata(socket(&store)).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&store), ["data", "status.sock"]);
    let client = connect(&store);
    assert!(ask_on(&client, "stats").contains("healthy"));
    assert_eq!(threads("tamis-status").len(), 1);
    close(&cache);
    assert_eq!((names(&store), threads("tamis-status").len()), (vec!["data".to_owned()], 0));
    assert!(is_over(&client));
    // The last handle may go without a close; a next open finds its own socket, and not an end
    // of the last one.
    for _ in 0..20 {
        let cache = open(&store);
        let client = connect(&store);
        assert!(ask_on(&client, "stats").contains("healthy"));
        drop(cache);
        assert!(is_over(&client));
    }
    let cache = open(&store);
    assert!(is_served(&store));
    close(&cache);
    assert_eq!(names(&store), ["data"]);
}

#[test]
fn nothing_is_there_unless_it_is_asked_for() {
    let (_alone, folder) = (alone(), folder());
    let cache = block_on(BlobCache::open(builder(folder.path()).build().unwrap())).unwrap();
    assert_eq!(names(folder.path()), ["data"]);
    assert_eq!(threads("tamis-status").len(), 0);
    close(&cache);
}

#[test]
fn what_a_dead_owner_has_left_is_replaced() {
    let (_alone, folder) = (alone(), folder());
    close(&open(folder.path()));
    // As a kill leaves them, before and after the socket has its name.
    for name in ["status.sock", "status.new"] {
        drop(UnixListener::bind(folder.path().join(name)).unwrap());
    }
    UnixStream::connect(socket(folder.path())).unwrap_err();
    let cache = open(folder.path());
    assert!(is_served(folder.path()));
    assert_eq!(names(folder.path()), ["data", "status.sock"]);
    // Its name may be in use by something else.
    close(&cache);
    fs::write(socket(folder.path()), "a file").unwrap();
    let cache = open(folder.path());
    assert!(is_served(folder.path()));
    close(&cache);
}

fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = Recorder::new(|_| ());
        tracing::subscriber::set_global_default(recorder.clone()).unwrap();
        recorder
    })
}

#[test]
fn a_cache_runs_on_where_there_can_be_no_socket() {
    let (_alone, recorder, folder) = (alone(), recorder(), folder());
    fs::create_dir(socket(folder.path())).unwrap();
    let cache = open(folder.path());
    block_on(cache.put("pages", "key", "value")).unwrap();
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    close(&cache);
    let path = folder.path().to_str().unwrap();
    assert!(recorder.has(&["WARN tamis::status", "the cache runs without it", path, "error="]));
    assert_eq!(threads("tamis-status").len(), 0);
    fs::remove_dir(socket(folder.path())).unwrap();
    close(&open(folder.path()));
    assert!(recorder.has(&["INFO tamis::status", "the status socket is open", path]));
}

/// The directory may be renamed while the store is open.
#[test]
fn a_socket_is_removed_where_its_directory_is_by_then() {
    let (_alone, folder) = (alone(), folder());
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    let cache = open(&before);
    fs::rename(&before, &after).unwrap();
    assert!(is_served(&after));
    close(&cache);
    assert_eq!(names(&after), ["data"]);
}

#[test]
fn the_socket_follows_the_disk_tier() {
    let (_alone, folder) = (alone(), folder());
    let path = folder.path().join("store");
    fs::write(&path, "a file").unwrap();
    let builder = builder(&path).l2_status_socket(true).l2_required(false);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
    assert_eq!(threads("tamis-status").len(), 0);
    fs::remove_file(&path).unwrap();
    block_on(cache.reopen_l2()).unwrap();
    assert!(is_served(&path));
    assert!(ask(&path, "stats").contains("healthy"));
    close(&cache);
    assert!(!socket(&path).exists());
    // One that ends before it is closed.
    fs::rename(path.join("data"), path.join("aside")).unwrap();
    fs::create_dir(path.join("data")).unwrap();
    let cache = block_on(BlobCache::open(cache.config().clone())).unwrap();
    fs::remove_dir(path.join("data")).unwrap();
    block_on(cache.reopen_l2()).unwrap();
    assert!(is_served(&path));
    let client = connect(&path);
    drop(cache);
    assert!(is_over(&client));
}

/// A cache that cannot open a store, since that has an owner, leaves the owner's socket alone.
#[test]
fn a_socket_belongs_to_the_owner_of_the_store() {
    let (_alone, folder) = (alone(), folder());
    let owner = open(folder.path());
    let config = builder(folder.path()).l2_status_socket(true).l2_required(false).build().unwrap();
    let other = block_on(BlobCache::open(config)).unwrap();
    assert!(matches!(other.stats().l2_state(), L2State::Degraded { .. }));
    block_on(other.reopen_l2()).unwrap_err();
    assert!(ask(folder.path(), "stats").contains("healthy"));
    close(&other);
    assert!(ask(folder.path(), "stats").contains("healthy"));
    close(&owner);
}

#[test]
fn a_backup_has_no_socket() {
    let (_alone, folder) = (alone(), folder());
    let (store, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let cache = open(&store);
    block_on(cache.put("pages", "key", "value")).unwrap();
    block_on(cache.backup(&copy)).unwrap();
    assert_eq!(names(&copy), ["data"]);
    close(&cache);
    let warm = open(&copy);
    assert!(is_served(&copy) && block_on(warm.get("pages", "key")).is_some());
    close(&warm);
}

/// A forked child takes its copy of the cache apart, and then the parent is asked.
#[test]
fn a_forked_child_neither_serves_nor_removes_the_socket() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let client = connect(folder.path());
    assert!(ask_on(&client, "stats").contains("healthy"));
    // The threads are asleep.
    thread::sleep(Duration::from_millis(50));
    let copy = Mutex::new(Some(cache.clone()));
    let held = Mutex::new(Some(cache));
    let path = socket(folder.path());
    let mut command = Command::new("true");
    let child = move || {
        // Both handles are the child's: its copy of the cache ends.
        let cache = held.lock().unwrap().take().unwrap();
        let is_working = cache.stats().l2_state() == L2State::Healthy;
        let is_refused =
            futures::FutureExt::now_or_never(cache.close()).is_some_and(|it| it.is_err());
        drop((cache, copy.lock().unwrap().take()));
        let is_there = fs::symlink_metadata(&path).is_ok();
        if is_working && is_refused && is_there {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(77))
        }
    };
    // SAFETY: the child has one thread, whose locks no other thread held: the allocator of the
    // system is usable after a fork, and all other threads of the parent were asleep.
    let status = unsafe { command.pre_exec(child) }.status().unwrap();
    assert!(status.success());
    assert!(ask_on(&client, "stats").contains("healthy"));
    assert!(is_served(folder.path()));
    drop(command);
    assert!(is_over(&client), "the command held the last handles");
}

const CHILD: &str = "TAMIS_STATUS_CHILD";

/// Limits hold for a whole process, so this runs in a child of this binary.
#[test]
fn without_descriptors_clients_wait_and_the_thread_sleeps() {
    let name = "lives::without_descriptors_clients_wait_and_the_thread_sleeps";
    if env::var_os(CHILD).is_none() {
        let mut command = Command::new(env::current_exe().unwrap());
        let output =
            command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains("1 passed"), "{output:?}");
        return;
    }
    let folder = folder();
    let cache = open(folder.path());
    let first = connect(folder.path());
    assert!(ask_on(&first, "stats").contains("healthy"));
    let waiting = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let waiting = UnixStream::from(waiting.unwrap());
    waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let stat = fs::File::open(threads("tamis-status").pop().unwrap().join("stat")).unwrap();
    let before = without_descriptors();
    fs::File::open("/dev/null").unwrap_err();
    connect_to(&waiting, &SocketAddrUnix::new(socket(folder.path())).unwrap()).unwrap();
    let ticks = processor_ticks(&stat);
    thread::sleep(Duration::from_millis(700));
    // On a machine with other work a thread that never sleeps may have had little of it.
    assert!(processor_ticks(&stat) - ticks < 4, "it has been awake");
    // Others are served meanwhile, and the one that waits once there is a descriptor for it.
    assert!(ask_on(&first, "stats").contains("healthy"));
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(ask_on(&waiting, "stats").contains("healthy"));
    close(&cache);
}

/// Lowers the limit on descriptors so that no number is left. Gives the limit from before.
fn without_descriptors() -> Rlimit {
    let number = |name: &std::ffi::OsStr| name.to_str().unwrap().parse::<u64>().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|one| number(&one.unwrap().file_name()));
    let highest = open.max().unwrap();
    loop {
        let filler = fs::File::open("/dev/null").unwrap();
        if u64::try_from(filler.as_raw_fd()).unwrap() > highest {
            break;
        }
        std::mem::forget(filler);
    }
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest + 1), ..before }).unwrap();
    before
}

/// The time that a thread has had, in hundredths of a second.
fn processor_ticks(stat: &fs::File) -> u64 {
    let mut text = [0; 1024];
    let read = stat.read_at(&mut text, 0).unwrap();
    let text = std::str::from_utf8(&text[..read]).unwrap();
    // Behind the name, which may have spaces.
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
