//! `stat`: running caches, and how those are told that do not run, do not answer or have ended.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tamis::{BlobCache, NamespaceQuota, StatusClient, StatusError};

use super::stores::{self, PAGES, page};
use super::{Outcome, folder, on, tamis};

const OWNER: &str = "TAMIS_STAT_OWNER";

fn open(folder: &Path) -> BlobCache {
    let quota = NamespaceQuota { l1_bytes_max: Some(100_000), l2_bytes_max: None };
    let builder = stores::builder(folder).l2_status_socket(true).quota("other", quota);
    block_on(BlobCache::open(builder.build().unwrap())).unwrap()
}

fn stat(folder: &Path, options: &[&str]) -> Outcome {
    let command = ["stat", folder.to_str().unwrap()];
    tamis(command.iter().chain(options))
}

/// The error of a command that fails, told as text and as JSON.
fn refused(folder: &Path, code: i32, kind: &str) -> (String, Value) {
    let Outcome { stderr, stdout, .. } = stat(folder, &["-1"]).expect(code);
    assert_eq!(stdout, "");
    let error = stat(folder, &["-1", "--json"]).expect(code).json()["error"].take();
    assert_eq!(error["kind"], kind);
    let told = error["message"].as_str().unwrap().to_owned();
    assert_eq!(stderr, format!("tamis: {told}\n"));
    for options in [["--namespaces"], ["--config"]] {
        assert_eq!(stat(folder, &options).expect(code).stderr, stderr);
    }
    (told, error["owner"].clone())
}

/// A process with a cache that has a socket, from this binary.
struct Owner {
    child: Child,
    _stdout: ChildStdout,
}

impl Owner {
    fn new(folder: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let command = command.args(["--exact", "stat::an_owner", "--nocapture"]).env(OWNER, folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("owner is ready") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the owner has ended");
        }
        Self { child, _stdout: stdout.into_inner() }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the owner does; nothing in the tests themselves.
#[test]
fn an_owner() {
    let Some(folder) = env::var_os(OWNER) else { return };
    let cache = open(Path::new(&folder));
    block_on(cache.put("pages", "key", "value")).unwrap();
    block_on(cache.sync()).unwrap();
    println!("owner is ready");
    // Until the other end says so, or has ended.
    let _ = std::io::stdin().read(&mut [0]);
    stores::close(&cache);
}

#[test]
fn a_line_tells_what_the_cache_does() {
    let folder = folder();
    let cache = open(folder.path());
    stores::fill(&cache);
    let outcome = thread::scope(|scope| {
        let watching = scope.spawn(|| stat(folder.path(), &["-1", "--interval", "2", "--json"]));
        while !watching.is_finished() {
            for number in 0..PAGES {
                block_on(cache.get("pages", page(number))).unwrap();
                block_on(cache.put("more", "key", "value")).unwrap();
            }
            block_on(cache.get("pages", "none"));
            thread::sleep(Duration::from_millis(20));
        }
        watching.join().unwrap()
    });
    let line = outcome.expect(0).json();
    let figure = |member: &str| line[member].as_f64().unwrap();
    assert_eq!(line["pid"], std::process::id());
    assert!((1.9..20.0).contains(&figure("interval_seconds")), "{line}");
    let (gets, puts) = (figure("gets_per_second"), figure("puts_per_second"));
    assert!(gets > 20.0 && puts > 20.0 && (gets / puts - 41.0 / 40.0).abs() < 0.3, "{line}");
    let hits = figure("l1_hit_pct") + figure("l2_hit_pct");
    assert!((90.0..99.0).contains(&hits), "one of 41 is a miss: {line}");
    assert!((1.0..1.5).contains(&figure("write_amplification")), "{line}");
    assert!(figure("l1_bytes") > 1000.0 && figure("l2_bytes") > 100_000.0, "{line}");
    assert_eq!((&line["state"], &line["reason"]), (&json!("healthy"), &Value::Null));
    assert_eq!((figure("errors"), figure("drops")), (0.0, 0.0));
    // Under the names that everything else has.
    for figure in cache.stats().figures() {
        assert!(line["figures"][figure.export_name()].is_number(), "{}", figure.name());
    }
    let text = stat(folder.path(), &["--count", "22", "--interval", "0.1"]).expect(0).stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 24, "{text}");
    assert!(lines[0].trim_start().starts_with("gets/s ") && lines[0] == lines[21], "{text}");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    // Nothing was asked for, so there is no share of hits, but sizes.
    assert_eq!((words[..3].join(" "), words.last()), ("0.0 - -".to_owned(), Some(&"healthy")));
    assert!(lines.iter().all(|line| line.len() <= lines[0].len() + 10), "{text}");
    stores::close(&cache);
}

#[test]
fn namespaces_and_settings_are_shown() {
    let folder = folder();
    let cache = open(folder.path());
    stores::fill(&cache);
    block_on(cache.put("a \"b\"\n\u{1b}[31m", "key", "value")).unwrap();
    let lines = stat(folder.path(), &["--namespaces", "--json"]).expect(0).json_lines();
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0]), (3, "pages"));
    assert!(names.contains(&"a \"b\"\n\u{1b}[31m"));
    let pages = cache.namespace_stats("pages").unwrap();
    assert_eq!(lines[0]["figures"]["tamis_namespace_entries"], pages.entries());
    let other = lines.iter().find(|line| line["name"] == "other").unwrap();
    assert_eq!(other["quota"], json!({ "l1_bytes_max": 100_000, "l2_bytes_max": null }));
    let text = stat(folder.path(), &["--namespaces"]).expect(0).stdout;
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("a \"b\"\\n\\u{1b}[31m") && text.contains("97.6 KiB"), "{text}");
    let config = stat(folder.path(), &["--config", "--json"]).expect(0).json();
    assert_eq!(config["l2_segment_bytes"], stores::SEGMENT_BYTES);
    assert_eq!((&config["l2_status_socket"], &config["quotas"]), (&json!(true), &json!(1)));
    let text = stat(folder.path(), &["--config"]).expect(0).stdout;
    assert!(text.contains("l2_path") && text.contains(folder.path().to_str().unwrap()), "{text}");
    stores::close(&cache);
}

