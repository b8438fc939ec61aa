//! The tokens of a source file, and what `tests/structure.rs` reads from them.

use std::collections::BTreeSet;

/// A name that a file imports or exports.
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
    pub(crate) is_export: bool,
}

/// What a file defines and uses, without its tests.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) children: BTreeSet<String>,
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    /// Paths in the code, as lists of their segments.
    pub(crate) paths: Vec<Vec<String>>,
    /// Names in the code outside of imports and exports.
    pub(crate) words: BTreeSet<String>,
    /// Methods with a receiver that impls and traits define.
    pub(crate) methods: BTreeSet<String>,
    /// Methods that are called as `.name(`.
    pub(crate) calls: BTreeSet<String>,
    /// Inherent impls: the path of the type, its functions, and those that are called on `self` or
    /// `Self`.
    pub(crate) impls: Vec<(Vec<String>, BTreeSet<String>, BTreeSet<String>)>,
}

impl Source {
    pub(crate) fn new(path: String, text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut source = Self { path, ..Self::default() };
        let (mut depth, mut at) = (0, 0);
        while at < tokens.len() {
            let next = tokens.get(at + 1).map_or("", String::as_str);
            match tokens[at].as_str() {
                "use" if next != "<" => at = source.read_use(&tokens, at),
                // And not the `impl Trait` of a signature.
                "impl" | "trait" if depth == 0 && is_first(&tokens, at) => {
                    source.read_block(&tokens, at);
                    if tokens[at] == "trait" {
                        source.items.insert(next.to_owned());
                    }
                }
                "mod" if depth == 0 && tokens.get(at + 2).is_some_and(|it| it == ";") => {
                    source.children.insert(next.to_owned());
                    at += 1;
                }
                "struct" | "enum" | "type" | "fn" | "const" | "static" | "union"
                    if depth == 0 && !matches!(next, "fn" | "unsafe" | "async") =>
                {
                    source.items.insert(next.to_owned());
                }
                "{" => depth += 1,
                "}" => depth -= 1,
                "." if tokens.get(at + 2).is_some_and(|it| it == "(" || it == "::") => {
                    source.calls.insert(next.to_owned());
                }
                word if is_word(word) => {
                    source.words.insert(word.to_owned());
                    if next == "::" && (at == 0 || tokens[at - 1] != "::") {
                        source.paths.push(path_at(&tokens, at));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        source
    }

    /// Reads `use a::{b, c as d};`. Returns the place of its end.
    fn read_use(&mut self, tokens: &[String], at: usize) -> usize {
        let is_export = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
        let end = at + tokens[at..].iter().position(|it| it == ";").unwrap();
        let (mut prefixes, mut path) = (vec![Vec::new()], Vec::new());
        let mut name = None;
        for token in &tokens[at + 1..=end] {
            match token.as_str() {
                "::" => {}
                "as" => name = Some(String::new()),
                "{" => prefixes.push(path.clone()),
                "," | "}" | ";" => {
                    let prefix: &Vec<String> = prefixes.last().unwrap();
                    if path.len() > prefix.len() {
                        if path.last().is_some_and(|it| it == "self") {
                            path.pop();
                        }
                        let name = name.take().unwrap_or_else(|| path.last().unwrap().clone());
                        self.uses.push(Use { name, path: path.clone(), is_export });
                    }
                    if token == "}" {
                        prefixes.pop();
                        // The comma behind it must not add the prefix itself.
                        path = prefixes.last().unwrap().clone();
                    } else {
                        path = prefix.clone();
                    }
                }
                word => match &mut name {
                    Some(name) => *name = word.to_owned(),
                    None => path.push(word.to_owned()),
                },
            }
        }
        end
    }

    /// Reads the functions of an impl or a trait.
    fn read_block(&mut self, tokens: &[String], at: usize) {
        let Some(open) = tokens[at..].iter().position(|it| it == "{").map(|open| at + open) else {
            return;
        };
        let end = skip(tokens, open);
        let head = &tokens[at + 1..open];
        let head = head.split(|it| it == "where").next().unwrap();
        let generics = if head.first().is_some_and(|it| it == "<") { skip(head, 0) } else { 0 };
        let head = &head[generics..];
        let is_inherent = tokens[at] == "impl" && !head.contains(&"for".to_owned());
        let (mut functions, mut calls) = (BTreeSet::new(), BTreeSet::new());
        for place in open..end {
            let next = tokens.get(place + 1).map_or("", String::as_str);
            match tokens[place].as_str() {
                "fn" => {
                    functions.insert(next.to_owned());
                    let after = &tokens[place + 2..end];
                    let from = if after[0] == "<" { skip(after, 0) } else { 0 };
                    let receiver = after[from + 1..].iter().find(|it| *it != "&" && *it != "mut");
                    if receiver.is_some_and(|it| it == "self") {
                        self.methods.insert(next.to_owned());
                    }
                }
                "self" | "Self"
                    if matches!(next, "." | "::")
                        && tokens.get(place + 3).is_some_and(|it| it == "(" || it == "::") =>
                {
                    calls.insert(tokens[place + 2].clone());
                }
                _ => {}
            }
        }
        if is_inherent {
            self.impls.push((path_at(head, 0), functions, calls));
        }
    }
}

/// The path whose first segment is at a place.
fn path_at(tokens: &[String], mut at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].clone()];
    while tokens.get(at + 1).is_some_and(|it| it == "::")
        && tokens.get(at + 2).is_some_and(|it| is_word(it))
    {
        at += 2;
        path.push(tokens[at].clone());
    }
    path
}

/// The place behind the bracket that closes the one at a place.
fn skip(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(at) {
        match (token.as_str(), tokens[at].as_str()) {
            ("<", "<") | ("{" | "(" | "[", "{" | "(" | "[") => depth += 1,
            (">", "<") | ("}" | ")" | "]", "{" | "(" | "[") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place + 1;
        }
    }
    tokens.len()
}

/// Leaves out items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].iter().zip(mark).all(|(token, mark)| token == mark) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += mark.len();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" => {
                    at = skip(tokens, at);
                    break;
                }
                "(" | "[" | "<" => at = skip(tokens, at),
                ";" | "," => {
                    at += 1;
                    break;
                }
                _ => at += 1,
            }
        }
    }
    kept
}

/// Whether an item begins at a place.
fn is_first(tokens: &[String], at: usize) -> bool {
    let before = at.checked_sub(1).map_or(";", |before| tokens[before].as_str());
    [";", "}", "]", ")", "pub", "unsafe"].contains(&before)
}

fn is_word(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Words, `::`, `->`, `=>`, and single signs; no comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_in_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else if first == '\'' {
            quote_length(rest)
        } else if is_in_word(first) {
            let length = rest.find(|letter| !is_in_word(letter)).unwrap_or(rest.len());
            found.push(rest[..length].to_owned());
            length
        } else if let Some(sign) = ["::", "->", "=>"].iter().find(|it| rest.starts_with(**it)) {
            found.push((*sign).to_owned());
            sign.len()
        } else {
            if !first.is_whitespace() {
                found.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

fn string_length(text: &str) -> usize {
    let mut is_escaped = true;
    for (place, letter) in text.char_indices() {
        if letter == '"' && !is_escaped {
            return place + 1;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text.len()
}

/// The length of a character, or of the sign and name of a lifetime.
fn quote_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(text.len(), |end| end + 4),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => text[1..].find(|it: char| !it.is_alphanumeric() && it != '_').map_or(1, |it| it + 1),
    }
}
