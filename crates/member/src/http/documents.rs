//! Files: received by their pieces, and given to users of the member and to members that share a ledger
//! (section 1.5).

use std::{io, sync::Arc, time::Duration};

use daybook_ledger::{consortium::Did, json::Value};
use daybook_wire::multipart::{HEAD_BYTES_MAX, Multipart, Piece};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time;

use super::{
    Asks, BODY_TIMEOUT, Known, Refused, Reply,
    answers::{broken, detail, empty, json, later, not_taken, set, unknown},
    downloads::{self, Turn},
};
use crate::{
    disk::DiskError,
    documents::{Document, DocumentError},
    fetch::{self, Found},
    json::object,
    member::{Shared, blocking},
    page::parameters,
};

/// Bytes of a form around its file: heads, and fields that nobody reads.
const FORM_BYTES_MAX: u64 = 16 * HEAD_BYTES_MAX as u64;
/// When to come again when too many documents are being received.
const COME_AGAIN: Duration = Duration::from_secs(5);

impl Asks<'_> {
    pub(super) async fn upload(&self, known: Known, body: Incoming) -> Result<Reply, Refused> {
        let Ok(_turn) = self.hosted.uploads.try_acquire() else {
            let words = "Too many documents are being received: try again later.";
            let refusal = detail(StatusCode::SERVICE_UNAVAILABLE, words);
            return Err(Box::new(later(refusal, COME_AGAIN)));
        };
        let bytes_max = known.shared.settings.document_bytes_max;
        let mut room = bytes_max.saturating_add(FORM_BYTES_MAX);
        let wrong = |words: &str| {
            let mut reply = json(StatusCode::BAD_REQUEST, &words.into());
            open_to_all(&mut reply);
            Box::new(reply)
        };
        let content_type = self.parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|text| text.to_str().ok())
            .unwrap_or("");
        let Ok(mut multipart) = Multipart::new(content_type) else {
            return Err(wrong("Expected file value"));
        };
        let mut body = body;
        let mut receiving = None;
        let mut is_file = false;
        let mut complete = false;
        'parts: loop {
            loop {
                match multipart
                    .next_piece()
                    .map_err(|error| wrong(&error.to_string()))?
                {
                    None => break,
                    Some(Piece::End) => break 'parts,
                    Some(Piece::Part(head)) => {
                        is_file = head.name == "file" && receiving.is_none();
                        if is_file {
                            let (shared, name) =
                                (known.shared.clone(), head.filename.unwrap_or_default());
                            let begun = blocking(move || shared.documents.receive(&name)).await;
                            receiving = Some(begun.map_err(not_taken)?);
                        }
                    }
                    Some(Piece::Data(data)) if is_file => {
                        if let Some(mut document) = receiving.take() {
                            let written = blocking(move || {
                                document.write(&data)?;
                                Ok(document)
                            });
                            receiving = Some(written.await.map_err(not_taken)?);
                        }
                    }
                    Some(Piece::Data(_)) => {}
                    Some(Piece::PartEnd) => complete |= std::mem::take(&mut is_file),
                }
            }
            let frame = time::timeout(BODY_TIMEOUT, body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        // Parts that nobody keeps count, too: a body has an end.
                        room = room
                            .checked_sub(data.len() as u64)
                            .ok_or_else(|| not_taken(DocumentError::TooLong(bytes_max)))?;
                        multipart.feed(&data);
                    }
                }
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => {
                    return Err(Box::new(detail(
                        StatusCode::REQUEST_TIMEOUT,
                        "The document did not arrive whole.",
                    )));
                }
            }
        }
        let Some(document) = receiving.filter(|_| complete) else {
            return Err(wrong("Expected file value"));
        };
        let origin = known.shared.settings.origin.clone();
        let kept = blocking(move || {
            let shared = &known.shared;
            shared
                .documents
                .keep(document, &known.caller.name, shared.now_ms())
        });
        let kept = kept.await.map_err(not_taken)?;
        let mut reply = json(
            StatusCode::OK,
            &object([
                ("url", format!("{origin}/content/{}", kept.uid).into()),
                ("md5", kept.md5.into()),
                ("filename", kept.filename.into()),
                ("sha256", kept.sha256.into()),
                ("bytes", kept.bytes.into()),
            ]),
        );
        open_to_all(&mut reply);
        Ok(reply)
    }

    /// The signed request of another member's gateway.
    pub(super) fn shown_by_member(&self) -> Option<String> {
        let shown = self.parts.headers.get(header::AUTHORIZATION)?;
        let (scheme, rest) = shown.to_str().ok()?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case(fetch::SCHEME)
            .then(|| rest.to_owned())
    }

    pub(super) async fn content_for_member(
        &self,
        uid: &str,
        shown: String,
    ) -> Result<Reply, Refused> {
        for shared in self.hosted.all_shared() {
            let (uid, shown) = (uid.to_owned(), shown.clone());
            let found = blocking(move || {
                let reader = fetch::reader(&shared, &shown, &uid);
                let document = shared.documents.find(&uid)?;
                Ok::<_, DiskError>(
                    reader
                        .zip(document)
                        .map(|(reader, document)| (shared, reader, document)),
                )
            });
            if let Some((shared, reader, document)) = found.await.map_err(broken)? {
                let turn = self.turn(reader.to_string())?;
                return self.give(shared, document, turn).await;
            }
        }
        // Who may not read it learns nothing of it.
        Err(unknown("Invalid username/password."))
    }

    /// A document for a user: the member's own of this name, or the one that another member attached
    /// to an entry of a shared ledger. When several did, the user says which (`?by=<DID>`).
    pub(super) async fn content(&self, known: Known, uid: &str) -> Result<Reply, Refused> {
        let shared = known.shared;
        let query = self.parts.uri.query().unwrap_or("");
        let mut by = parameters(query).filter(|(name, _)| *name == "by");
        let by = match by.next().map(|(_, did)| did.parse::<Did>()) {
            None => None,
            Some(Ok(did)) => Some(did),
            Some(Err(error)) => {
                let words = format!("\"by\": {error}");
                return Err(Box::new(detail(StatusCode::BAD_REQUEST, &words)));
            }
        };
        let turn = self.turn(known.caller.name)?;
        let found = {
            let (reader, hosted) = (shared.clone(), self.hosted.all_shared());
            let uid = uid.to_owned();
            blocking(move || fetch::find(&reader, &hosted, &uid, by)).await
        };
        match found.map_err(broken)? {
            Found::Here(owner, document) => self.give(owner, document, turn).await,
            Found::Elsewhere(attached) => {
                let Ok(_turn) = self.hosted.fetches.acquire().await else {
                    return Err(not_found_here());
                };
                let brought = fetch::bring(&shared, &attached, uid).await;
                let document = brought.map_err(|why| {
                    tracing::warn!(why, "a document of another member is not here");
                    let words = format!("The document is not here: {why}");
                    Box::new(detail(StatusCode::BAD_GATEWAY, &words))
                })?;
                self.give(shared, document, turn).await
            }
            Found::Several(members) => Err(several(&shared, uid, &members)),
            Found::Nowhere => Err(not_found_here()),
        }
    }

    async fn give(
        &self,
        shared: Arc<Shared>,
        document: Document,
        turn: Turn,
    ) -> Result<Reply, Refused> {
        let tag = format!("\"{}\"", document.sha256);
        let headers = &self.parts.headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(header::IF_NONE_MATCH).is_some_and(|tags| {
            tags.split(',')
                .any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
        }) {
            let mut reply = Response::new(empty());
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            inert(&mut reply, &document, &tag);
            return Ok(reply);
        }
        let wanted = text(header::RANGE)
            .filter(|_| text(header::IF_RANGE).is_none_or(|known| known == tag))
            .and_then(|range| range_of(range, document.bytes));
        let (first, last, status) = match wanted {
            Some(Ok((first, last))) => (first, last, StatusCode::PARTIAL_CONTENT),
            Some(Err(())) => {
                let mut reply =
                    detail(StatusCode::RANGE_NOT_SATISFIABLE, "There is no such range.");
                let range = format!("bytes */{}", document.bytes);
                set(&mut reply, header::CONTENT_RANGE, &range);
                return Err(Box::new(reply));
            }
            None => (0, document.bytes.saturating_sub(1), StatusCode::OK),
        };
        let length = match document.bytes {
            0 => 0,
            _ => last - first + 1,
        };
        let body = match self.head || length == 0 {
            true => empty(),
            false => {
                let stopping = shared.stopping();
                let opened = {
                    let document = document.clone();
                    blocking(move || shared.documents.read(&document, first, last)).await
                };
                let mut reading = opened.map_err(|error| {
                    tracing::error!(%error, uid = document.uid, "a document cannot be read");
                    let words = "The document cannot be read.";
                    Box::new(detail(StatusCode::INTERNAL_SERVER_ERROR, words))
                })?;
                let uid = document.uid.clone();
                let read = move || {
                    reading.next().inspect_err(|error: &io::Error| {
                        tracing::error!(%error, uid, "a document broke off");
                    })
                };
                downloads::body(read, turn, stopping)
            }
        };
        let mut reply = Response::new(body);
        *reply.status_mut() = status;
        inert(&mut reply, &document, &tag);
        set(&mut reply, header::CONTENT_LENGTH, &length.to_string());
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {first}-{last}/{}", document.bytes);
            set(&mut reply, header::CONTENT_RANGE, &range);
        }
        Ok(reply)
    }
}

