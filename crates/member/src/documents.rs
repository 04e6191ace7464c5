//! Documents: files by their content, received under a temporary name and renamed when they are whole
//! and on disk, so that a crash leaves no half of one (section 1.5).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use daybook_ledger::{
    consortium::Did,
    json::{Object, Value},
};
use md5::{Digest, Md5};

use crate::{
    disk::{DiskError, OwnFile},
    json::{count, object, own, text, write},
    users::random,
};

/// The folder of what is still being received; emptied at a start.
pub(crate) const INCOMING: &str = "incoming";
/// Characters of a file's name that are kept.
const NAME_CHARS_MAX: usize = 255;
/// Characters of the extension that a `uid` keeps.
const EXTENSION_CHARS_MAX: usize = 16;
/// Bytes read from a file at once.
const READ_BYTES: usize = 64 << 10;
/// Under which member those are kept that were uploaded here.
const UPLOADED: &str = "";
/// Random bytes of a `uid`.
const UID_BYTES: usize = 16;

/// A document could not be taken or given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("a document has at most {0} bytes")]
    TooLong(u64),
    #[error("documents of type \"{0}\" are not taken here")]
    Type(String),
    #[error("the documents' folder: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What is known of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) uid: String,
    pub(crate) filename: String,
    pub(crate) bytes: u64,
    pub(crate) md5: String,
    pub(crate) sha256: String,
    pub(crate) content_type: String,
}

/// A document that is being read.
pub(crate) struct Reading {
    file: File,
    left: u64,
    /// The digest so far and what it must be; none of a part.
    agreed: Option<(Context, String)>,
}

impl Reading {
    /// The next piece, and nothing behind the last one. A whole document is compared with its digest as
    /// it goes out: its last piece comes when all is known to be right. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read, or is no longer what was received.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let room = usize::try_from(self.left).unwrap_or(READ_BYTES);
        let mut piece = vec![0; READ_BYTES.min(room)];
        let read = self.file.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(read);
        self.left -= read as u64;
        if let Some((digest, agreed)) = &mut self.agreed {
            digest.update(&piece);
            if self.left == 0 && hex::encode(digest.clone().finish()) != *agreed {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(Some(piece.into()))
    }
}

impl Document {
    /// What was kept of a document.
    fn read(uid: &str, kept: &str) -> Document {
        let kept = own(kept);
        Document {
            uid: uid.to_owned(),
            filename: text(&kept, "filename").to_owned(),
            bytes: count(&kept, "bytes"),
            md5: text(&kept, "md5").to_owned(),
            sha256: text(&kept, "sha256").to_owned(),
            content_type: text(&kept, "content_type").to_owned(),
        }
    }
}

/// The documents of a member.
#[derive(Debug)]
pub(crate) struct Documents {
    folder: PathBuf,
    own: Arc<OwnFile>,
    bytes_max: u64,
    /// Extensions that are taken; empty for all.
    extensions: Vec<String>,
}

/// A document on its way in.
pub(crate) struct Receiving {
    path: PathBuf,
    file: File,
    filename: String,
    bytes: u64,
    bytes_max: u64,
    sha256: Context,
    md5: Md5,
    kept: bool,
}

impl Documents {
    /// Opens the folder and removes what a crash left behind in it.
    pub(crate) fn open(
        folder: PathBuf,
        own: Arc<OwnFile>,
        bytes_max: u64,
        extensions: Vec<String>,
    ) -> io::Result<Documents> {
        fs::create_dir_all(incoming(&folder))?;
        for left in fs::read_dir(incoming(&folder))? {
            let left = left?.path();
            tracing::info!(path = %left.display(), "removing a document that never became whole");
            fs::remove_file(left)?;
        }
        sync(&folder)?;
        Ok(Documents {
            folder,
            own,
            bytes_max,
            extensions,
        })
    }

