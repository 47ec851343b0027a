//! Joins the sources of settings and finds what is wrong with them, all at once.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Settings;

/// Prefix of environment variables that set keys: `HEARTH__SECTION__KEY`.
const PREFIX: &str = "HEARTH__";

/// Where settings come from. Later ones win: file, environment, command line.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Options of the command line that set keys: the option, the key, its value.
    pub command_line: Vec<(&'static str, &'static str, Value)>,
    /// The working directory: where relative paths start that don't stand in the file.
    pub working_dir: PathBuf,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, variable or option.
    pub source: String,
    /// The key; empty if the source as a whole is wrong.
    pub key: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

/// All that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.source, self.reason)
        } else {
            write!(f, "{}: `{}` {}", self.source, self.key, self.reason)
        }
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A kind of value.
pub(super) trait Setting: Sized {
    /// What is allowed.
    fn kind() -> Kind;

    /// Reads a value; `None` if it is wrong, which the reader has been told then.
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self>;

    /// The value in TOML, for the reference; `None` for what is not there and for tables.
    fn show(&self) -> Option<String>;
}

/// What is allowed.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A value.
    Value {
        /// In words.
        allowed: String,
    },
    /// A table.
    Table {
        /// What it is about.
        about: &'static str,
        /// Its keys.
        keys: Vec<Key>,
    },
    /// A list of tables.
    Tables {
        /// What each is about.
        about: &'static str,
        /// The keys of each.
        keys: Vec<Key>,
    },
}

impl Kind {
    pub(super) fn value(allowed: impl Into<String>) -> Self {
        Self::Value { allowed: allowed.into() }
    }

    fn allowed(&self) -> &str {
        match self {
            Self::Value { allowed } => allowed,
            Self::Table { .. } => "a table",
            Self::Tables { .. } => "a list of tables",
        }
    }
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Option<String>,
    pub(super) sentence: &'static str,
}

/// Where a value stands.
#[derive(Clone)]
struct Origin {
    name: String,
    base: PathBuf,
    /// The text of an environment variable, which is tried as a string if it is wrong as TOML.
    raw: Option<String>,
}