fn not_found_here() -> Refused {
    Box::new(json(StatusCode::NOT_FOUND, &"Not Found".into()))
}

/// Who attached different documents under one name, and where each of them is.
fn several(shared: &Shared, uid: &str, members: &[Did]) -> Refused {
    let members = members.iter().map(|did| {
        object([
            ("did", did.to_string().into()),
            ("label", shared.mirror.label(*did).into()),
            ("url", format!("/content/{uid}?by={did}").into()),
        ])
    });
    let answer = object([
        (
            "detail",
            "Several members attached a document of this name: say whose with ?by=<DID>.".into(),
        ),
        ("members", Value::Array(members.collect())),
    ]);
    Box::new(json(StatusCode::CONFLICT, &answer))
}

/// What the original answers to every page (section 1.5). No credentials of a browser come with it.
fn open_to_all(reply: &mut Reply) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_MAX_AGE, "1000"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

/// What keeps a document from doing anything in a browser.
fn inert(reply: &mut Reply, document: &Document, tag: &str) {
    set(reply, header::CONTENT_TYPE, &document.content_type);
    set(reply, header::ETAG, tag);
    set(reply, header::ACCEPT_RANGES, "bytes");
    set(
        reply,
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'",
    );
    set(
        reply,
        header::CACHE_CONTROL,
        "private, max-age=0, must-revalidate",
    );
    let plain: String = document
        .filename
        .chars()
        .map(|c| match c {
            ' '..='~' if !matches!(c, '"' | '\\') => c,
            _ => '_',
        })
        .collect();
    let mut encoded = String::new();
    for byte in document.filename.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    set(
        reply,
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"),
    );
}

