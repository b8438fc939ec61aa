//! Disks without requests: their threads sleep, on rings and on threads.

use std::time::Duration;
use std::{fs, thread};

use futures::executor::block_on;
use futures::future::join_all;

use super::file_disk::{ENGINES, directory, open};
use super::refusal::{in_child, is_child};
use crate::io::{BLOCK_BYTES, Disk, ReadRequest};

/// Clock ticks and context switches of all threads of this process named `tamis-…`.
fn spent() -> (u64, u64) {
    let mut spent = (0, 0);
    for task in fs::read_dir("/proc/self/task").expect("tasks") {
        let path = task.expect("task").path();
        let stat = fs::read_to_string(path.join("stat")).expect("stat");
        let (name, rest) = stat.rsplit_once(')').expect("name");
        if !name.contains("(tamis-") {
            continue;
        }
        let fields: Vec<_> = rest.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("ticks");
        spent.0 += ticks(11) + ticks(12);
        let status = fs::read_to_string(path.join("status")).expect("status");
        let switches = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        spent.1 +=
            switches.map(|(_, count)| count.trim().parse::<u64>().expect("count")).sum::<u64>();
    }
    spent
}

#[test]
fn idle_threads_use_no_cpu() {
    if !is_child() {
        in_child("io::linux::tests::idle::idle_threads_use_no_cpu", false);
        return;
    }
    for engine in ENGINES {
        let directory = directory();
        let disk = open(engine, &directory, 8);
        let reads = (0..100).map(|count| disk.read(ReadRequest::new(count << 12, BLOCK_BYTES)));
        block_on(join_all(reads));
        block_on(disk.sync()).expect("sync");
        // Longer than the timers of the last flush.
        thread::sleep(Duration::from_millis(600));
        let before = spent();
        assert!(before.1 > 0, "no thread of the disk was found");
        thread::sleep(Duration::from_secs(1));
        let after = spent();
        assert_eq!(after, before, "idle threads have used clock ticks or switched");
        drop(disk);
    }
}
