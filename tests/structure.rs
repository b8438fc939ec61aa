//! The shape of `src/` and `crates/versus/src/` that the compiler does not check: no cycle among
//! their files, by imports or by method calls, and no type whose inherent methods are scattered
//! over files.
//!
//! Inherent methods need no import, so imports alone would miss most of the coupling. Therefore a
//! call `.some_method(` is an edge to the file that defines the method, if there is exactly one and
//! the name has an underscore; shorter names collide with those of the standard library. A
//! re-export is no edge: an import through it leads to the file that defines the item. Tests and
//! their helpers are left out.

#![allow(clippy::unwrap_used, reason = "whatever fails, fails the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

mod tokens;

use tokens::{Source, Use};

/// Files that only tests use, and the crate's list of exports.
const LEFT_OUT: &[&str] = &["/tests/", "tests.rs", "io/simula", "lib.rs", "docs.rs"];

/// Methods of the standard library with an underscore that this crate defines once, too.
const STD_METHODS: &[&str] =
    &["is_empty", "as_slice", "remove_entry", "read_at", "poll_next", "as_ref", "from_str"];

/// Files in which one type may have inherent methods.
const IMPL_FILES_MAX: usize = 2;

/// The public handles: their verbs are in files by subject, and each calls into the engine.
const HANDLES: &[&str] = &["BlobCache", "BlobCacheNamespace"];

type Names = BTreeSet<String>;

/// The inherent impls of one type by file: the functions that each defines, and calls on itself.
type Parts<'a> = BTreeMap<&'a str, (Names, Names)>;

/// The edges from each file, with the names that make them.
#[derive(Default)]
struct Graph(BTreeMap<String, BTreeMap<String, Names>>);

impl Graph {
    fn add(&mut self, from: &str, to: &str, name: String) {
        if from != to {
            let edges = self.0.entry(from.to_owned()).or_default();
            edges.entry(to.to_owned()).or_default().insert(name);
        }
    }

    /// The shortest cycle, one line for each edge.
    fn cycle(&self) -> Option<Vec<String>> {
        let cycles = self.0.keys().filter_map(|start| self.cycle_at(start));
        let shortest = cycles.min_by_key(Vec::len)?;
        let next = shortest.iter().cycle().skip(1);
        let shown = shortest.iter().zip(next).map(|(from, to)| {
            let names: Vec<_> = self.0[*from][*to].iter().map(String::as_str).collect();
            format!("{from} -> {to}: {}", names.join(", "))
        });
        Some(shown.collect())
    }

    fn cycle_at<'a>(&'a self, start: &'a String) -> Option<Vec<&'a String>> {
        let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for next in self.0.get(file).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    let mut path = vec![file];
                    while *path.last().unwrap() != start {
                        path.push(came_from[*path.last().unwrap()]);
                    }
                    path.reverse();
                    return Some(path);
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, file);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// All files, by the path of their module.
struct Tree(BTreeMap<Vec<String>, Source>);

/// What a path in the code leads to.
enum Target {
    Module(Vec<String>),
    Item(String),
}

impl Tree {
    /// Takes pairs of a path inside `src/` and its text.
    fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let kept = files
            .into_iter()
            .filter(|(path, _)| !LEFT_OUT.iter().any(|part| format!("/{path}").contains(part)));
        Self(kept.map(|(path, text)| (module_path(&path), Source::new(path, &text))).collect())
    }