#[test]
fn a_store_without_an_owner_or_no_store_is_told() {
    let folder = folder();
    for missing in [folder.path(), &folder.path().join("missing")] {
        let (told, _) = refused(missing, 3, "no_store");
        assert!(told.contains(missing.to_str().unwrap()), "{told}");
    }
    stores::closed(folder.path());
    let before = super::contents(folder.path());
    let (told, owner) = refused(folder.path(), 5, "no_owner");
    assert!(told.contains("no cache has the store in") && owner.is_null(), "{told}");
    assert!(before == super::contents(folder.path()));
    // A reader is no owner.
    let reader = tamis::StoreReader::open(folder.path(), tamis::StoreAccess::Alone).unwrap();
    refused(folder.path(), 5, "no_owner");
    drop(reader);
}

#[test]
fn an_owner_without_a_socket_is_named_with_the_setting() {
    let folder = folder();
    let cache = stores::open(folder.path());
    let (told, owner) = refused(folder.path(), 4, "no_socket");
    assert!(told.contains("l2_status_socket(true)"), "{told}");
    assert!(told.starts_with(&format!("process {} ", std::process::id())), "{told}");
    assert_eq!(owner, json!(std::process::id()));
    // An earlier owner had one.
    drop(UnixListener::bind(folder.path().join("status.sock")).unwrap());
    refused(folder.path(), 4, "no_socket");
    stores::close(&cache);
    fs::remove_file(folder.path().join("status.sock")).unwrap();
}

#[test]
fn a_killed_owner_is_told_and_replaced_and_its_socket_confuses_no_command() {
    let folder = folder();
    let mut owner = Owner::new(folder.path());
    let line = stat(folder.path(), &["-1", "-i", "0.1", "--json"]).expect(0).json();
    assert_eq!(line["pid"], owner.child.id());
    let mut watch = Command::new(env!("CARGO_BIN_EXE_tamis"));
    let watch = watch.arg("stat").arg(folder.path()).args(["-i", "0.1"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        lines.next().unwrap().unwrap();
    }
    owner.kill();
    let ended = watch.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(5));
    let told = String::from_utf8(ended.stderr).unwrap();
    let pid = format!("process {}, which was watched, has ended", owner.child.id());
    assert!(told.contains(&pid) && told.contains("without closing it"), "{told}");
    let (told, _) = refused(folder.path(), 5, "owner_dead");
    assert!(told.contains("without closing it"), "{told}");

    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!((&shown["state"], &shown["entries"]), (&json!("unclean"), &json!(1)));
    on(folder.path(), "verify", &[]).expect(0);
    on(folder.path(), "dump", &[]).expect(0);
    let copies = super::folder();
    let (copy, restored) = (copies.path().join("copy"), copies.path().join("restored"));
    tamis(["backup".as_ref(), folder.path(), &copy]).expect(0);
    tamis(["restore".as_ref(), folder.path(), &restored]).expect(0);
    for copy in [&copy, &restored] {
        assert_eq!(fs::read_dir(copy).unwrap().count(), 1);
    }
    // To where a socket is left.
    fs::remove_file(folder.path().join("data")).unwrap();
    tamis(["restore".as_ref(), copy.as_path(), folder.path()]).expect(0);

    let mut next = Owner::new(folder.path());
    let line = stat(folder.path(), &["-1", "-i", "0.1", "--json"]).expect(0).json();
    assert_eq!(line["pid"], next.child.id());
    drop(next.child.stdin.take());
    assert!(next.child.wait().unwrap().success(), "closed");
    refused(folder.path(), 5, "no_owner");
}

