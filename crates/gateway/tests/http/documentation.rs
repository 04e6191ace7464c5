//! The pages of the protocols against the code: every path and every code that a client meets stands in
//! them, and nothing else does.

use std::{collections::BTreeSet, fs, path::Path};

use daybook_gateway::Route;
use daybook_ledger::{RejectionClass, tracker::Code};

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(docs.join(name)).unwrap()
}

/// What stands between a heading and the next one.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap()
}

/// The code in the first cell of each row of a table.
fn first_cells(section: &str) -> BTreeSet<&str> {
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next());
    rows.collect()
}

/// What stands between backticks.
fn codes(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_of_the_asset_ledger_lists_every_class_of_rejections() {
    let known: BTreeSet<&str> = (0..=u8::MAX)
        .filter_map(RejectionClass::from_code)
        .map(RejectionClass::name)
        .collect();
    let page = page("protocols/asset-ledger.md");
    let (_, promise) = page.split_once("Classes are a promise:").unwrap();
    let (promise, _) = promise.split_once("More may come").unwrap();
    let listed = codes(promise)
        .into_iter()
        .filter(|code| !code.contains(' '))
        .collect();
    assert_eq!(known, listed);
}

#[test]
fn the_page_of_the_bytes_on_disk_numbers_the_classes_as_records_do() {
    let page = page("format.md").replace('\n', " ");
    for code in 0..=u8::MAX {
        if let Some(class) = RejectionClass::from_code(code) {
            let listed = format!("{code} {}", class.name());
            assert!(page.contains(&listed), "{listed}");
        }
    }
}

#[test]
fn the_page_of_the_wallet_tracker_lists_every_code() {
    let known: BTreeSet<&str> = Code::ALL.into_iter().map(Code::as_str).collect();
    let page = page("protocols/wallet-tracker.md");
    assert_eq!(known, first_cells(section(&page, "Errors")));
}

#[test]
fn every_path_that_a_page_names_is_served_and_every_path_that_is_served_is_named() {
    let pages = [
        "../README.md",
        "cli.md",
        "operations.md",
        "protocols/asset-ledger.md",
        "protocols/events.md",
        "protocols/machines.md",
        "protocols/wallet-tracker.md",
    ];
    let (mut named, mut unknown) = (BTreeSet::new(), Vec::new());
    for name in pages {
        let text = page(name).replace("/api/v1/streams/…", "");
        for path in paths(&text) {
            match Route::ALL.into_iter().find(|route| is_of(*route, path)) {
                Some(route) => {
                    named.insert(route.template());
                }
                None => unknown.push(format!("{name}: {path}")),
            }
        }
    }
    assert!(unknown.is_empty(), "not served: {}", unknown.join(", "));
    let assets = page("protocols/asset-ledger.md");
    let tracker = page("protocols/wallet-tracker.md");
    let consortium = page("protocols/consortium-node.md");
    for route in Route::ALL {
        let path = route.template();
        let is_named = match (route, route.stream()) {
            (_, Some(kind)) => assets.contains(&format!("| `{}` |", kind.name())),
            (Route::Api, _) => assets.contains(&format!("{path} ")),
            (Route::Root | Route::Tracker | Route::TrackerSocket, _) => {
                tracker.contains(&format!("`{path}`"))
            }
            // Its page says once what its paths begin with.
            _ if path.starts_with("/api/v1/consortium") => {
                let last = path.split('/').rfind(|part| !part.starts_with('{'));
                consortium.contains(&format!("/{}", last.unwrap()))
            }
            // What the console asks is no interface.
            _ => named.contains(path) || route.is_console(),
        };
        assert!(is_named, "no page names {path}");
    }
}

/// Whether a page's way of writing a path, `<…>` for what varies, is that of a route.
fn is_of(route: Route, path: &str) -> bool {
    let (known, asked) = (segments(route.template()), segments(path));
    known.len() == asked.len()
        && known.iter().zip(&asked).all(|(known, asked)| {
            known == asked || (known.starts_with('{') && asked.starts_with('<'))
        })
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The paths of a node that a text names.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    const ROOTS: [&str; 5] = [
        "/api/v1/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/send_tokens",
    ];
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "/_.<>".contains(c));
    ROOTS
        .into_iter()
        .flat_map(move |root| text.match_indices(root))
        .map(move |(at, _)| {
            let path = &text[at..];
            let path = &path[..path.find(ends).unwrap_or(path.len())];
            path.trim_end_matches(['.', '/'])
        })
        .filter(|path| *path != "/api/v1")
}