    /// Begins to receive a document of this name. Blocks on the disk, as all that follows does.
    pub(crate) fn receive(&self, filename: &str) -> Result<Receiving, DocumentError> {
        let filename = base_name(filename);
        let extension = extension(&filename);
        if !self.extensions.is_empty() && !self.extensions.contains(&extension) {
            return Err(DocumentError::Type(extension));
        }
        let path = incoming(&self.folder).join(hex::encode(random::<UID_BYTES>()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Receiving {
            path,
            file,
            filename,
            bytes: 0,
            bytes_max: self.bytes_max,
            sha256: Context::new(&SHA256),
            md5: Md5::new(),
            kept: false,
        })
    }

    /// Keeps a document that is whole: it is on disk, and then known, when this returns.
    pub(crate) fn keep(
        &self,
        receiving: Receiving,
        by: &str,
        now_ms: u64,
    ) -> Result<Document, DocumentError> {
        let uid = uid(&receiving.filename);
        self.put(receiving, uid, UPLOADED, by, now_ms)
    }

    /// As [`Documents::keep`], under the name that another member gave it and beside that member's own:
    /// another document may have the same name.
    pub(crate) fn keep_of(
        &self,
        receiving: Receiving,
        uid: String,
        member: Did,
        now_ms: u64,
    ) -> Result<Document, DocumentError> {
        let member = member.to_string();
        self.put(receiving, uid, &member, &member, now_ms)
    }

    fn put(
        &self,
        mut receiving: Receiving,
        uid: String,
        member: &str,
        by: &str,
        now_ms: u64,
    ) -> Result<Document, DocumentError> {
        receiving.file.sync_all()?;
        let (md5, sha256) = receiving.digests();
        let document = Document {
            uid,
            content_type: content_type(&extension(&receiving.filename)).to_owned(),
            filename: receiving.filename.clone(),
            bytes: receiving.bytes,
            md5,
            sha256,
        };
        let path = self.path(&document.sha256);
        let folder = path.parent().unwrap_or(&self.folder).to_owned();
        fs::create_dir_all(&folder)?;
        fs::rename(&receiving.path, &path)?;
        receiving.kept = true;
        sync(&folder)?;
        sync(&self.folder)?;
        let kept = object([
            ("uid", document.uid.as_str().into()),
            ("filename", document.filename.as_str().into()),
            ("bytes", document.bytes.into()),
            ("md5", document.md5.as_str().into()),
            ("sha256", document.sha256.as_str().into()),
            ("content_type", document.content_type.as_str().into()),
            ("by", by.into()),
            ("at", now_ms.into()),
        ]);
        self.own
            .put_document(&document.uid, member, &write(&kept))?;
        Ok(document)
    }

    /// What is known of a document that was uploaded here.
    pub(crate) fn find(&self, uid: &str) -> Result<Option<Document>, DiskError> {
        let kept = self.own.document(uid, UPLOADED)?;
        Ok(kept.map(|kept| Document::read(uid, &kept)))
    }

    /// Documents of this name that were brought from the members who attached them.
    pub(crate) fn brought(&self, uid: &str) -> Result<Vec<(Did, Document)>, DiskError> {
        let kept = self.own.documents(uid)?.into_iter();
        let read = kept.filter_map(|(member, kept)| {
            let member = member.parse().ok()?;
            Some((member, Document::read(uid, &kept)))
        });
        Ok(read.collect())
    }

    /// Opens a document to be read from byte `first` to byte `last`.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub(crate) fn read(&self, document: &Document, first: u64, last: u64) -> io::Result<Reading> {
        let mut file = File::open(self.path(&document.sha256))?;
        file.seek(SeekFrom::Start(first))?;
        let end = last.saturating_add(1).min(document.bytes);
        let left = end.saturating_sub(first);
        let whole = left == document.bytes;
        Ok(Reading {
            file,
            left,
            agreed: whole.then(|| (Context::new(&SHA256), document.sha256.clone())),
        })
    }

    /// Checks the attachments of an entry that name documents of this member: they are here, and their
    /// digests are the right ones. `is_own` tells the `uid` that an address of this member names. With
    /// `complete`, the SHA-256 is added where it is missing.
    ///
    /// # Errors
    /// A sentence for the user, or a fault of the disk.
    pub(crate) fn check(
        &self,
        entry: &mut Object,
        is_own: &dyn Fn(&str) -> Option<String>,
        complete: bool,
    ) -> Result<Result<(), String>, DiskError> {
        let Some(Value::Array(attachments)) = entry.get_mut("~attach") else {
            return Ok(Ok(()));
        };
        for (place, attachment) in (1..).zip(attachments) {
            let json = attachment_json(attachment);
            let Some(json) = json else { continue };
            let said = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or("");
            let Some(uid) = is_own(said("url")) else {
                continue;
            };
            let Some(document) = self.find(&uid)? else {
                return Ok(Err(format!(
                    "attachment {place}: no document was uploaded as \"{uid}\": upload it first"
                )));
            };
            for (name, right) in [("md5", &document.md5), ("sha256", &document.sha256)] {
                if json.get(name).is_some() && !said(name).eq_ignore_ascii_case(right) {
                    return Ok(Err(format!(
                        "attachment {place}: \"{name}\" of \"{uid}\" is {right}, not \"{}\"",
                        said(name).chars().take(64).collect::<String>()
                    )));
                }
            }
            if complete && json.get("sha256").is_none() {
                json.insert("sha256", document.sha256.into());
            }
        }
        Ok(Ok(()))
    }