    /// All files of a folder.
    fn of(folder: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let (mut folders, mut files) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(folder).unwrap() {
                let path = item.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inside = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    files.push((inside, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Self::new(files)
    }

    fn resolve(&self, module: &[String], path: &[String], tries: usize) -> Option<Target> {
        let source = self.0.get(module);
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            child if source.is_some_and(|it| it.children.contains(child)) => {
                [module, &[child.to_owned()]].concat()
            }
            name => {
                let import = source?.uses.iter().find(|it| it.name == name && it.path != path)?;
                match self.resolve(module, &import.path, tries.checked_sub(1)?)? {
                    Target::Module(path) => path,
                    Target::Item(file) => return Some(Target::Item(file)),
                }
            }
        };
        while let Some((name, after)) = rest.split_first() {
            let inner = [at.as_slice(), std::slice::from_ref(name)].concat();
            if name == "super" {
                at.pop()?;
            } else if self.0.keys().any(|key| key.starts_with(&inner)) {
                at = inner;
            } else {
                let source = self.0.get(&at)?;
                if source.items.contains(name) {
                    return Some(Target::Item(source.path.clone()));
                }
                let export = source.uses.iter().find(|it| it.is_export && it.name == *name)?;
                return self.resolve(&at, &export.path, tries.checked_sub(1)?);
            }
            rest = after;
        }
        Some(Target::Module(at))
    }

    fn file_of(&self, module: &[String], path: &[String]) -> Option<String> {
        match self.resolve(module, path, 9)? {
            Target::Item(file) => Some(file),
            Target::Module(_) => None,
        }
    }

    fn graph(&self) -> Graph {
        let mut definers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for source in self.0.values() {
            for method in &source.methods {
                definers.entry(method).or_default().insert(&source.path);
            }
        }
        let mut graph = Graph::default();
        for (module, source) in &self.0 {
            // A file that exports a name may use it, too.
            let is_used = |it: &&Use| !it.is_export || source.words.contains(&it.name);
            let imports = source.uses.iter().filter(is_used).map(|it| &it.path);
            for path in imports.chain(&source.paths) {
                if let Some(file) = self.file_of(module, path) {
                    graph.add(&source.path, &file, path.last().unwrap().clone());
                }
            }
            for call in source.calls.iter().filter(|call| call.contains('_')) {
                let files = definers.get(call.as_str()).filter(|files| files.len() == 1);
                let file = files.and_then(|files| files.first());
                if let Some(file) = file.filter(|_| !STD_METHODS.contains(&call.as_str())) {
                    graph.add(&source.path, file, format!(".{call}()"));
                }
            }
        }
        graph
    }

    /// Inherent impls in too many files, or that call each other to and fro.
    fn scattered(&self) -> Vec<String> {
        let mut types: BTreeMap<(String, String), Parts<'_>> = BTreeMap::new();
        for (module, source) in &self.0 {
            for (path, methods, calls) in &source.impls {
                let name = path.last().unwrap().clone();
                let home = match path.as_slice() {
                    [name] if source.items.contains(name) => source.path.clone(),
                    path => self.file_of(module, path).unwrap_or_default(),
                };
                let parts = types.entry((home, name)).or_default();
                let (known, called) = parts.entry(&source.path).or_default();
                known.extend(methods.iter().cloned());
                called.extend(calls.iter().cloned());
            }
        }
        let mut faults = Vec::new();
        for ((_, name), parts) in types {
            let files: Vec<_> = parts.keys().copied().collect();
            if HANDLES.contains(&name.as_str()) {
                continue;
            }
            if files.len() > IMPL_FILES_MAX {
                faults.push(format!("{name} has inherent methods in {}", files.join(", ")));
            } else if let [(_, one), (_, other)] = &parts.iter().collect::<Vec<_>>()[..] {
                let there: Vec<_> = one.1.intersection(&other.0).cloned().collect();
                let back: Vec<_> = other.1.intersection(&one.0).cloned().collect();
                if !there.is_empty() && !back.is_empty() {
                    let (there, back) = (there.join(", "), back.join(", "));
                    let files = files.join(" and ");
                    faults.push(format!("{name} calls between {files}: {there}; back: {back}"));
                }
            }
        }
        faults
    }
}

/// `l2/index/mod.rs` is the module `l2::index`.
fn module_path(path: &str) -> Vec<String> {
    let mut parts: Vec<_> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().unwrap() == "mod" {
        parts.pop();
    }
    parts
}

#[test]
fn no_cycle_among_files() {
    for (folder, edges_min) in [("src", 700), ("crates/versus/src", 50)] {
        let graph = Tree::of(folder).graph();
        let edges: usize = graph.0.values().map(BTreeMap::len).sum();
        assert!(edges > edges_min, "only {edges} edges were found in {folder}");
        if let Some(cycle) = graph.cycle() {
            panic!("files of {folder} depend on each other:\n{}", cycle.join("\n"));
        }
    }
}

#[test]
fn no_type_is_scattered_over_files() {
    for folder in ["src", "crates/versus/src"] {
        let faults = Tree::of(folder).scattered();
        assert!(faults.is_empty(), "{folder}: {}", faults.join("\n"));
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())))
}

