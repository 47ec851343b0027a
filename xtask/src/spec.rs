//! The endpoints that the specification asks a homeserver to serve, from `docs/endpoints.csv`.

use std::{fmt, fs, path::Path};

/// A method and a path, comparable across spellings: parameters have lost their names, and `r0` counts as `v3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    path: String,
    pub method: String,
}

impl Call {
    pub fn new(method: &str, path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').map(Self::spelling).collect();
        Self { method: method.to_owned(), path: segments.join("/") }
    }

    fn spelling(segment: &str) -> &str {
        match segment {
            "r0" => "v3",
            parameter if parameter.starts_with('{') => "{}",
            other => other,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A row of the table.
pub struct Endpoint {
    pub api: String,
    pub method: String,
    pub path: String,
    /// The release of the specification that brought it, empty for the oldest.
    pub since: String,
    pub deprecated: bool,
    /// The chapter it stands in.
    pub module: String,
}

impl Endpoint {
    pub fn call(&self) -> Call {
        Call::new(&self.method, &self.path)
    }
}

pub fn read(file: &Path) -> Result<Vec<Endpoint>, String> {
    let table = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    table.lines().skip(1).map(row).collect()
}

/// No field of the table holds a comma or a quotation mark.
fn row(line: &str) -> Result<Endpoint, String> {
    let fields: Vec<&str> = line.split(',').collect();
    let [api, method, path, since, deprecated, module] = fields[..] else {
        return Err(format!("not a row of six fields: {line}"));
    };
    Ok(Endpoint {
        api: api.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        since: since.to_owned(),
        deprecated: deprecated == "yes",
        module: module.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parameters_and_the_old_version_do_not_matter() {
        let spec = Call::new("PUT", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}");
        assert!(spec == Call::new("PUT", "/_matrix/client/r0/rooms/{room_id}/send/{event_type}/{txn_id}"));
        assert!(spec != Call::new("GET", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}"));
        assert!(spec != Call::new("PUT", "/_matrix/client/v1/rooms/{roomId}/send/{eventType}/{txnId}"));
    }
}
