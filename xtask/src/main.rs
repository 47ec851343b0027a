//! Chores of the repository: pages made from facts.
//!
//! `cargo run -p xtask -- conformance` writes `docs/src/conformance.md`; with `--check` it only says whether the
//! committed page is the one it would write.

mod conformance;
mod knocks;
mod spec;

use std::{env, fs, path::Path, process::ExitCode};

const USAGE: &str = "usage: cargo run -p xtask -- conformance [--check]";
const PAGE: &str = "docs/src/conformance.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["conformance"] => write_page(),
        ["conformance", "--check"] => check_page(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn write_page() -> Result<(), String> {
    fs::write(top().join(PAGE), page()?).map_err(|error| format!("{PAGE}: {error}"))
}

fn check_page() -> Result<(), String> {
    let committed = fs::read_to_string(top().join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    if committed != page()? {
        return Err(format!("{PAGE} is old; write it anew with: cargo run -p xtask -- conformance"));
    }
    Ok(())
}

fn page() -> Result<String, String> {
    let endpoints = spec::read(&top().join("docs/endpoints.csv"))?;
    let routes = hearth_api::routes()
        .into_iter()
        .map(|route| (spec::Call::new(&route.method, &route.path), route.path))
        .collect();
    let knocks = knocks::read(top())?;
    conformance::page(&endpoints, &routes, &knocks)
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}