#[test]
fn a_stopped_owner_is_told_from_one_that_has_ended() {
    let folder = folder();
    let owner = Owner::new(folder.path());
    owner.signal(Signal::STOP);
    let start = Instant::now();
    let error = stat(folder.path(), &["-1", "--json"]).expect(3).json()["error"].take();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!((&error["kind"], &error["owner"]), (&json!("silent"), &json!(owner.child.id())));
    // The queue of those that wait may be full.
    let waiting: Vec<_> = (0..100).map_while(|_| connect_at_once(folder.path())).collect();
    assert!(waiting.len() < 100, "{}", waiting.len());
    let error = StatusClient::connect(folder.path()).unwrap_err();
    assert!(
        matches!(error, StatusError::Silent { owner: Some(pid), .. } if pid == owner.child.id())
    );
    drop(waiting);
    owner.signal(Signal::CONT);
    let line = stat(folder.path(), &["-1", "-i", "0.1", "--json"]).expect(0).json();
    assert_eq!(line["pid"], owner.child.id());
}

/// None if the queue is full.
fn connect_at_once(folder: &Path) -> Option<rustix::fd::OwnedFd> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let address = SocketAddrUnix::new(folder.join("status.sock")).unwrap();
    connect(&stream, &address).ok().map(|()| stream)
}

/// As a cache does with one that was silent for long.
#[test]
fn a_connection_that_was_ended_is_made_again() {
    let folder = folder();
    let listener = UnixListener::bind(folder.path().join("status.sock")).unwrap();
    let mut client = StatusClient::connect(folder.path()).unwrap();
    drop(listener.accept().unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        stream.write_all(b"{}\n").unwrap();
        request
    });
    assert_eq!(client.ask("stats"), Ok("{}".to_owned()));
    assert_eq!(answering.join().unwrap(), "stats\n");
    // Nor is anybody there any more, nor was there ever a store.
    let error = client.ask("stats").unwrap_err();
    assert!(matches!(error, StatusError::NoStore { .. }), "{error}");
}

#[test]
fn a_cache_that_serves_as_many_as_it_may_says_so() {
    let folder = folder();
    let cache = open(folder.path());
    let mut clients: Vec<_> =
        (0..16).map(|_| StatusClient::connect(folder.path()).unwrap()).collect();
    clients.iter_mut().for_each(|client| _ = client.ask("stats").unwrap());
    refused(folder.path(), 3, "busy");
    drop(clients);
    // The cache sees in its own time that they have gone.
    let begun = Instant::now();
    let error = loop {
        let answer = StatusClient::connect(folder.path()).unwrap().ask("frobnicate").unwrap();
        if !answer.contains("busy") || begun.elapsed() > Duration::from_secs(60) {
            break answer;
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert!(error.contains("unknown_request"), "{error}");
    stores::close(&cache);
}

/// Others have all its connections for a moment.
#[test]
fn a_cache_that_is_busy_for_a_moment_does_not_end_the_watch() {
    let folder = folder();
    let listener = UnixListener::bind(folder.path().join("status.sock")).unwrap();
    let stats = |uptime: f64| json!({ "stats": { "pid": 1, "uptime_seconds": uptime } });
    let busy = json!({ "error": { "kind": "busy", "message": "ask again later" } });
    let answers = [stats(10.0), busy.clone(), busy, stats(11.0)];
    let answering = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{answer}").unwrap();
        }
    });
    let line = stat(folder.path(), &["-1", "-i", "0.1", "--json"]).expect(0).json();
    assert_eq!(line["uptime_seconds"], 11.0);
    answering.join().unwrap();
}

#[test]
fn a_store_that_is_opened_anew_is_said_to_be_and_one_that_is_closed_ends_the_watch() {
    let folder = folder();
    let cache = open(folder.path());
    let mut watch = Command::new(env!("CARGO_BIN_EXE_tamis"));
    let watch = watch.arg("stat").arg(folder.path()).args(["-i", "1.5", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    stores::close(&cache);
    let cache = open(folder.path());
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(line["uptime_seconds"].as_f64().unwrap() > 1.0, "from its second sample on: {line}");
    stores::close(&cache);
    let rest: Vec<_> = lines.map(|line| line.unwrap()).collect();
    let error: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    assert_eq!(error["error"]["kind"], "no_owner");
    let ended = watch.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(5));
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("was opened anew, by process"), "{told}");
    assert!(told.contains("which was watched, has ended"), "{told}");
}

#[test]
fn command_lines_of_stat_that_make_no_sense_are_told() {
    for options in [
        &["-1", "--count", "2"][..],
        &["--interval", "0"],
        &["--interval", "nan"],
        &["--interval", "1e9"],
        &["--namespaces", "--config"],
        &["--config", "-1"],
    ] {
        stat(Path::new("."), options).expect(2);
    }
}
