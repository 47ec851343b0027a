//! The page on conformance: every endpoint of the specification, whether it is served, and which tests knock on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    knocks::{Knocks, Test},
    spec::{Call, Endpoint},
};

const OPENING: &str = "\
# Conformance

Every endpoint that version 1.19 of the Matrix specification asks a homeserver to serve, and what Hearth makes of it.
This page is generated from `docs/endpoints.csv`, the route table of the program and the tests: see `xtask/`.

*Served* means that the path leads to a handler. That the handler does what the specification says is the claim of the
tests in the last column: the file, and the names of the tests in it. Nothing is served without a test. Besides, every
route is knocked on by strangers, by those who are not in the room and by those who do not know how to ask; what they must
hear stands in [doors/table]. *Old* marks what the specification calls deprecated.
";

/// The table of who is refused what, for the opening.
const TABLE: (&str, &str) = ("doors/table", "crates/hearth-testkit/tests/it/doors/table.rs");

/// What the program serves, with the path as the program spells it.
pub type Routes = BTreeMap<Call, String>;

/// What is known about the endpoints of the specification.
struct Facts<'a> {
    endpoints: &'a [Endpoint],
    routes: &'a Routes,
    knocks: &'a Knocks,
}

pub fn page(endpoints: &[Endpoint], routes: &Routes, knocks: &Knocks) -> Result<String, String> {
    if let Some((call, tests)) = knocks.iter().find(|(call, _)| !routes.contains_key(call)) {
        return Err(format!("{call} is not served, but these tests say they knock on it: {}", list(tests)));
    }
    let untested: Vec<String> =
        routes.keys().filter(|call| !knocks.contains_key(call)).map(|call| format!("\n    {call}")).collect();
    if !untested.is_empty() {
        return Err(format!(
            "No test says that it knocks on these; write `// endpoint: METHOD /path` above one:{}",
            untested.concat()
        ));
    }
    let facts = Facts { endpoints, routes, knocks };
    let mut page = OPENING.to_owned();
    facts.summary(&mut page);
    for api in facts.apis() {
        facts.chapter(&mut page, api);
    }
    facts.beyond(&mut page);
    facts.links(&mut page);
    Ok(page)
}

impl Facts<'_> {
    fn summary(&self, page: &mut String) {
        page.push_str("\n| API | Endpoints | Served | Named by tests |\n| --- | ---: | ---: | ---: |\n");
        for api in self.apis() {
            let all: Vec<Call> = self.of(api).map(Endpoint::call).collect();
            let served = all.iter().filter(|call| self.routes.contains_key(call)).count();
            let tested = all.iter().filter(|call| self.knocks.contains_key(call)).count();
            let _ = writeln!(page, "| {} | {} | {served} | {tested} |", title(api), all.len());
        }
    }

    fn chapter(&self, page: &mut String, api: &str) {
        let _ = writeln!(page, "\n## {}", title(api));
        let modules: BTreeSet<&str> = self.of(api).map(|endpoint| endpoint.module.as_str()).collect();
        for module in modules {
            let _ = writeln!(page, "\n### {}\n", heading(module));
            page.push_str("| Endpoint | Since | Status | Tests |\n| --- | --- | --- | --- |\n");
            for endpoint in self.of(api).filter(|endpoint| endpoint.module == module) {
                self.row(page, endpoint);
            }
        }
    }

    fn row(&self, page: &mut String, endpoint: &Endpoint) {
        let call = endpoint.call();
        let status = if self.routes.contains_key(&call) { "served" } else { "**missing**" };
        let tests = self.knocks.get(&call).map(list).unwrap_or_default();
        let old = if endpoint.deprecated { ", old" } else { "" };
        let Endpoint { method, path, since, .. } = endpoint;
        let _ = writeln!(page, "| `{method} {path}` | {since} | {status}{old} | {tests} |");
    }

    /// What is served without being in the table: old names, proposals, and doors of our own.
    fn beyond(&self, page: &mut String) {
        let known: BTreeSet<Call> = self.endpoints.iter().map(Endpoint::call).collect();
        page.push_str("\n## Beyond the table\n\n");
        page.push_str("Paths that the table does not list: older versions, proposals, and Hearth's own.\n\n");
        page.push_str("| Endpoint | Tests |\n| --- | --- |\n");
        for (call, path) in self.routes.iter().filter(|(call, _)| !known.contains(call)) {
            let tests = self.knocks.get(call).map(list).unwrap_or_default();
            let _ = writeln!(page, "| `{} {path}` | {tests} |", call.method);
        }
    }

    /// Where the files are that the tables name, seen from the page.
    fn links(&self, page: &mut String) {
        let files = self.knocks.values().flatten().map(|test| (test.module(), test.file.as_str()));
        let files: BTreeSet<(&str, &str)> = files.chain([TABLE]).collect();
        page.push('\n');
        for (module, file) in files {
            let _ = writeln!(page, "[{module}]: ../../{file}");
        }
    }

    fn apis(&self) -> BTreeSet<&str> {
        self.endpoints.iter().map(|endpoint| endpoint.api.as_str()).collect()
    }

    fn of<'a>(&'a self, api: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        self.endpoints.iter().filter(move |endpoint| endpoint.api == api)
    }
}

