//! A status socket with clients that do what they should not.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::termination::Alive;
use super::client::REQUEST_BYTES_MAX;
use super::*;
use crate::blocking::block_on;

/// Repeats requests; panics at one, and answers another with many bytes.
struct Echo;

impl StatusAnswers for Echo {
    fn answer(&self, request: &str) -> String {
        match request {
            "panic" => panic!("as planned"),
            "long" => "x".repeat(1 << 20),
            request => format!("<{request}>"),
        }
    }
}

/// A socket that is served.
struct Bench {
    folder: TempDir,
    listener: Arc<Listener>,
    answers: Option<Arc<Echo>>,
    bytes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

fn limits(patience: Duration) -> Limits {
    Limits { clients: 3, patience, ..Limits::default() }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("directory");
        let listener = Arc::new(Listener::new().expect("a socket"));
        let bound = listener.bind(folder.path()).expect("bound");
        let (answers, bytes) = (Arc::new(Echo), Arc::<AtomicUsize>::default());
        let weak: Weak<Echo> = Arc::downgrade(&answers);
        let server = Server::new(Arc::clone(&listener), weak, Arc::clone(&bytes), limits);
        let thread = thread::spawn(move || {
            server.run().expect("served");
            drop(bound);
        });
        Self { folder, listener, answers: Some(answers), bytes, thread: Some(thread) }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join(NAME)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    }

    /// Ends it, and gives the time that this has taken.
    fn end(&mut self) -> Duration {
        let start = Instant::now();
        self.listener.close();
        self.thread.take().expect("served").join().expect("joined");
        start.elapsed()
    }
}

fn line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line
}

fn ask(mut stream: &UnixStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sent");
    line(stream)
}