/// The one range that `Range` asks for; `None` for anything that may be answered whole (RFC 9110,
/// section 14.2), an error for one that is not there.
fn range_of(text: &str, bytes: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = match (first.trim(), last.trim()) {
        ("", "") => return None,
        ("", count) => (
            bytes.checked_sub(number(count)?.min(bytes))?,
            bytes.checked_sub(1),
        ),
        (first, "") => (number(first)?, bytes.checked_sub(1)),
        (first, last) => {
            let last = number(last)?;
            (
                number(first)?,
                bytes.checked_sub(1).map(|end| last.min(end)),
            )
        }
    };
    match last {
        Some(last) if first <= last => Some(Ok((first, last))),
        _ => Some(Err(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_as_it_is_meant() {
        for (text, expected) in [
            ("bytes=0-4", Some(Ok((0, 4)))),
            ("bytes=5-", Some(Ok((5, 9)))),
            ("bytes=-3", Some(Ok((7, 9)))),
            ("bytes=-30", Some(Ok((0, 9)))),
            ("bytes=8-100", Some(Ok((8, 9)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-4", Some(Err(()))),
            ("bytes=x-4", None),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range_of(text, 10), expected, "{text}");
        }
        assert_eq!(range_of("bytes=0-", 0), Some(Err(())));
    }
}