fn title(api: &str) -> &str {
    match api {
        "application-service" => "Application service API",
        "client-server" => "Client-server API",
        "server-server" => "Server-server API",
        other => other,
    }
}

/// Chapters of the client-server API are titles already, those of the others are names of files.
fn heading(module: &str) -> String {
    let words = module.replace(['_', '-'], " ");
    words[..1].to_uppercase() + &words[1..]
}

/// File by file.
fn list(tests: &BTreeSet<Test>) -> String {
    let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for test in tests {
        by_file.entry(test.module()).or_default().push(format!("`{}`", test.name));
    }
    let files = by_file.iter().map(|(module, names)| format!("[{module}]: {}", names.join(", ")));
    files.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(names: &[&str]) -> BTreeSet<Test> {
        let file = "crates/hearth-testkit/tests/it/media.rs";
        names.iter().map(|name| Test { file: file.to_owned(), name: (*name).to_owned() }).collect()
    }

    fn endpoint(method: &str, path: &str) -> Endpoint {
        Endpoint {
            api: "client-server".into(),
            method: method.into(),
            path: path.into(),
            since: String::new(),
            deprecated: false,
            module: "Media".into(),
        }
    }

    #[test]
    fn a_row_says_served_missing_and_tested() {
        let endpoints = [endpoint("GET", "/a/{x}"), endpoint("GET", "/c")];
        let routes = ["/a/{y}", "/d/{z}"].map(|path| (Call::new("GET", path), path.to_owned())).into();
        let knocks =
            Knocks::from([(Call::new("GET", "/a/{}"), tests(&["a", "b"])), (Call::new("GET", "/d/{}"), tests(&["d"]))]);
        let page = page(&endpoints, &routes, &knocks).unwrap();
        for line in [
            "| Client-server API | 2 | 1 | 1 |",
            "| `GET /a/{x}` |  | served | [media]: `a`, `b` |",
            "| `GET /c` |  | **missing** |  |",
            "| `GET /d/{z}` | [media]: `d` |",
            "[media]: ../../crates/hearth-testkit/tests/it/media.rs",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_test_cannot_knock_where_no_door_is() {
        let knocks = Knocks::from([(Call::new("GET", "/typo"), tests(&["a"]))]);
        assert!(page(&[], &Routes::new(), &knocks).is_err());
    }

    #[test]
    fn what_is_served_has_a_test() {
        let routes = Routes::from([(Call::new("GET", "/a"), "/a".to_owned())]);
        assert!(page(&[], &routes, &Knocks::new()).is_err_and(|reason| reason.contains("GET /a")));
    }
}
