//! The page on conformance: every endpoint of the specification, whether it is served, and which tests knock on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    knocks::Knocks,
    spec::{Call, Endpoint},
};

const OPENING: &str = "\
# Conformance

Every endpoint that version 1.19 of the Matrix specification asks a homeserver to serve, and what Hearth makes of it.
This page is generated from `docs/endpoints.csv`, the route table of the program and the tests: see `xtask/`.

*Served* means that the path leads to a handler. That the handler does what the specification says is the claim of the
tests in the last column. *Old* marks what the specification calls deprecated.
";

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
    let facts = Facts { endpoints, routes, knocks };
    let mut page = OPENING.to_owned();
    facts.summary(&mut page);
    for api in facts.apis() {
        facts.chapter(&mut page, api);
    }
    facts.beyond(&mut page);
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
        let tests = match self.knocks.get(&call) {
            Some(tests) => list(tests),
            None if self.routes.contains_key(&call) => "no test names it".to_owned(),
            None => String::new(),
        };
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

fn list(tests: &BTreeSet<String>) -> String {
    tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let endpoints = [endpoint("GET", "/a/{x}"), endpoint("GET", "/b"), endpoint("GET", "/c")];
        let routes = ["/a/{y}", "/b", "/d/{z}"].map(|path| (Call::new("GET", path), path.to_owned())).into();
        let knocks = Knocks::from([(Call::new("GET", "/a/{}"), BTreeSet::from(["media::a".to_owned()]))]);
        let page = page(&endpoints, &routes, &knocks).unwrap();
        for line in [
            "| Client-server API | 3 | 2 | 1 |",
            "| `GET /a/{x}` |  | served | `media::a` |",
            "| `GET /b` |  | served | no test names it |",
            "| `GET /c` |  | **missing** |  |",
            "| `GET /d/{z}` |  |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_test_cannot_knock_where_no_door_is() {
        let knocks = Knocks::from([(Call::new("GET", "/typo"), BTreeSet::from(["media::a".to_owned()]))]);
        assert!(page(&[], &Routes::new(), &knocks).is_err());
    }
}
