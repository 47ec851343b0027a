//! One SQL text, two dialects: what is rewritten in a statement before an engine prepares it.
//!
//! The macros of statements are described in `tx.rs`, those of migrations in `migrations/0001_first.sql`. Rewriting is
//! textual, done once per statement and connection; string literals and comments are left alone.

use rustc_hash::FxHashMap;

/// The two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Statements already seen, by the address of their text: a `&'static str` never moves.
pub(crate) struct Seen<S> {
    statements: FxHashMap<(usize, usize), S>,
}

impl<S: Clone> Seen<S> {
    pub(crate) fn new() -> Self {
        Self { statements: FxHashMap::default() }
    }

    pub(crate) fn get(&self, sql: &'static str) -> Option<S> {
        self.statements.get(&(sql.as_ptr() as usize, sql.len())).cloned()
    }

    pub(crate) fn insert(&mut self, sql: &'static str, statement: S) {
        self.statements.insert((sql.as_ptr() as usize, sql.len()), statement);
    }
}

/// A statement in the words of one engine.
pub(crate) fn statement(sql: &str, dialect: Dialect) -> String {
    let mut out = Out { text: String::with_capacity(sql.len() + 32), dialect };
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        if let Some(end) = opaque(rest) {
            out.text.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if c == '$' {
            let digits = digits(&rest[1..]);
            out.parameter(&rest[1..1 + digits]);
            rest = &rest[1 + digits..];
        } else if word_char(c) {
            let word = &rest[..rest.find(|c| !word_char(c)).unwrap_or(rest.len())];
            rest = &rest[word.len()..];
            rest = out.word(word, rest);
        } else {
            out.text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out.text
}

fn word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

/// The length of a string literal, quoted name or comment that `text` starts with.
fn opaque(text: &str) -> Option<usize> {
    let (start, end) = if text.starts_with('\'') {
        (1, "'")
    } else if text.starts_with('"') {
        (1, "\"")
    } else if text.starts_with("--") {
        (2, "\n")
    } else {
        return None;
    };
    Some(text[start..].find(end).map_or(text.len(), |at| start + at + end.len()))
}

struct Out {
    text: String,
    dialect: Dialect,
}

impl Out {
    fn parameter(&mut self, number: &str) {
        self.text.push(if self.dialect == Dialect::Sqlite { '?' } else { '$' });
        self.text.push_str(number);
    }

    /// Takes over a word, or the macro that it opens; gives what follows.
    fn word<'a>(&mut self, word: &str, rest: &'a str) -> &'a str {
        if word == "for_update_skip_locked"
            && let Some(rest) = rest.strip_prefix("()")
        {
            if self.dialect == Dialect::Postgres {
                self.text.push_str("FOR UPDATE SKIP LOCKED");
            }
            return rest;
        }
        let argument = rest.strip_prefix("($").and_then(|rest| {
            let (number, rest) = rest.split_at(digits(rest));
            rest.strip_prefix(')').map(|rest| (number, rest))
        });
        match (word, argument) {
            ("position", Some((number, rest))) => {
                self.position(number);
                rest
            }
            ("ints", Some((number, rest))) => self.list(word, "bigint", number, rest),
            ("blobs", Some((number, rest))) => self.list(word, "bytea", number, rest),
            _ => {
                self.text.push_str(word);
                rest
            }
        }
    }

    /// SQLite gets the position itself; PostgreSQL how far it lies before the group's last one, which the clock row holds
    /// by then.
    fn position(&mut self, number: &str) {
        match self.dialect {
            Dialect::Sqlite => self.parameter(number),
            Dialect::Postgres => {
                self.text.push_str(&format!("((SELECT position FROM clock WHERE id = 1) - CAST(${number} AS BIGINT))"));
            }
        }
    }

    fn list<'a>(&mut self, name: &str, element: &str, number: &str, rest: &'a str) -> &'a str {
        if let Some(before) = strip_last_word(&self.text, "in") {
            match self.dialect {
                Dialect::Sqlite => self.text.push_str(&format!("(SELECT value FROM rarray(?{number}))")),
                Dialect::Postgres => {
                    let operator = match strip_last_word(before, "not") {
                        Some(before) => {
                            self.text.truncate(before.len());
                            "<> ALL"
                        }
                        None => {
                            self.text.truncate(before.len());
                            "= ANY"
                        }
                    };
                    self.text.push_str(&format!(" {operator}(${number}::{element}[])"));
                }
            }
            return rest;
        }
        let (alias, rest) = alias(rest).unwrap_or((name, rest));
        self.text.push_str(&match self.dialect {
            Dialect::Sqlite => format!("rarray(?{number}) AS {alias}"),
            Dialect::Postgres => format!("unnest(${number}::{element}[]) AS {alias}(value)"),
        });
        rest
    }
}