#[test]
fn a_planted_cycle_by_imports_is_found() {
    let shop = "mod till;\nmod goods;\npub(crate) use self::till::Till;\n";
    let till = "use super::goods::{self, Price};\npub(crate) struct Till(Price, goods::Tax);\n";
    let goods = "pub(super) struct Price;\npub(super) struct Tax;\n\
                 fn pay(_: crate::shop::Till) {}\n";
    let files = [("shop/mod.rs", shop), ("shop/till.rs", till), ("shop/goods.rs", goods)];
    let found = tree(&files).graph().cycle();
    let expected =
        ["shop/goods.rs -> shop/till.rs: Till", "shop/till.rs -> shop/goods.rs: Price, Tax"];
    assert_eq!(found.unwrap(), expected);
    // Without the way back there is none; nor by comments, strings and tests.
    let goods = "pub(super) struct Price;\npub(super) struct Tax; // crate::shop::Till\n\
                 const A: &str = \"crate::shop::Till\";\n#[cfg(test)]\nuse crate::shop::Till;\n\
                 #[cfg(test)]\nmod tests {\n    use super::super::till::Till;\n}\n";
    let files = [("shop/mod.rs", shop), ("shop/till.rs", till), ("shop/goods.rs", goods)];
    assert_eq!(tree(&files).graph().cycle(), None);
}

#[test]
fn a_planted_cycle_by_calls_alone_is_found() {
    let one = "impl Engine {\n    fn find_entry(&self) { self.read_disk() }\n}\n";
    let two = "impl Engine {\n    fn read_disk<T>(self: &Arc<Self>) { self.tell_waiters() }\n}\n";
    let three = "impl Waiters {\n    fn tell_waiters(&mut self) { x.find_entry::<u8>() }\n}\n";
    let found = tree(&[("a.rs", one), ("b.rs", two), ("c.rs", three)]).graph().cycle().unwrap();
    let expected = [
        "a.rs -> b.rs: .read_disk()",
        "b.rs -> c.rs: .tell_waiters()",
        "c.rs -> a.rs: .find_entry()",
    ];
    assert_eq!(found, expected);
    // A name that two files define tells nothing.
    let four = "impl Other {\n    fn find_entry(&self) {}\n}\n";
    let files = [("a.rs", one), ("b.rs", two), ("c.rs", three), ("d.rs", four)];
    assert_eq!(tree(&files).graph().cycle(), None);
}

#[test]
fn planted_impls_of_one_type_in_three_files_are_found() {
    let home = "pub(crate) struct Engine;\nimpl Engine {\n    fn a(&self) { self.b() }\n}\n";
    let part = "use crate::home::Engine;\nimpl<T> Engine {\n    fn b(&self) {}\n}\n";
    let other = "use crate::home::Engine;\nimpl Engine {\n    fn c(&self) {}\n}\n\
                 impl Drop for Engine {\n    fn drop(&mut self) { self.a() }\n}\n";
    // Another type with the same name.
    let namesake = "struct Engine;\nimpl Engine {\n    fn b(&self) { self.a() }\n}\n";
    let files = [("home.rs", home), ("b.rs", part), ("c.rs", other), ("d.rs", namesake)];
    assert_eq!(tree(&files).scattered(), ["Engine has inherent methods in b.rs, c.rs, home.rs"]);
    let files = [("home.rs", home), ("b.rs", part), ("d.rs", namesake)];
    assert_eq!(tree(&files).scattered(), [""; 0]);
    let part = "use crate::home::Engine;\nimpl Engine {\n    fn b(&self) { Self::a(self) }\n}\n";
    let found = tree(&[("home.rs", home), ("b.rs", part)]).scattered();
    assert_eq!(found, ["Engine calls between b.rs and home.rs: a; back: b"]);
}
