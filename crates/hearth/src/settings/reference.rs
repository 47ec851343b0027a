//! The reference of settings, from the keys themselves.

use std::fmt::Write;

use super::Settings;
use super::load::{Key, Kind, Setting};

/// A section: its heading in TOML, what it is about, its keys.
struct Section {
    heading: String,
    about: &'static str,
    keys: Vec<Line>,
}

struct Line {
    name: String,
    allowed: String,
    default: Option<String>,
    sentence: &'static str,
}

fn sections() -> Vec<Section> {
    let Kind::Table { about, keys } = Settings::kind() else {
        return Vec::new();
    };
    let mut sections = vec![Section { heading: String::new(), about, keys: Vec::new() }];
    for key in keys {
        match key.kind {
            Kind::Value { .. } => lines("", key, &mut sections[0].keys),
            Kind::Table { about, keys } => sections.push(section(format!("[{}]", key.name), about, keys)),
            Kind::Tables { about, keys } => sections.push(section(format!("[[{}]]", key.name), about, keys)),
        }
    }
    sections
}

fn section(heading: String, about: &'static str, keys: Vec<Key>) -> Section {
    let mut found = Vec::new();
    keys.into_iter().for_each(|key| lines("", key, &mut found));
    Section { heading, about, keys: found }
}

fn lines(prefix: &str, key: Key, found: &mut Vec<Line>) {
    let name = format!("{prefix}{}", key.name);
    match key.kind {
        Kind::Value { allowed } => found.push(Line { name, allowed, default: key.default, sentence: key.sentence }),
        Kind::Table { keys, .. } | Kind::Tables { keys, .. } => {
            keys.into_iter().for_each(|key| lines(&format!("{name}."), key, found));
        }
    }
}

/// The reference as plain text.
pub fn text() -> String {
    let mut page = String::new();
    for section in sections() {
        if !section.heading.is_empty() {
            let _ = writeln!(page, "{}\n  {}\n", section.heading, section.about);
        }
        for Line { name, allowed, default, sentence } in section.keys {
            let _ = writeln!(page, "{name}\n  {sentence}\n  Allowed: {}", allowed.replace('`', ""));
            if let Some(default) = default {
                let _ = writeln!(page, "  Default: {default}");
            }
            page.push('\n');
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// The reference as a page of the book.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Written by `hearth config reference --markdown`; change the program, not this page. -->\n\n\
         Hearth reads a TOML file, named by `hearth serve --config FILE`; without one every key has its default. Each key can \
         also be set in the environment, which wins over the file: `HEARTH__SERVER_NAME` is `server_name`, \
         `HEARTH__REGISTRATION__ENABLED` is `enabled` in `[registration]`. Such a value is TOML where it can be read as \
         TOML, otherwise a string. Unknown keys and wrong values are refused at start. `hearth config check` finds them \
         before. A relative path starts at the directory of the file it stands in.\n",
    );
    for section in sections() {
        if section.heading.is_empty() {
            let _ = write!(page, "\n## Top level\n\n");
        } else {
            let _ = write!(page, "\n## `{}`\n\n{}\n\n", section.heading, section.about);
        }
        page.push_str("| Key | Allowed | Default | Meaning |\n| --- | --- | --- | --- |\n");
        for Line { name, allowed, default, sentence } in section.keys {
            let default = default.map(|default| format!("`{default}`")).unwrap_or_default();
            let _ = writeln!(page, "| `{name}` | {allowed} | {default} | {sentence} |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use toml::{Table, Value};

    use super::*;
    use crate::settings::{Sources, values};

    /// A file in which every key has the default that the reference shows is read, and reads as the defaults.
    #[test]
    fn every_default_shown_is_what_the_program_takes() {
        let mut text = String::new();
        for section in sections() {
            if section.heading.starts_with("[[") {
                continue;
            }
            let _ = writeln!(text, "{}", section.heading);
            for Line { name, default, .. } in section.keys {
                if let Some(default) = default {
                    let _ = writeln!(text, "{name} = {default}");
                }
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hearth.toml");
        std::fs::write(&file, text).unwrap();
        let sources = |file| Sources { file, working_dir: directory.path().to_path_buf(), ..Sources::default() };
        let read = sources(Some(file)).load().unwrap();
        assert_eq!(read, sources(None).load().unwrap());
    }

    /// The structs and the table come from one list; this catches a kind that the list knows and the reader does not.
    #[test]
    fn every_key_in_the_reference_can_be_set_and_no_other() {
        for section in sections() {
            for line in section.keys {
                let mut table = Table::new();
                let heading = section.heading.trim_matches(['[', ']']);
                let full = if heading.is_empty() { line.name.clone() } else { format!("{heading}.{}", line.name) };
                // A value that no key allows: the complaint must be about the value, not about the key.
                let mut value = Value::Datetime("1979-05-27".parse().unwrap());
                for part in line.name.rsplit('.') {
                    value = Value::Table(Table::from_iter([(part.to_owned(), value)]));
                }
                if heading.is_empty() {
                    table = value.as_table().cloned().unwrap();
                } else if section.heading.starts_with("[[") {
                    table.insert(heading.to_owned(), Value::Array(vec![value]));
                } else {
                    table.insert(heading.to_owned(), value);
                }
                let command_line = table
                    .into_iter()
                    .map(|(key, value)| {
                        let key: &'static str = Box::leak(key.into_boxed_str());
                        ("test", key, value)
                    })
                    .collect();
                let sources = Sources { command_line, working_dir: PathBuf::from("/"), ..Sources::default() };
                let problems = sources.load().unwrap_err();
                assert_eq!(problems.0.len(), 1, "{full}: {problems}");
                assert!(problems.0[0].reason.starts_with("must be "), "{full}: {problems}");
            }
        }
    }

    #[test]
    fn all_denied_ranges_are_ranges() {
        assert_eq!(values::address_ranges().len(), 27);
    }
}