/// What stands before `word` (any case) and the blanks around it, if `text` ends with it.
fn strip_last_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let trimmed = text.trim_end();
    let at = trimmed.len().checked_sub(word.len())?;
    let before = trimmed.get(..at)?;
    (trimmed[at..].eq_ignore_ascii_case(word) && !before.ends_with(word_char)).then(|| before.trim_end())
}

/// `AS name` at the start of `text`: the name, and what follows.
fn alias(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let rest = text.strip_prefix("AS ").or_else(|| text.strip_prefix("as "))?;
    Some(rest.split_at(rest.find(|c| !word_char(c)).unwrap_or(rest.len())))
}

/// A migration in the words of one engine.
pub(crate) fn migration(sql: &str, dialect: Dialect) -> String {
    let (key, bytes, without_rowid) = match dialect {
        Dialect::Sqlite => ("INTEGER PRIMARY KEY", "BLOB", "WITHOUT ROWID"),
        Dialect::Postgres => ("BIGINT PRIMARY KEY", "BYTEA", ""),
    };
    let text: String =
        sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code).to_owned() + "\n").collect();
    let text = text.replace("id_key()", key).replace("bytes()", bytes).replace("without_rowid()", without_rowid);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("counter(") {
        let (name, after) = after.split_once(')').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&match dialect {
            Dialect::Sqlite => format!("INSERT INTO counters (name, next_free) VALUES ('{name}', 1)"),
            Dialect::Postgres => format!("CREATE SEQUENCE {name}_numbers INCREMENT BY {}", crate::engine::BLOCK),
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_rewritten_for_both_engines() {
        let cases = [
            (
                "SELECT a FROM t WHERE b = $1 AND c = $12",
                "SELECT a FROM t WHERE b = ?1 AND c = ?12",
                "SELECT a FROM t WHERE b = $1 AND c = $12",
            ),
            (
                "SELECT 1 FROM t WHERE kind IN ints($1) AND id NOT IN blobs($2)",
                "SELECT 1 FROM t WHERE kind IN (SELECT value FROM rarray(?1)) AND id NOT IN (SELECT value FROM rarray(?2))",
                "SELECT 1 FROM t WHERE kind = ANY($1::bigint[]) AND id <> ALL($2::bytea[])",
            ),
            (
                "SELECT value FROM ints($1) JOIN blobs($2) AS wanted ON 1 = 1",
                "SELECT value FROM rarray(?1) AS ints JOIN rarray(?2) AS wanted ON 1 = 1",
                "SELECT value FROM unnest($1::bigint[]) AS ints(value) JOIN unnest($2::bytea[]) AS wanted(value) ON 1 = 1",
            ),
            (
                "INSERT INTO t (position) VALUES (position($1))",
                "INSERT INTO t (position) VALUES (?1)",
                "INSERT INTO t (position) VALUES (((SELECT position FROM clock WHERE id = 1) - CAST($1 AS BIGINT)))",
            ),
            (
                "DELETE FROM t WHERE k = (SELECT k FROM t LIMIT 1 for_update_skip_locked()) -- $1\n",
                "DELETE FROM t WHERE k = (SELECT k FROM t LIMIT 1 ) -- $1\n",
                "DELETE FROM t WHERE k = (SELECT k FROM t LIMIT 1 FOR UPDATE SKIP LOCKED) -- $1\n",
            ),
            (
                "SELECT '$1 ints($1)', begin FROM points",
                "SELECT '$1 ints($1)', begin FROM points",
                "SELECT '$1 ints($1)', begin FROM points",
            ),
        ];
        for (sql, sqlite, postgres) in cases {
            assert_eq!(statement(sql, Dialect::Sqlite), sqlite);
            assert_eq!(statement(sql, Dialect::Postgres), postgres);
        }
    }

    #[test]
    fn migrations_are_rewritten_for_both_engines() {
        let sql = "counter(rooms);\nCREATE TABLE t (num id_key(), b bytes() NOT NULL) without_rowid(); -- counter(x)\n";
        assert_eq!(
            migration(sql, Dialect::Sqlite).trim(),
            "INSERT INTO counters (name, next_free) VALUES ('rooms', 1);\nCREATE TABLE t (num INTEGER PRIMARY KEY, b BLOB NOT NULL) WITHOUT ROWID;"
        );
        assert_eq!(
            migration(sql, Dialect::Postgres).trim(),
            "CREATE SEQUENCE rooms_numbers INCREMENT BY 1000;\nCREATE TABLE t (num BIGINT PRIMARY KEY, b BYTEA NOT NULL) ;"
        );
    }
}
