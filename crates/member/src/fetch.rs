//! Documents of other members: who takes part in a ledger may read what is attached to its entries. A
//! member's gateway asks the other's with a request signed by its own key, compares what comes with the
//! digests that were agreed on, and keeps a copy for its users.

use std::{io, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daybook_ledger::{
    PublicKey,
    consortium::Did,
    json::{Object, Value},
};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    disk::DiskError,
    documents::{Document, DocumentError},
    health::is_key_of,
    json::{object, own, text, write},
    member::{Shared, blocking},
    notice::{self, Notice},
};

/// How long a connection to another member may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the next piece of its answer may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a document may take altogether: one of the largest, at a hundred kilobytes a second.
const BRING_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The kind of notice with which a member asks for a document.
const KIND: &str = "document";
/// The scheme of `Authorization` that carries it.
pub(crate) const SCHEME: &str = "Member";
/// Characters of a document's name in an address.
const UID_CHARS_MAX: usize = 64;

/// An attachment, as the mirror keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Who signed the entry.
    pub(crate) by: Did,
    url: String,
    md5: String,
    /// Empty when the entry does not tell it.
    sha256: String,
    filename: String,
}

/// Where a document is.
#[derive(Debug)]
pub(crate) enum Found {
    /// With a member of this process: the one who asks, or who shares it with that one.
    Here(Arc<Shared>, Document),
    /// With another member's gateway.
    Elsewhere(Attached),
    /// Several members attached different documents of this name.
    Several(Vec<Did>),
    Nowhere,
}

/// The attachments of an entry with an address of the form `…/content/<uid>`: their `uid` and what is
/// kept of each.
pub(crate) fn attached(entry: &Object, by: Did) -> Vec<(String, String)> {
    let attachments = entry.get("~attach").and_then(Value::as_array);
    let row = |attachment: &Value| {
        let json = crate::json::member(crate::json::member(attachment, "data")?, "json")?;
        let (_, uid) = text(json, "url").rsplit_once("/content/")?;
        let uid = uid.trim_end_matches('/');
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'.';
        if uid.is_empty() || uid.len() > UID_CHARS_MAX || !uid.bytes().all(plain) {
            return None;
        }
        let kept = object([
            ("by", by.to_string().into()),
            ("url", text(json, "url").into()),
            ("md5", text(json, "md5").to_lowercase().into()),
            ("sha256", text(json, "sha256").to_lowercase().into()),
            ("filename", text(attachment, "filename").into()),
        ]);
        Some((uid.to_owned(), write(&kept)))
    };
    attachments.unwrap_or(&[]).iter().filter_map(row).collect()
}

impl Attached {
    pub(crate) fn read(row: &str) -> Option<Attached> {
        let row = own(row);
        Some(Attached {
            by: text(&row, "by").parse().ok()?,
            url: text(&row, "url").to_owned(),
            md5: text(&row, "md5").to_owned(),
            sha256: text(&row, "sha256").to_owned(),
            filename: text(&row, "filename").to_owned(),
        })
    }
}

/// Who asks for this document, if `authorization` is another member's request for it and the member
/// takes part in a ledger that it is attached to. Blocks on the disk.
pub(crate) fn reader(shared: &Shared, authorization: &str, uid: &str) -> Option<Did> {
    let known = |did: Did, key: &PublicKey| is_key_of(shared, did, key, false);
    let notice = STANDARD.decode(authorization.trim()).ok()?;
    let notice = Notice::open(&notice, shared.mirror.network(), &known)
        .inspect_err(|error| tracing::debug!(%error, "a document is not given"))
        .ok()?;
    let about_this = notice.kind() == KIND
        && notice.text("uid") == uid
        && notice.text("from") == shared.me().to_string()
        && notice.is_fresh(shared.now_ms());
    let shares = about_this
        && shared
            .mirror
            .shares_attachment(uid, notice.member)
            .unwrap_or(false);
    shares.then_some(notice.member)
}

