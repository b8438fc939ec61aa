//! Clients that take all they can get, send nonsense, or nothing, or do not read.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{alone, ask, ask_on, close, connect, folder, is_over, open, socket, threads};

/// As many as are served at one time.
const CLIENTS: usize = 16;

#[test]
fn sixteen_clients_are_served_and_more_are_told() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(folder.path())).collect();
    for client in &clients {
        assert!(ask_on(client, "stats").starts_with(r#"{"stats":"#));
    }
    for _ in 0..3 {
        let refused = connect(folder.path());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&refused), &mut line).unwrap();
        assert!(line.starts_with(r#"{"error":{"kind":"busy","#), "{line}");
        assert!(is_over(&refused));
    }
    drop(clients.split_off(8));
    // They are gone once the thread has looked at them.
    let start = Instant::now();
    while !ask_anyway(folder.path()).starts_with(r#"{"stats":"#) {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    for client in &clients {
        assert!(ask_on(client, "stats").starts_with(r#"{"stats":"#));
    }
    close(&cache);
    assert!(clients.iter().all(is_over));
}

/// An answer, or nothing if the connection ends before.
fn ask_anyway(path: &std::path::Path) -> String {
    let mut stream = connect(path);
    let _ = stream.write_all(b"stats\n");
    let mut line = String::new();
    let _ = std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line);
    line
}

/// Sends requests until nobody takes any more.
fn flood(mut stream: &UnixStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let requests = "stats\nnamespaces\nconfig\n".repeat(100);
    let (mut sent, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_millis(300) {
        match stream.write(requests.as_bytes()) {
            Ok(bytes) => (sent, last) = (sent + bytes, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[test]
fn clients_that_do_not_read_take_bounded_memory_and_delay_nobody() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let before = cache.stats().memory_buffers_bytes();
    let deaf: Vec<_> = (1..CLIENTS).map(|_| connect(folder.path())).collect();
    let sent: usize = thread::scope(|scope| {
        let floods: Vec<_> = deaf.iter().map(|stream| scope.spawn(|| flood(stream))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    assert!(sent > CLIENTS << 10, "{sent} bytes of requests");
    let held = cache.stats().memory_buffers_bytes() - before;
    assert!(held > CLIENTS * 4096, "{held} bytes, which are to be counted");
    assert!(held < CLIENTS * (4096 + super::ANSWER_BYTES_MAX), "{held} bytes for {sent}");
    let start = Instant::now();
    assert!(ask(folder.path(), "stats").starts_with(r#"{"stats":"#));
    futures::executor::block_on(cache.put("pages", "key", "value")).unwrap();
    close(&cache);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(threads("tamis-status").len(), 0);
}

#[test]
fn half_lines_garbage_and_silence_delay_nobody() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let mut clients: Vec<_> = (1..CLIENTS).map(|_| connect(folder.path())).collect();
    let too_long = [b'x'; 10_000];
    for (number, client) in clients.iter_mut().enumerate() {
        let sent: &[u8] = match number % 5 {
            0 => b"sta",
            1 => b"\xff\xfe\0\x01\n\x80",
            2 => b"",
            3 => b"\n\n\n\r\n",
            _ => &too_long,
        };
        // One that is too long may be refused before it is whole.
        let _ = client.write_all(sent);
    }
    for _ in 0..20 {
        assert!(ask(folder.path(), "stats").starts_with(r#"{"stats":"#));
    }
    let mut told = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&clients[4]), &mut told).unwrap();
    assert!(told.starts_with(r#"{"error":{"kind":"too_long","#), "{told}");
    // The rest of a line may come later.
    clients[0].write_all(b"ts").unwrap();
    assert!(ask_on(&clients[0], "").starts_with(r#"{"stats":"#));
    let start = Instant::now();
    close(&cache);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(clients.iter().enumerate().all(|(at, client)| at % 5 != 2 || is_over(client)));
    UnixStream::connect(socket(folder.path())).unwrap_err();
}

/// How often a thread has been awake.
fn wakes(task: &std::path::Path) -> u64 {
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let (_, count) = status.split_once("\nvoluntary_ctxt_switches:").unwrap();
    count.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_thread_sleeps_until_it_is_asked() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let clients: Vec<_> = (0..3).map(|_| connect(folder.path())).collect();
    clients.iter().for_each(|client| _ = ask_on(client, "stats"));
    let task = threads("tamis-status").pop().unwrap();
    // What it does behind its answers.
    thread::sleep(Duration::from_millis(200));
    let before = wakes(&task);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(wakes(&task), before, "it has been awake");
    ask_on(&clients[0], "stats");
    // It counts once it sleeps again.
    let start = Instant::now();
    while wakes(&task) == before {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    close(&cache);
}