    fn path(&self, sha256: &str) -> PathBuf {
        let folder = sha256.get(..2).unwrap_or("00");
        self.folder.join(folder).join(sha256)
    }
}

/// `data.json` of an attachment.
fn attachment_json(attachment: &mut Value) -> Option<&mut Object> {
    fn inner<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
        match value {
            Value::Object(object) => object.get_mut(name),
            _ => None,
        }
    }
    match inner(inner(attachment, "data")?, "json")? {
        Value::Object(json) => Some(json),
        _ => None,
    }
}

impl Receiving {
    /// MD5 and SHA-256 of what came so far, in hexadecimal.
    pub(crate) fn digests(&self) -> (String, String) {
        let md5 = hex::encode(self.md5.clone().finalize());
        (md5, hex::encode(self.sha256.clone().finish()))
    }

    /// Takes some bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DocumentError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.bytes_max {
            return Err(DocumentError::TooLong(self.bytes_max));
        }
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        self.md5.update(bytes);
        Ok(())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let path = std::mem::take(&mut self.path);
        // What cannot be removed now is removed at the next start.
        let remove = move || {
            let _ = fs::remove_file(path);
        };
        // A client that breaks off lets go of it where sockets are served, which wait for no disk.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn incoming(folder: &Path) -> PathBuf {
    folder.join(INCOMING)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The name without the folders that a browser may have put before it.
fn base_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let base: String = base
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARS_MAX)
        .collect();
    match base.as_str() {
        "" | "." | ".." => "document".to_owned(),
        _ => base,
    }
}

