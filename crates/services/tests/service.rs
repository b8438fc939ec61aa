//! The programs, started for real and asked by real clients.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use self::program::Program;

struct Pages(Program);

impl Pages {
    fn start(l2: &Path) -> Self {
        let l2 = l2.to_str().unwrap();
        Self(Program::start(env!("CARGO_BIN_EXE_pages"), &["--l2", l2]))
    }

    /// What `x-cache` says, and the page.
    fn get(&self, path: &str) -> (String, String) {
        let mut answer = ureq::get(format!("{}{path}", self.0.address)).call().unwrap();
        let from = answer.headers().get("x-cache").map(|it| it.to_str().unwrap().to_owned());
        (from.unwrap_or_default(), answer.body_mut().read_to_string().unwrap())
    }

    fn change(&self, id: u32, category: &str, price: u32) {
        let product =
            json!({"name": format!("product {id}"), "category": category, "price": price});
        ureq::put(format!("{}/products/{id}", self.0.address)).send_json(product).unwrap();
    }

    fn purge(&self, query: &str) -> u32 {
        let url = format!("{}/purge?{query}", self.0.address);
        let told = ureq::post(url).send_empty().unwrap().body_mut().read_to_string().unwrap();
        told.trim().parse().unwrap()
    }

    /// Until the page comes from the cache and is fresh.
    fn refreshed(&self, path: &str) -> String {
        for _ in 0..200 {
            let (from, page) = self.get(path);
            if from == "hit" {
                return page;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{path} is not refreshed");
    }
}

#[test]
fn a_change_reaches_every_page_that_shows_it() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = Pages::start(folder.path());
    for id in 1..4 {
        pages.change(id, "kitchen", 10 * id);
    }
    let (from, page) = pages.get("/categories/kitchen");
    assert_eq!(from, "miss");
    assert!(page.contains("</a> 20<"), "{page}");
    assert_eq!(pages.get("/categories/kitchen"), ("hit".to_owned(), page));
    pages.get("/products/1");
    pages.get("/products/2");

    pages.change(2, "kitchen", 99);
    let (from, page) = pages.get("/categories/kitchen");
    assert_eq!(from, "stale", "answered at once");
    assert!(page.contains("</a> 20<"), "{page}");
    for path in ["/categories/kitchen", "/products/2"] {
        let page = pages.refreshed(path);
        assert!(page.contains("</a> 99<") && !page.contains("</a> 20<"), "{page}");
    }
    assert_eq!(pages.get("/products/1").0, "hit", "it shows something else");

    // A product that comes to a page which does not show it yet.
    pages.change(7, "kitchen", 5);
    pages.get("/categories/kitchen");
    assert!(pages.refreshed("/categories/kitchen").contains("product 7"));

    assert_eq!(pages.purge("tag=product:2&hard=true"), 2);
    assert_eq!(pages.get("/products/2").0, "miss");
    // The page of the category is gone with the other product.
    assert_eq!(pages.purge("tag=product:1"), 1);
    assert_eq!(pages.get("/products/1").0, "stale");
    let missing = ureq::get(format!("{}/products/1000", pages.0.address)).call();
    assert!(matches!(missing, Err(ureq::Error::StatusCode(404))), "{missing:?}");

    // A page that was asked for before there was such a product.
    let early = ureq::get(format!("{}/products/8", pages.0.address)).call();
    assert!(matches!(early, Err(ureq::Error::StatusCode(404))), "{early:?}");
    pages.change(8, "garden", 5);
    assert!(pages.get("/products/8").1.contains("</a> 5<"));

    // A restart is warm.
    pages.refreshed("/products/3");
    pages.0.stop("-INT");
    let pages = Pages::start(folder.path());
    assert_eq!(pages.get("/products/3").0, "hit");
}

/// It ends though a client has sent half of a call, and its successor, which is there already,
/// waits for the store.
#[test]
fn a_successor_begins_warm() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = Pages::start(folder.path());
    pages.change(3, "garden", 5);
    pages.get("/products/3");
    let address = pages.0.address.strip_prefix("http://").unwrap().to_owned();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /products/3 HTTP/1.1\r\nhost: ").unwrap();
    let successor = thread::scope(|scope| {
        let successor = scope.spawn(|| Pages::start(folder.path()));
        thread::sleep(Duration::from_millis(500));
        assert!(!successor.is_finished(), "it has no store");
        pages.0.stop("-TERM");
        successor.join().unwrap()
    });
    assert_eq!(successor.get("/products/3").0, "hit");
}

#[test]
fn a_crowd_makes_one_page() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = Pages::start(folder.path());
    pages.change(1, "kitchen", 10);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert!(pages.get("/products/1").1.contains("</a> 10<")));
        }
    });
    assert_eq!(pages.get("/rendered").1, "1\n");
}

/// Words of a query that could be names of series.
fn series_of(query: &str) -> BTreeSet<String> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("tamis_")).map(str::to_owned).collect()
}

fn queries(panel: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for target in panel["targets"].as_array().into_iter().flatten() {
        found.push(target["expr"].as_str().expect("an expression").to_owned());
    }
    for panel in panel["panels"].as_array().into_iter().flatten() {
        found.extend(queries(panel));
    }
    found
}

#[test]
fn the_dashboard_asks_for_series_that_there_are() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pages = Pages::start(folder.path());
    pages.change(1, "kitchen", 10);
    pages.get("/products/1");
    pages.get("/products/1");
    let figures = pages.get("/metrics").1;
    let names: BTreeSet<&str> = figures
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let text = include_str!("../grafana.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() >= 10, "{queries:?}");
    for query in queries {
        let series = series_of(&query);
        assert!(!series.is_empty(), "{query}");
        for name in series {
            assert!(names.contains(name.as_str()), "{name} of {query} is not in {names:?}");
        }
    }
}

fn ask(stream: &mut BufReader<TcpStream>, name: &str) -> Option<(String, Vec<u8>)> {
    stream.get_mut().write_all(format!("{name}\n").as_bytes()).unwrap();
    let mut head = String::new();
    stream.read_line(&mut head).unwrap();
    let (length, from) = head.trim().split_once(' ')?;
    let mut bytes = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut bytes).unwrap();
    Some((from.to_owned(), bytes))
}

#[test]
fn files_are_served_by_a_thread_for_each_core() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (files, l2) = (folder.path().join("files"), folder.path().join("l2"));
    fs::create_dir(&files).unwrap();
    for number in 0..20_u8 {
        fs::write(files.join(format!("{number}")), vec![number; 100_000]).unwrap();
    }
    let arguments = ["--folder", files.to_str().unwrap(), "--l2", l2.to_str().unwrap()];
    let arguments = [&arguments[..], &["--threads", "3"]].concat();
    let program = Program::start(env!("CARGO_BIN_EXE_files"), &arguments);
    let connect = || BufReader::new(TcpStream::connect(&program.address).unwrap());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = connect();
                for number in 0..20_u8 {
                    let (_, bytes) = ask(&mut stream, &number.to_string()).unwrap();
                    assert!(bytes == vec![number; 100_000], "{number}");
                }
            });
        }
    });
    let mut stream = connect();
    ask(&mut stream, "7").unwrap();
    assert_ne!(ask(&mut stream, "7").unwrap().0, "file", "asked for a moment ago");
    for name in ["none", "../files/7", ".", ""] {
        assert_eq!(ask(&mut stream, name), None, "{name:?}");
    }
    // A file that has changed is seen when its time is over.
    fs::write(files.join("7"), "another").unwrap();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(ask(&mut stream, "7").unwrap(), ("file".to_owned(), b"another".to_vec()));
}