/// Finds a document for `reader`'s users: the one that was uploaded there, or else what other members
/// attached to entries of ledgers that the reader takes part in. `hosted` are the members of this
/// process, `by` is the member whose document is asked for, if that was said. Blocks on the disk.
pub(crate) fn find(
    reader: &Arc<Shared>,
    hosted: &[Arc<Shared>],
    uid: &str,
    by: Option<Did>,
) -> Result<Found, DiskError> {
    let me = reader.me();
    if by.is_none_or(|by| by == me)
        && let Some(document) = reader.documents.find(uid)?
    {
        return Ok(Found::Here(reader.clone(), document));
    }
    let wanted = |did: Did| did != me && by.is_none_or(|by| by == did);
    // Of each member one, and the SHA-256 of what it gives or has agreed to give.
    let mut found: Vec<(Did, String, Found)> = Vec::new();
    for owner in hosted.iter().filter(|owner| wanted(owner.me())) {
        if let Some(document) = owner.documents.find(uid)?
            && owner.mirror.shares_attachment(uid, me)?
        {
            let digest = document.sha256.clone();
            found.push((owner.me(), digest, Found::Here(owner.clone(), document)));
        }
    }
    let is_known = |found: &[(Did, String, Found)], did: Did| {
        let mut known = found.iter();
        known.any(|(known, ..)| *known == did)
    };
    for (did, document) in reader.documents.brought(uid)? {
        if wanted(did) && !is_known(&found, did) {
            let digest = document.sha256.clone();
            found.push((did, digest, Found::Here(reader.clone(), document)));
        }
    }
    for attached in reader.mirror.attachments(uid)? {
        if wanted(attached.by) && !is_known(&found, attached.by) {
            let digest = attached.sha256.clone();
            found.push((attached.by, digest, Found::Elsewhere(attached)));
        }
    }
    // An entry may name documents of others: who only names one at somebody else's address has none.
    let has = |source: &Found| match source {
        Found::Elsewhere(attached) => is_at_home(reader, attached, uid),
        _ => true,
    };
    if found.iter().any(|(.., source)| has(source)) {
        found.retain(|(.., source)| has(source));
    }
    let digest = found.first().map(|(_, digest, _)| digest.clone());
    let agree =
        |(_, other, _): &(Did, String, Found)| !other.is_empty() && digest.as_ref() == Some(other);
    match found.len() {
        0 => Ok(Found::Nowhere),
        // What is here comes first.
        1 => Ok(found.swap_remove(0).2),
        _ if found.iter().all(agree) => Ok(found.swap_remove(0).2),
        _ => Ok(Found::Several(
            found.into_iter().map(|(did, ..)| did).collect(),
        )),
    }
}

/// Where a member's gateway is, as its card says.
fn endpoint(shared: &Shared, did: Did) -> String {
    let book = shared.mirror.book();
    let member = book.member(did);
    let endpoint = member.map(|member| member.card.profile().endpoint.clone());
    endpoint.unwrap_or_default()
}

/// Whether a document is at its signer's own gateway. An entry may name any address; only that one is
/// asked.
fn is_at_home(shared: &Shared, attached: &Attached, uid: &str) -> bool {
    let endpoint = endpoint(shared, attached.by);
    attached.url == format!("{}/content/{uid}", endpoint.trim_end_matches('/'))
}

/// Brings a document of another member here.
///
/// # Errors
/// Why it cannot be brought, in words.
pub(crate) async fn bring(
    shared: &Arc<Shared>,
    attached: &Attached,
    uid: &str,
) -> Result<Document, String> {
    let bringing = bring_in_time(shared, attached, uid);
    let late = |_| {
        format!(
            "{} did not give it in time",
            shared.mirror.label(attached.by)
        )
    };
    timeout(BRING_TIMEOUT, bringing).await.map_err(late)?
}

