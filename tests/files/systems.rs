//! Stores on file systems that are full or read-only: small ones, mounted where only a child of
//! this test sees them. Without the right to mount, the tests say so and are skipped.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use futures::executor::block_on;
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tamis::{CacheError, L2State};

use crate::model::Model;
use crate::{folder, open};

const CHILD: &str = "TAMIS_MOUNTED_CHILD";
const BYTES: u64 = 4 << 20;
const KINDS: [&str; 2] = ["tmpfs", "ext4"];

/// A run of a program that must succeed.
fn command(line: &[&str]) {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line:?}: {told}");
}

/// True in the child, which may mount; in the parent, runs the test in a child, if it may.
pub(crate) fn may_mount(test: &str) -> bool {
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let private = ["--mount", "--propagation", "private"];
    let mut may = Command::new("unshare");
    may.args(private).args(["mount", "-t", "tmpfs", "none", "/mnt"]);
    if !may.output().is_ok_and(|tried| tried.status.success()) {
        println!("skipped: this user may not mount a file system, or has no unshare(1)");
        return false;
    }
    let mut child = Command::new("unshare");
    child.args(private).arg(env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let (told, errors) = (output.stdout, output.stderr);
    let (told, errors) = (String::from_utf8_lossy(&told), String::from_utf8_lossy(&errors));
    println!("{told}");
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{errors}");
    false
}

/// A file system of `mebibytes`, mounted within `folder`.
pub(crate) fn mounted(folder: &Path, kind: &str, mebibytes: u64) -> PathBuf {
    let place = folder.join(kind);
    fs::create_dir(&place).unwrap();
    let at = place.to_str().unwrap();
    if kind == "tmpfs" {
        command(&["mount", "-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none", at]);
    } else {
        let image = folder.join(format!("{kind}.image"));
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let mkfs: &[&str] = match kind {
            "xfs" => &["mkfs.xfs", "-q", "-m", "reflink=1"],
            "btrfs" => &["mkfs.btrfs", "-q"],
            _ => &["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"],
        };
        command(&[mkfs, &[image.to_str().unwrap()]].concat());
        command(&["mount", "-o", "loop", image.to_str().unwrap(), at]);
    }
    place
}

/// Takes all room that is left.
pub(crate) fn fill(place: &Path) -> PathBuf {
    let path = place.join("filler");
    let mut file = File::create(&path).unwrap();
    for piece in [1 << 20, 4096] {
        let error = loop {
            if let Err(error) = file.write_all(&vec![7; piece]).and_then(|()| file.sync_data()) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    }
    path
}

pub(crate) fn entries(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).filter(|name| name != "lost+found").collect()
}

#[test]
fn a_store_on_a_full_file_system_keeps_what_it_has_reserved() {
    if !may_mount("systems::a_store_on_a_full_file_system_keeps_what_it_has_reserved") {
        return;
    }
    let folder = folder();
    for kind in KINDS {
        let place = mounted(folder.path(), kind, 12);
        let refused = open(&place.join("large"), 64 << 20).unwrap_err();
        match &refused {
            CacheError::L2Full { size, max, .. } => assert!(size > max, "{refused}"),
            error => panic!("{error:?}"),
        }
        assert_eq!(fs::read_dir(place.join("large")).unwrap().count(), 0, "left behind");
        fs::remove_dir(place.join("large")).unwrap();
        let store = place.join("store");
        let cache = open(&store, BYTES).unwrap();
        let filler = fill(&place);
        let mut model = Model::new(1);
        // Once over the whole file.
        for _ in 0..20 {
            if cache.stats().l2_reclaimed_segments() < 16 {
                model.run(&cache, 1000);
            }
        }
        let stats = cache.stats();
        assert_eq!((stats.l2_state(), model.errors), (L2State::Healthy, 0), "{kind}");
        assert!(stats.l2_reclaimed_segments() >= 16, "the store was not written over");
        block_on(cache.close()).unwrap();
        let cache = open(&store, BYTES).unwrap();
        assert!(!cache.stats().recovery_from_image(), "there was no room for it");
        assert!(model.get_all(&cache) > 0, "it is warm");
        fs::remove_file(&filler).unwrap();
        block_on(cache.close()).unwrap();
        let cache = open(&store, BYTES).unwrap();
        assert!(cache.stats().recovery_from_image(), "there was room for it");
        assert!(model.get_all(&cache) > 0, "it is warm");
        block_on(cache.close()).unwrap();
    }
}

/// Makes this thread, and those that it starts, find a file system that cannot reserve space.
fn without_reserving() {
    let call = if cfg!(target_arch = "x86_64") { 285 } else { 47 };
    let refusal = SeccompAction::Errno(u32::try_from(Errno::OPNOTSUPP.raw_os_error()).unwrap());
    let target = env::consts::ARCH.try_into().unwrap();
    let calls = BTreeMap::from([(call, vec![])]);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refusal, target).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn a_file_system_that_fills_up_beneath_a_store_turns_its_disk_tier_off() {
    if !may_mount("systems::a_file_system_that_fills_up_beneath_a_store_turns_its_disk_tier_off") {
        return;
    }
    let folder = folder();
    for kind in KINDS {
        let place = mounted(folder.path(), kind, 12);
        let unreserved = move || {
            without_reserving();
            let store = place.join("store");
            let cache = open(&store, BYTES).unwrap();
            let mut model = Model::new(1);
            model.run(&cache, 300);
            assert_eq!(model.errors, 0, "{kind}: there is room");
            let filler = fill(&place);
            model.run(&cache, 1000);
            // It may have begun anew in the part of the file that has space, for a while.
            let stats = cache.stats();
            let was_off = stats.l2_restarts() > 0;
            println!("{kind}: {}, {} restarts", stats.l2_state(), stats.l2_restarts());
            assert!(was_off || matches!(stats.l2_state(), L2State::Degraded { .. }));
            assert!(model.errors > 0, "{kind}: a mutation that is not on disk is an error");
            assert!(model.get_all(&cache) > 0, "{kind}: memory goes on");
            let closed = block_on(cache.close());
            assert!(matches!(closed, Ok(()) | Err(CacheError::L2Io { .. })), "{closed:?}");
            fs::remove_file(filler).unwrap();
            let cache = open(&store, BYTES).unwrap();
            println!("{kind}: {} keys found afterwards", model.get_all(&cache));
            model.run(&cache, 1000);
            assert_eq!(cache.stats().l2_state(), L2State::Healthy);
            block_on(cache.close()).unwrap();
        };
        thread::spawn(unreserved).join().unwrap();
    }
}

#[test]
fn a_read_only_file_system_is_named_and_left_alone() {
    if !may_mount("systems::a_read_only_file_system_is_named_and_left_alone") {
        return;
    }
    let folder = folder();
    for kind in KINDS {
        let place = mounted(folder.path(), kind, 12);
        let at = place.to_str().unwrap();
        let store = place.join("store");
        let cache = open(&store, BYTES).unwrap();
        let mut model = Model::new(1);
        model.run(&cache, 1000);
        block_on(cache.close()).unwrap();
        let before = fs::read(store.join("data")).unwrap();
        command(&["mount", "-o", "remount,ro", at]);
        for path in [&store, &place.join("new")] {
            let error = open(path, BYTES).unwrap_err();
            let told = error.to_string();
            let CacheError::L2Io { source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(source.get_ref().kind(), io::ErrorKind::ReadOnlyFilesystem);
            assert!(told.contains(path.to_str().unwrap()), "{told}");
        }
        assert_eq!(entries(&place), ["store"]);
        assert!(fs::read(store.join("data")).unwrap() == before);
        command(&["mount", "-o", "remount,rw", at]);
        let cache = open(&store, BYTES).unwrap();
        assert!(model.get_all(&cache) > 0, "{kind}: it is warm");
        block_on(cache.close()).unwrap();
    }
}