/// Whether the other side has ended, which is waited for.
fn is_over(mut stream: &UnixStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn mode(path: &Path) -> Option<u32> {
    let metadata = fs::symlink_metadata(path).ok()?;
    assert!(metadata.file_type().is_socket());
    Some(metadata.permissions().mode() & 0o777)
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let mut bench = Bench::new(limits(Duration::from_secs(20)));
    let mut stream = bench.connect();
    assert_eq!(ask(&stream, "one\n"), "<one>\n");
    stream.write_all(b"two\r\n three \n\nfo").expect("sent");
    let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
    for expected in ["<two>", "<three>", "<>"] {
        assert_eq!(lines.next().expect("a line").expect("read"), expected);
    }
    stream.write_all(b"ur\n\xff\n").expect("sent");
    for expected in ["<four>", "<\u{fffd}>"] {
        assert_eq!(lines.next().expect("a line").expect("read"), expected);
    }
    // One that says that it is done before it is answered.
    let mut last = bench.connect();
    last.write_all(b"last\nhalf").expect("sent");
    last.shutdown(std::net::Shutdown::Write).expect("shut down");
    let mut all = String::new();
    last.read_to_string(&mut all).expect("read");
    assert_eq!(all, "<last>\n");
    let path = bench.folder.path().join(NAME);
    assert_eq!(mode(&path), Some(0o600));
    bench.end();
    assert_eq!(mode(&path), None, "removed");
    assert_eq!(bench.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn at_no_moment_others_may_connect() {
    let folder = tempfile::tempdir().expect("directory");
    let listener = Listener::new().expect("a socket");
    let opened = super::listener::open_folder(folder.path()).expect("opened");
    let path = folder.path().join("status.new");
    // As far as it is before it has its rights looked at.
    listener.make_file(&opened, folder.path()).expect("made");
    assert_eq!(mode(&path), Some(0o600), "from the beginning");
    let refused = UnixStream::connect(&path).expect_err("it does not listen");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // One whose file others could write to.
    let listener = Listener::new().expect("a socket");
    rustix::fs::fchmod(&listener, rustix::fs::Mode::RWXU | rustix::fs::Mode::RGRP).expect("set");
    assert_eq!(
        listener.bind(folder.path()).err().expect("refused").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
}

#[test]
fn clients_beyond_the_limit_are_told_and_a_place_is_used_again() {
    let mut bench = Bench::new(limits(Duration::from_secs(20)));
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    for client in &clients {
        assert_eq!(ask(client, "here\n"), "<here>\n");
    }
    for _ in 0..50 {
        let refused = bench.connect();
        assert!(line(&refused).contains("busy"));
        assert!(is_over(&refused));
    }
    drop(clients.pop());
    // The thread learns of that when it is next awake.
    let start = Instant::now();
    loop {
        let next = bench.connect();
        let answer = match (&next).write_all(b"here\n") {
            Ok(()) => line(&next),
            Err(_) => String::new(),
        };
        if answer == "<here>\n" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{answer}");
    }
    assert_eq!(ask(&clients[0], "still\n"), "<still>\n");
    bench.end();
    assert!(is_over(&clients[0]) && is_over(&clients[1]));
}

#[test]
fn what_is_not_sent_or_read_in_time_ends_with_its_connection() {
    let patience = Duration::from_millis(300);
    let mut bench = Bench::new(limits(patience));
    let (mut half, mut deaf, idle) = (bench.connect(), bench.connect(), bench.connect());
    let start = Instant::now();
    half.write_all(b"ha").expect("sent");
    // More than the kernel keeps for it.
    deaf.write_all(b"long\nlong\n").expect("sent");
    // A byte now and then is no answered request.
    thread::scope(|scope| {
        scope.spawn(|| {
            while half.write_all(b"a").is_ok() && start.elapsed() < Duration::from_secs(20) {
                thread::sleep(patience / 10);
            }
        });
        assert!(is_over(&idle));
    });
    let took = start.elapsed();
    assert!(took >= patience && took < Duration::from_secs(20), "{took:?}");
    // All places are free again, and the memory of the others as well.
    let clients: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    for client in &clients {
        assert_eq!(ask(client, "here\n"), "<here>\n");
    }
    assert!(bench.bytes.load(Ordering::Relaxed) <= 4 * REQUEST_BYTES_MAX);
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest);
    assert!(rest.len() < 2 << 20, "cut off");
    bench.end();
}

#[test]
fn a_request_that_is_too_long_is_the_last_one() {
    let mut bench = Bench::new(limits(Duration::from_secs(20)));
    let longest = "x".repeat(REQUEST_BYTES_MAX - 1);
    let stream = bench.connect();
    assert_eq!(ask(&stream, &format!("{longest}\n")), format!("<{longest}>\n"));
    assert!(ask(&stream, &format!("{longest}x\n")).contains("too_long"));
    assert!(is_over(&stream));
    bench.end();
}

#[test]
fn an_answer_that_panics_or_has_nobody_to_give_it_is_the_last_one() {
    let mut bench = Bench::new(limits(Duration::from_secs(20)));
    let (one, other) = (bench.connect(), bench.connect());
    assert!(ask(&one, "panic\n").contains("failed"));
    assert!(is_over(&one));
    assert_eq!(ask(&other, "here\n"), "<here>\n");
    bench.answers = None;
    assert!(ask(&other, "here\n").contains("failed"));
    assert!(is_over(&other));
    bench.end();
}

#[test]
fn no_client_delays_the_end() {
    let mut bench = Bench::new(Limits::default());
    let mut clients: Vec<_> = (0..16).map(|_| bench.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let request: &[u8] = [b"long\nlong\n".as_slice(), b"ha", b"\xff\0\n", b""][number % 4];
        client.write_all(request).expect("sent");
    }
    let start = Instant::now();
    while bench.bytes.load(Ordering::Relaxed) < 4 << 20 {
        assert!(start.elapsed() < Duration::from_secs(20), "nobody was answered");
        thread::sleep(Duration::from_millis(1));
    }
    let took = bench.end();
    assert!(took < Duration::from_secs(5), "{took:?}");
    UnixStream::connect(bench.folder.path().join(NAME)).expect_err("removed");
}

#[test]
fn a_deep_directory_has_a_socket_and_a_disk_ends_behind_it() {
    let folder = tempfile::tempdir().expect("directory");
    let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).expect("made");
    let (alive, termination) = Alive::new();
    let answers: Arc<dyn StatusAnswers> = Arc::new(Echo);
    let (socket, started) =
        StatusSocket::start(&deep, Arc::downgrade(&answers), alive).expect("a thread");
    block_on(started);
    assert_eq!(mode(&deep.join(NAME)), Some(0o600));
    let opened = fs::File::open(&deep).expect("opened");
    let short = format!("/proc/self/fd/{}/{NAME}", std::os::fd::AsRawFd::as_raw_fd(&opened));
    let stream = UnixStream::connect(short).expect("connected");
    assert_eq!(ask(&stream, "deep\n"), "<deep>\n");
    // The lock of the store is not free before the socket is gone: it could be the next owner's.
    assert!(!termination.is_over());
    socket.close();
    termination.wait_blocking();
    assert_eq!(mode(&deep.join(NAME)), None);
    assert!(is_over(&stream));
}

#[test]
fn a_socket_that_is_closed_before_it_is_bound_leaves_nothing() {
    let folder = tempfile::tempdir().expect("directory");
    let listener = Arc::new(Listener::new().expect("a socket"));
    listener.close();
    let (reply, started) = exchange();
    let answers: Weak<Echo> = Weak::new();
    let directory = folder.path().to_owned();
    serve(Serving { directory, listener, answers, bytes: Arc::default() }, reply);
    assert_eq!(block_on(started), Some(()));
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
}

#[test]
fn what_another_owner_has_left_is_replaced_and_what_cannot_be_is_told() {
    let folder = tempfile::tempdir().expect("directory");
    for name in [NAME, "status.new"] {
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(name)).expect("bound"));
    }
    let listener = Listener::new().expect("a socket");
    let bound = listener.bind(folder.path()).expect("bound");
    UnixStream::connect(folder.path().join(NAME)).expect("connected");
    drop(bound);
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
    fs::create_dir(folder.path().join(NAME)).expect("made");
    let listener = Listener::new().expect("a socket");
    assert!(listener.bind(folder.path()).is_err());
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1, "nothing beside it");
    assert!(listener.bind(&folder.path().join("missing")).is_err());
}