async fn bring_in_time(
    shared: &Arc<Shared>,
    attached: &Attached,
    uid: &str,
) -> Result<Document, String> {
    let label = shared.mirror.label(attached.by);
    if !is_at_home(shared, attached, uid) {
        return Err(format!(
            "it is at {}, which is not the endpoint on the card of {label}",
            attached.url.chars().take(256).collect::<String>()
        ));
    }
    let failed = |error: &dyn std::fmt::Display| format!("{label} did not give it: {error}");
    let asking = [
        ("uid", Value::from(uid)),
        ("from", attached.by.to_string().into()),
    ];
    let signed = notice::sign(
        shared.mirror.network(),
        shared.me(),
        KIND,
        asking,
        shared.now_ms() / 1_000,
        &shared.identity.key,
    );
    let authorization = format!("{SCHEME} {}", STANDARD.encode(signed));
    let answer = ask(&attached.url, &authorization, &shared.trust)
        .await
        .map_err(|error| failed(&error))?;
    let (status, mut pieces) = answer;
    if status != StatusCode::OK {
        return Err(failed(&format!("status {}", status.as_u16())));
    }
    let mut receiving = {
        let (shared, name) = (shared.clone(), attached.filename.clone());
        let begun = blocking(move || shared.documents.receive(&name)).await;
        begun.map_err(|error| failed(&error))?
    };
    loop {
        let piece = timeout(PIECE_TIMEOUT, pieces.0.frame()).await;
        let piece = piece.map_err(|_| failed(&"it took too long"))?;
        let Some(frame) = piece else { break };
        let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() else {
            continue;
        };
        let written = blocking(move || {
            receiving.write(&data)?;
            Ok::<_, DocumentError>(receiving)
        });
        receiving = written.await.map_err(|error| failed(&error))?;
    }
    let (shared, uid, attached) = (shared.clone(), uid.to_owned(), attached.clone());
    let kept = blocking(move || {
        let (md5, sha256) = receiving.digests();
        let right = match attached.sha256.as_str() {
            "" => md5 == attached.md5,
            agreed => sha256 == agreed && md5 == attached.md5,
        };
        if !right {
            return Err(format!("what {label} gave is not what was agreed on"));
        }
        let now = shared.now_ms();
        let kept = shared.documents.keep_of(receiving, uid, attached.by, now);
        kept.map_err(|error| error.to_string())
    });
    kept.await
}

/// The rest of an answer; the connection lives as long as it.
struct Pieces(hyper::body::Incoming, tokio::task::JoinHandle<()>);

impl Drop for Pieces {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// A connection, plain or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn ask(
    url: &str,
    authorization: &str,
    trust: &TlsConnector,
) -> io::Result<(StatusCode, Pieces)> {
    let wrong = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or_else(|| wrong(&"no host"))?.to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let bare = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let connecting = async {
        let stream = TcpStream::connect((bare.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok::<Box<dyn Stream>, io::Error>(Box::new(stream));
        }
        let name = ServerName::try_from(bare.clone()).map_err(|error| wrong(&error))?;
        Ok(Box::new(trust.connect(name, stream).await?))
    };
    let stream = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| wrong(&error))?;
    let driving = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to another member broke");
        }
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = uri.path().parse().map_err(|error| wrong(&error))?;
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(&format!("{host}:{port}")).map_err(|error| wrong(&error))?;
    headers.insert(header::HOST, host);
    let mut shown = HeaderValue::from_str(authorization).map_err(|error| wrong(&error))?;
    shown.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, shown);
    let answered = timeout(PIECE_TIMEOUT, sender.send_request(request)).await;
    let response = answered
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(|error| wrong(&error))?;
    let status = response.status();
    Ok((status, Pieces(response.into_body(), driving)))
}

/// Trusts Mozilla's roots, or only the certificates of `ca_file`.
pub(crate) fn trust(ca_file: Option<&Path>) -> io::Result<TlsConnector> {
    let wrong = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_addresses_of_documents_are_kept_of_attachments() {
        let me = Did([1; 16]);
        let entry = |url: &str| {
            let text = format!(
                r#"{{"~attach":[{{"filename":"f","data":{{"json":{{"url":"{url}","md5":"AB"}}}}}}]}}"#
            );
            own(&text).as_object().unwrap().clone()
        };
        let rows = attached(&entry("https://a.example/content/0f.pdf"), me);
        assert_eq!(rows[0].0, "0f.pdf");
        let read = Attached::read(&rows[0].1).unwrap();
        assert_eq!(
            (read.by, read.md5.as_str(), read.sha256.as_str()),
            (me, "ab", "")
        );
        for url in [
            "",
            "https://a.example/other/0f.pdf",
            "https://a.example/content/",
            "https://a.example/content/../x",
            "https://a.example/content/a?b",
        ] {
            assert_eq!(attached(&entry(url), me), [], "{url}");
        }
        assert_eq!(attached(&Object::new(), me), []);
    }
}