/// Reads a tree of values and remembers what is wrong.
pub(super) struct Reader<'a> {
    file: &'a Origin,
    overrides: &'a BTreeMap<String, Origin>,
    path: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Where relative paths of the value at hand start.
    pub(super) fn base(&self) -> &Path {
        &self.origin().base
    }

    /// Reads the key of a table; a key that is not there or wrong has its default.
    pub(super) fn key<T: Setting>(&mut self, table: &Table, name: &str, default: T) -> T {
        let Some(value) = table.get(name) else {
            return default;
        };
        self.path.push(name.to_owned());
        let before = self.problems.len();
        let mut read = T::read(value, self);
        // `HEARTH__…=12345` may be meant as a string.
        if read.is_none()
            && !value.is_str()
            && let Some(raw) = self.overrides.get(&self.path.join(".")).and_then(|origin| origin.raw.clone())
        {
            let first_problems = self.problems.split_off(before);
            read = T::read(&Value::String(raw), self);
            if read.is_none() {
                self.problems.truncate(before);
                self.problems.extend(first_problems);
            }
        }
        self.path.pop();
        read.unwrap_or(default)
    }

    /// Reads an item of a list.
    pub(super) fn item<T: Setting>(&mut self, at: usize, value: &Value) -> Option<T> {
        let list = self.path.pop().unwrap_or_default();
        self.path.push(format!("{list}[{at}]"));
        let read = T::read(value, self);
        self.path.pop();
        self.path.push(list);
        read
    }

    /// A table with no other keys than these.
    pub(super) fn table<'v>(&mut self, value: &'v Value, known: &[&str]) -> Option<&'v Table> {
        let Some(table) = value.as_table() else {
            self.problem(format!("must be a table, but is {}", shown(value)));
            return None;
        };
        for name in table.keys().filter(|name| !known.contains(&name.as_str())) {
            self.path.push(name.clone());
            self.problem(format!("is unknown; known here: {}", known.join(", ")));
            self.path.pop();
        }
        Some(table)
    }

    /// A value that was read, or the complaint that it could not be.
    pub(super) fn expect<T>(&mut self, read: Option<T>, value: &Value, kind: &Kind) -> Option<T> {
        if read.is_none() {
            self.problem(format!("must be {}, but is {}", kind.allowed(), shown(value)));
        }
        read
    }

    fn problem(&mut self, reason: String) {
        let source = self.origin().name.clone();
        // A secret of the wrong kind is still a secret.
        let key = self.path.join(".");
        let is_secret = ["secret", "smtp", "database.url", "access_key"].iter().any(|secret| key.contains(secret));
        let reason = match reason.split_once(", but is ") {
            Some((allowed, _)) if is_secret => allowed.to_owned(),
            _ => reason,
        };
        self.problems.push(Problem { source, key, reason });
    }

    fn origin(&self) -> &Origin {
        (1..=self.path.len())
            .rev()
            .find_map(|end| {
                let mut key = self.path[..end].join(".");
                if let Some(bracket) = key.rfind('[').filter(|_| key.ends_with(']')) {
                    key.truncate(bracket);
                }
                self.overrides.get(&key)
            })
            .unwrap_or(self.file)
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

impl Sources {
    /// What the process was given: a file, if any, and the environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let working_dir = std::env::current_dir().unwrap_or_default();
        Self { file, environment, command_line: Vec::new(), working_dir }
    }

    /// Joins and reads them.
    pub fn load(&self) -> Result<Settings, Problems> {
        let (file, mut table) = self.read_file().map_err(|problem| Problems(vec![problem]))?;
        let mut problems = Vec::new();
        let mut overrides = BTreeMap::new();
        let mut variables: Vec<_> = self
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)))
            .collect();
        variables.sort_unstable();
        for (name, key, raw) in variables {
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            let origin = Origin { name: name.clone(), base: self.working_dir.clone(), raw: Some(raw.clone()) };
            if set(&mut table, &path, parse_variable(raw)).is_err() {
                let reason = "sets a key below something that is no table".to_owned();
                problems.push(Problem { source: name.clone(), key: path.join("."), reason });
            }
            overrides.insert(path.join("."), origin);
        }
        for (option, key, value) in &self.command_line {
            let origin = Origin { name: (*option).to_owned(), base: self.working_dir.clone(), raw: None };
            table.insert((*key).to_owned(), value.clone());
            overrides.retain(|path, _| path != key && !path.starts_with(&format!("{key}.")));
            overrides.insert((*key).to_owned(), origin);
        }

        let mut reader = Reader { file: &file, overrides: &overrides, path: Vec::new(), problems };
        let settings = Settings::read(&Value::Table(table), &mut reader).unwrap_or_default();
        let mut problems = reader.problems;
        if problems.is_empty() {
            problems.extend(settings.contradictions().into_iter().map(|(key, reason)| Problem {
                source: file.name.clone(),
                key,
                reason,
            }));
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        // A default that is a path starts where we stand.
        let data_dir = self.working_dir.join(&settings.data_dir);
        Ok(Settings { data_dir, ..settings })
    }

    fn read_file(&self) -> Result<(Origin, Table), Problem> {
        let Some(path) = &self.file else {
            let origin = Origin { name: "defaults".to_owned(), base: self.working_dir.clone(), raw: None };
            return Ok((origin, Table::new()));
        };
        let source = path.display().to_string();
        let problem = |reason: String| Problem { source: source.clone(), key: String::new(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        let table = text.parse::<Table>().map_err(|error| problem(error.to_string().trim_end().to_owned()))?;
        let full_path = self.working_dir.join(path);
        let base = full_path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok((Origin { name: source.clone(), base, raw: None }, table))
    }
}

/// A variable's text as a TOML value, else as a string.
fn parse_variable(raw: &str) -> Value {
    format!("value = {raw}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(raw.to_owned()))
}

fn set(table: &mut Table, path: &[String], value: Value) -> Result<(), ()> {
    match path {
        [] => Err(()),
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, rest @ ..] => {
            let below = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            set(below.as_table_mut().ok_or(())?, rest, value)
        }
    }
}
