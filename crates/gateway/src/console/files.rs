//! The console's files, as part of the program.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::{
    body::Body,
    reply::{Reply, not_found, with_type},
};

/// Kept by browsers, and asked about each time: after an update no page runs with an old script.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache");

/// Bytes of a digest that make a tag: no two versions of a file share them by accident.
const TAG_BYTES: usize = 12;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

struct File {
    /// Below `/console/`; empty for the page itself.
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
    tag: OnceLock<HeaderValue>,
}

macro_rules! files {
    ($($path:literal as $name:literal: $kind:ident,)*) => {
        const COUNT: usize = [$($path),*].len();
        static FILES: [File; COUNT] = [$(File {
            path: $name,
            kind: $kind,
            content: include_bytes!(concat!("../../../../console/", $path)),
            tag: OnceLock::new(),
        },)*];
    };
}

files! {
    "index.html" as "": HTML,
    "style.css" as "style.css": STYLE,
    "icon.svg" as "icon.svg": IMAGE,
    "theme.js" as "theme.js": SCRIPT,
    "main.js" as "main.js": SCRIPT,
    "router.js" as "router.js": SCRIPT,
    "node.js" as "node.js": SCRIPT,
    "live.js" as "live.js": SCRIPT,
    "format.js" as "format.js": SCRIPT,
    "widgets.js" as "widgets.js": SCRIPT,
    "plot.js" as "plot.js": SCRIPT,
    "entries.js" as "entries.js": SCRIPT,
    "fleet.js" as "fleet.js": SCRIPT,
    "wallet.js" as "wallet.js": SCRIPT,
    "sha3.js" as "sha3.js": SCRIPT,
    "sending.js" as "sending.js": SCRIPT,
    "pages/live.js" as "pages/live.js": SCRIPT,
    "pages/transactions.js" as "pages/transactions.js": SCRIPT,
    "pages/transaction.js" as "pages/transaction.js": SCRIPT,
    "pages/blocks.js" as "pages/blocks.js": SCRIPT,
    "pages/asset.js" as "pages/asset.js": SCRIPT,
    "pages/key.js" as "pages/key.js": SCRIPT,
    "pages/channels.js" as "pages/channels.js": SCRIPT,
    "pages/bus.js" as "pages/bus.js": SCRIPT,
    "pages/ledgers.js" as "pages/ledgers.js": SCRIPT,
    "pages/machines.js" as "pages/machines.js": SCRIPT,
    "pages/search.js" as "pages/search.js": SCRIPT,
    "pages/submit.js" as "pages/submit.js": SCRIPT,
    "pages/node.js" as "pages/node.js": SCRIPT,
    "vendor/preact.js" as "vendor/preact.js": SCRIPT,
    "vendor/hooks.js" as "vendor/hooks.js": SCRIPT,
    "vendor/htm.js" as "vendor/htm.js": SCRIPT,
    "vendor/LICENSE-preact" as "vendor/LICENSE-preact": TEXT,
    "vendor/LICENSE-htm" as "vendor/LICENSE-htm": TEXT,
}

/// Answers with the page itself, always the whole of it: a browser that keeps its copy keeps that copy's
/// policy too, and the policy names the machines of this moment.
pub(super) fn page() -> Reply {
    let mut reply = file("", &HeaderMap::new());
    reply
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Answers with a file, or says that the browser's copy is still right.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Reply {
    let path = path.trim_end_matches('/');
    let Some(file) = FILES.iter().find(|file| file.path == path) else {
        return not_found();
    };
    let tag = file.tag.get_or_init(|| tag(file.content));
    let held = headers.get_all(header::IF_NONE_MATCH).iter().any(|held| {
        held.to_str().is_ok_and(|held| {
            let mut tags = held
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"));
            tags.any(|held| tag == held || held == "*")
        })
    });
    let mut reply = if held {
        let mut reply = Response::new(Body::default());
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        let body = Body::whole(Bytes::from_static(file.content));
        with_type(StatusCode::OK, HeaderValue::from_static(file.kind), body)
    };
    let headers = reply.headers_mut();
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    reply
}

fn tag(content: &[u8]) -> HeaderValue {
    let digest = digest(&SHA256, content);
    let digits = digest.as_ref()[..TAG_BYTES]
        .iter()
        .fold(String::from("\""), |digits, byte| {
            format!("{digits}{byte:02x}")
        });
    HeaderValue::from_str(&(digits + "\"")).expect("hexadecimal digits in quotes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Files for people who work on the console.
    const NOT_SERVED: &[&str] = &["README.md", "vendor/README.md"];

    fn sources(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                sources(&entry.path(), &format!("{path}/"), found);
            } else if !NOT_SERVED.contains(&&*path) {
                found.insert(path);
            }
        }
    }

    #[test]
    fn every_file_of_the_console_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../console");
        let mut there = BTreeSet::new();
        sources(Path::new(folder), "", &mut there);
        let served: BTreeSet<String> = FILES
            .iter()
            .map(|file| match file.path {
                "" => "index.html".to_owned(),
                path => path.to_owned(),
            })
            .collect();
        assert_eq!(served, there);
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_nothing_is_inline() {
        for file in FILES
            .iter()
            .filter(|file| !file.path.starts_with("vendor/"))
        {
            let text = std::str::from_utf8(file.content).unwrap();
            let elsewhere = text.contains("http://") || text.contains("https://");
            let is_image = file.kind == IMAGE;
            assert!(is_image || !elsewhere, "{} names another host", file.path);
            for word in [
                "dangerouslySetInnerHTML",
                ".innerHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!text.contains(word), "{} uses {word}", file.path);
            }
        }
        let page = std::str::from_utf8(FILES[0].content).unwrap();
        assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<style"));
        assert_eq!(
            page.matches("<script").count(),
            page.matches("></script>").count()
        );
    }

    #[test]
    fn a_browser_that_holds_a_file_is_not_sent_it_again() {
        let mut headers = HeaderMap::new();
        let first = file("style.css", &headers);
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        for held in [
            tag.to_str().unwrap(),
            &format!("W/{}", tag.to_str().unwrap()),
            "\"a\", *",
        ] {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(held).unwrap());
            assert_eq!(
                file("style.css", &headers).status(),
                StatusCode::NOT_MODIFIED
            );
        }
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"old\""));
        assert_eq!(file("style.css", &headers).status(), StatusCode::OK);
        assert_eq!(
            file("../Cargo.toml", &headers).status(),
            StatusCode::NOT_FOUND
        );
    }
}