/// The last extension in lower case, without its dot; empty when there is none.
fn extension(name: &str) -> String {
    let extension = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension.to_lowercase(),
        _ => return String::new(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric();
    match extension.len() <= EXTENSION_CHARS_MAX && extension.chars().all(plain) {
        true => extension,
        false => String::new(),
    }
}

fn uid(filename: &str) -> String {
    let random = hex::encode(random::<UID_BYTES>());
    match extension(filename).as_str() {
        "" => random,
        extension => format!("{random}.{extension}"),
    }
}

/// The type of a document. What a browser could run is served as bytes.
fn content_type(extension: &str) -> &'static str {
    match extension {
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "tif" | "tiff" => "image/tiff",
        "txt" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "zip" => "application/zip",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn documents(folder: &Path) -> Documents {
        let own = OwnFile::open(&folder.join("own.redb")).unwrap();
        Documents::open(folder.join("documents"), Arc::new(own), 100, Vec::new()).unwrap()
    }

    fn kept(documents: &Documents, name: &str, content: &[u8]) -> Document {
        let mut receiving = documents.receive(name).unwrap();
        receiving.write(content).unwrap();
        documents.keep(receiving, "alice", 1).unwrap()
    }

    fn read(
        documents: &Documents,
        document: &Document,
        first: u64,
        last: u64,
    ) -> io::Result<Vec<u8>> {
        let mut reading = documents.read(document, first, last)?;
        let mut all = Vec::new();
        while let Some(piece) = reading.next()? {
            assert!(piece.len() <= READ_BYTES);
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[test]
    fn a_document_comes_out_as_it_went_in_and_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let documents = documents(dir.path());
        let document = kept(&documents, "C:\\papers\\Акт 7.PDF", b"hello world");
        assert_eq!(document.filename, "Акт 7.PDF");
        assert_eq!(document.md5, "5eb63bbbe01eeed093cb22bb8f5acdc3");
        assert!(document.uid.ends_with(".pdf") && document.uid.len() == 36);
        assert_eq!(documents.find(&document.uid).unwrap().unwrap(), document);
        assert_eq!(read(&documents, &document, 0, 10).unwrap(), b"hello world");
        assert_eq!(read(&documents, &document, 6, 8).unwrap(), b"wor");
        // The same content again is the same file under another name.
        let again = kept(&documents, "b", b"hello world");
        assert_eq!(
            (again.sha256, again.uid.len()),
            (document.sha256.clone(), 32)
        );
        assert_eq!(
            read(&documents, &kept(&documents, "e.txt", b""), 0, 0).unwrap(),
            b""
        );
    }

    #[test]
    fn documents_of_one_name_are_kept_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let documents = documents(dir.path());
        let own = kept(&documents, "a.txt", b"mine");
        let (alice, bob) = (Did([1; 16]), Did([2; 16]));
        for (member, content) in [(bob, b"bob's"), (alice, b"alice")] {
            let mut receiving = documents.receive("a.txt").unwrap();
            receiving.write(content).unwrap();
            let uid = own.uid.clone();
            documents.keep_of(receiving, uid, member, 1).unwrap();
        }
        assert_eq!(documents.find(&own.uid).unwrap().unwrap(), own);
        let brought = documents.brought(&own.uid).unwrap();
        let mut contents: Vec<_> = brought
            .iter()
            .map(|(did, document)| (*did, read(&documents, document, 0, 10).unwrap()))
            .collect();
        contents.sort();
        assert_eq!(
            contents,
            [(alice, b"alice".to_vec()), (bob, b"bob's".to_vec())]
        );
        assert_eq!(documents.brought("other").unwrap(), []);
    }

    #[test]
    fn a_document_that_changed_on_disk_is_not_given_out_whole() {
        let dir = tempfile::tempdir().unwrap();
        let documents = documents(dir.path());
        let document = kept(&documents, "a", b"hello world");
        fs::write(documents.path(&document.sha256), b"hello wurld").unwrap();
        assert!(read(&documents, &document, 0, 10).is_err());
    }

    #[test]
    fn half_a_document_is_removed_at_once_or_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let documents = documents(dir.path());
        let left = incoming(&documents.folder);
        let mut receiving = documents.receive("a").unwrap();
        receiving.write(&[0; 60]).unwrap();
        assert!(matches!(
            receiving.write(&[0; 60]),
            Err(DocumentError::TooLong(100))
        ));
        drop(receiving);
        assert_eq!(fs::read_dir(&left).unwrap().count(), 0);
        fs::write(left.join("crashed"), b"half").unwrap();
        let Documents { folder, own, .. } = documents;
        Documents::open(folder, own, 100, Vec::new()).unwrap();
        assert_eq!(fs::read_dir(&left).unwrap().count(), 0);
    }

    #[test]
    fn an_attachment_names_a_document_that_is_there_by_its_digests() {
        let dir = tempfile::tempdir().unwrap();
        let documents = documents(dir.path());
        let document = kept(&documents, "a.txt", b"hello world");
        let entry = |uid: &str, md5: &str| {
            let text = format!(
                r#"{{"~attach":[{{"data":{{"json":{{"url":"https://here/content/{uid}","md5":"{md5}"}}}}}}]}}"#
            );
            own(&text).as_object().unwrap().clone()
        };
        let is_own = |url: &str| url.strip_prefix("https://here/content/").map(str::to_owned);
        let check =
            |entry: &mut Object, complete| documents.check(entry, &is_own, complete).unwrap();
        let mut right = entry(&document.uid, &document.md5);
        assert_eq!(check(&mut right, false), Ok(()));
        assert_eq!(check(&mut right, true), Ok(()));
        assert!(write(&Value::Object(right)).contains(&document.sha256));
        let wrong = check(&mut entry(&document.uid, "00"), true).unwrap_err();
        assert!(wrong.contains(&document.md5), "{wrong}");
        let unknown = check(&mut entry("other", &document.md5), true).unwrap_err();
        assert!(unknown.contains("upload it first"), "{unknown}");
    }

    #[test]
    fn names_that_lead_elsewhere_or_run_in_a_browser_do_neither() {
        for (name, base, ending) in [
            ("../../etc/passwd", "passwd", ""),
            ("..", "document", ""),
            ("a.b.HTML", "a.b.HTML", "html"),
            (".bashrc", ".bashrc", ""),
            ("x.p?p", "x.p?p", ""),
        ] {
            assert_eq!(base_name(name), base);
            assert_eq!(extension(base), ending);
        }
        assert_eq!(content_type("html"), "application/octet-stream");
        assert_eq!(content_type("svg"), "application/octet-stream");
    }
}
