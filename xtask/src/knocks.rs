//! Which tests knock on which endpoint: they say so themselves, in a comment above the test.
//!
//! ```text
//! // endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
//! #[tokio::test]
//! async fn a_retried_transaction_returns_the_same_event() {
//! ```
//!
//! Several such lines may stand above one test, and one endpoint above several tests. Line comments and doc comments
//! count alike, in the `src` and `tests` of every crate.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use crate::spec::Call;

/// The tests by what they knock on.
pub type Knocks = BTreeMap<Call, BTreeSet<Test>>;

/// A test: the file it stands in, from the top of the repository, and its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub file: String,
    pub name: String,
}

impl Test {
    /// The file without what all files have in common.
    pub fn module(&self) -> &str {
        let module = self.file.strip_suffix(".rs").unwrap_or(&self.file);
        ["/tests/it/", "/tests/"]
            .iter()
            .find_map(|folder| module.split_once(folder))
            .map_or(module.trim_start_matches("crates/"), |(_, module)| module)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.module(), self.name)
    }
}

pub fn read(top: &Path) -> Result<Knocks, String> {
    let mut knocks = Knocks::new();
    for folder in entries(&top.join("crates"))? {
        for part in ["src", "tests"] {
            read_folder(top, &folder.join(part), &mut knocks)?;
        }
    }
    Ok(knocks)
}

fn read_folder(top: &Path, folder: &Path, knocks: &mut Knocks) -> Result<(), String> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in entries(folder)? {
        if entry.is_dir() {
            read_folder(top, &entry, knocks)?;
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).map_err(|error| format!("{}: {error}", entry.display()))?;
            let file = entry.strip_prefix(top).unwrap_or(&entry).to_string_lossy();
            read_text(&text, &file, knocks).map_err(|error| format!("{}: {error}", entry.display()))?;
        }
    }
    Ok(())
}

fn read_text(text: &str, file: &str, knocks: &mut Knocks) -> Result<(), String> {
    let mut waiting = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if let Some(marker) = marker(line) {
            let (method, path) = marker.split_once(' ').ok_or_else(|| format!("no method and path: {line}"))?;
            waiting.push(Call::new(method, path.trim()));
        } else if let Some(name) = function(line) {
            for call in waiting.drain(..) {
                let test = Test { file: file.to_owned(), name: name.to_owned() };
                knocks.entry(call).or_default().insert(test);
            }
        }
    }
    match waiting.first() {
        Some(call) => Err(format!("no test follows the marker of {call}")),
        None => Ok(()),
    }
}

/// `PUT /path` of a marker line.
fn marker(line: &str) -> Option<&str> {
    line.strip_prefix("//")?.trim_start_matches('/').trim_start().strip_prefix("endpoint: ")
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let listing = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(listing.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knocks(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let mut knocks = Knocks::new();
        read_text(text, "crates/hearth-testkit/tests/it/rooms/send.rs", &mut knocks)?;
        let names = |tests: BTreeSet<Test>| tests.iter().map(Test::to_string).collect();
        Ok(knocks.into_iter().map(|(call, tests)| (call.to_string(), names(tests))).collect())
    }

    #[test]
    fn markers_belong_to_the_next_function() {
        let text = "
            // endpoint: GET /a/{id}
            /// endpoint: PUT /a/{id}
            #[tokio::test]
            async fn first() {
                // endpoint: GET /a/{id}
            }
            fn second() {}
        ";
        let expected = [
            ("GET /a/{}".to_owned(), vec!["rooms/send::first".to_owned(), "rooms/send::second".to_owned()]),
            ("PUT /a/{}".to_owned(), vec!["rooms/send::first".to_owned()]),
        ];
        assert_eq!(knocks(text).unwrap(), expected);
    }

    #[test]
    fn a_marker_without_a_test_is_an_error() {
        assert!(knocks("// endpoint: GET /a").is_err());
        assert!(knocks("// endpoint: GET\nfn a() {}").is_err());
    }
}
