//! Every statement of the crate can be prepared on both engines.
//!
//! They are found in the sources: string literals that begin like SQL, and those that a `concat!` macro completes.

use std::collections::BTreeMap;
use std::path::Path;

use hearth_store::raw::rewritten;

use crate::harness::{Database, Schema};

const VERBS: [&str; 5] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_can_be_prepared() {
    let statements = statements_of_the_crate();
    assert!(statements.len() > 100, "only {} statements were found", statements.len());
    let mut wrong = Vec::new();

    let database = Database::Sqlite(tempfile::tempdir().expect("a directory"));
    database.open().await.close().await;
    let hearth_store::DatabaseUrl::Sqlite(path) = database.url() else { return };
    let sqlite = rusqlite::Connection::open(path).expect("opens");
    rusqlite::vtab::array::load_module(&sqlite).expect("loads");
    for (sql, place) in &statements {
        if let Err(error) = sqlite.prepare(&rewritten(sql)[0]) {
            wrong.push(format!("{place}: SQLite: {error}\n    {sql}"));
        }
    }

    if let Some(schema) = Schema::create().await {
        let database = Database::Postgres(schema);
        database.open().await.close().await;
        let Database::Postgres(schema) = database else { return };
        let client = schema.connect().await;
        for (sql, place) in &statements {
            if sql.contains("FROM counters") || sql.contains("UPDATE counters") {
                continue; // SQLite's own: PostgreSQL has sequences.
            }
            if let Err(error) = client.prepare(&rewritten(sql)[1]).await {
                let error = error.as_db_error().map_or(error.to_string(), ToString::to_string);
                wrong.push(format!("{place}: PostgreSQL: {error}\n    {sql}"));
            }
        }
        schema.drop().await;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_walks_a_whole_table() {
    let database = Database::Sqlite(tempfile::tempdir().expect("a directory"));
    database.open().await.close().await;
    let hearth_store::DatabaseUrl::Sqlite(path) = database.url() else { return };
    let sqlite = rusqlite::Connection::open(path).expect("opens");
    rusqlite::vtab::array::load_module(&sqlite).expect("loads");
    let mut wrong = Vec::new();
    for (sql, place) in statements_of_the_crate() {
        let sql = &rewritten(&sql)[0];
        let mut plan = sqlite.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepares");
        let mut steps = plan.raw_query();
        while let Some(step) = steps.next().expect("explains") {
            let step: String = step.get(3).expect("a step");
            // Lists are parameters, `newest`, `backlog` and reports by time are bounded, one row without a table is one; the others are wanted whole, or as long as
            // their partial index.
            let wanted = [
                "rarray",
                "newest",
                "backlog",
                "CONSTANT ROW",
                "reports USING INDEX reports_by_time",
                "schema_migrations",
                "users USING COVERING INDEX",
                "own_keys",
                "at_start",
                "aside_at_start",
                "p",
            ];
            if let Some(table) = step.strip_prefix("SCAN ")
                && !wanted.iter().any(|name| table == *name || table.starts_with(&format!("{name} ")))
            {
                wrong.push(format!("{place}: {step}\n    {sql}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Statements, and where they were found first.
fn statements_of_the_crate() -> BTreeMap<String, String> {
    let mut statements = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                // PostgreSQL's own statements are used by every other test there.
                if !path.ends_with("postgres") {
                    directories.push(path);
                }
            } else if !path.ends_with("sql.rs") {
                let source = std::fs::read_to_string(&path).expect("a source");
                for sql in statements_of(&source) {
                    statements.entry(sql).or_insert_with(|| path.display().to_string());
                }
            }
        }
    }
    statements
}

fn statements_of(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Macros of the form `macro_rules! name { ($rest:literal) => { concat!("…", "…", $rest) } }`.
    let mut prefixes: Vec<(String, String)> = Vec::new();
    let mut unfinished = String::new();
    for (before, literal, after) in literals(source) {
        let before = before.trim_end();
        let completes = prefixes.iter().find(|(name, _)| before.ends_with(&format!("{name}!(")));
        let concatenated = before.ends_with("concat!(") || !unfinished.is_empty() && before.ends_with(',');
        if let Some((_, prefix)) = completes {
            found.push(format!("{prefix}{literal}"));
        } else if concatenated && after.trim_start().starts_with(',') {
            unfinished.push_str(&literal);
            let rest = after.trim_start()[1..].trim_start();
            if rest.starts_with('$') {
                let at = source.len() - after.len();
                let name = source[..at].rsplit("macro_rules! ").next().and_then(|text| text.split_whitespace().next());
                prefixes.push((name.unwrap_or_default().to_owned(), std::mem::take(&mut unfinished)));
            }
        } else if VERBS.iter().any(|verb| literal.starts_with(verb)) {
            found.push(literal);
        }
    }
    found
}

/// String literals with what stands before and after each.
fn literals(source: &str) -> Vec<(&str, String, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = source[at..].find(['"', '/', '\'']) {
        let start = at + next;
        let rest = &source[start..];
        if rest.starts_with("//") {
            at = start + rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            at = start + 3;
        } else if let Some(inner) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = inner.char_indices();
            let mut end = rest.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 2;
                        break;
                    }
                    '\\' => match chars.next() {
                        Some((_, '\n')) => {}
                        Some((_, 'n')) => text.push('\n'),
                        Some((_, other)) => text.push(other),
                        None => {}
                    },
                    other => text.push(other),
                }
            }
            found.push((&source[..start], text, &source[start + end..]));
            at = start + end;
        } else {
            at = start + 1;
        }
    }
    found
}
