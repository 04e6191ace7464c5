//! Key files: an Ed25519 key pair as JSON, readable by its owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use daybook_ledger::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// Bytes of a key file at most: a wrong path to a large file is refused, not read.
const FILE_BYTES_MAX: u64 = 4096;
/// The only kind of key there is.
const KIND: &str = "ed25519";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile<'k> {
    #[serde(rename = "type")]
    kind: &'k str,
    public_key: &'k str,
    private_key: &'k str,
}

/// A new key.
pub(crate) fn generate() -> SigningKey {
    let mut seed = Zeroizing::new([0; 32]);
    loop {
        aws_lc_rs::rand::fill(&mut seed[..]).expect("the operating system gives random bytes");
        let key = SigningKey::from_seed(*seed);
        // The schema of transactions wants keys of 43 or 44 characters; one key in thousands is
        // shorter and could never be used (asset ledger, section 4.1).
        let usable = |text: &str| (43..=44).contains(&text.len());
        if usable(&key.public_key().to_string()) && usable(&Zeroizing::new(key.to_base58())) {
            return key;
        }
    }
}

/// Writes a key into a new file, durable before this returns.
pub(crate) fn write(path: &Path, key: &SigningKey) -> Result<(), Failure> {
    let private_key = Zeroizing::new(key.to_base58());
    let public_key = key.public_key().to_string();
    let file = KeyFile {
        kind: KIND,
        public_key: &public_key,
        private_key: &private_key,
    };
    let text = serde_json::to_string_pretty(&file).expect("three texts make JSON");
    let text = Zeroizing::new(text + "\n");
    write_new(path, text.as_bytes(), 0o600).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::refused(format!(
            "{} exists already; keys are never overwritten",
            path.display()
        )),
        _ => Failure::system(path.display(), &error),
    })
}

/// Reads a key file. One that everybody may read is refused: its key is no secret any more.
pub(crate) fn read(path: &Path) -> Result<SigningKey, Failure> {
    let system = |error: io::Error| Failure::system(format!("key file {}", path.display()), &error);
    let bad = |what: &str| {
        Failure::new(
            Exit::Refused,
            format!("key file {}: {what}", path.display()),
        )
    };
    let mut file = File::open(path).map_err(system)?;
    let about = file.metadata().map_err(system)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(bad(&format!(
            "everybody may read it (mode {mode:04o}); try chmod 600"
        )));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(bad("too long for a key"));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(system)?;
    let parsed: KeyFile<'_> =
        serde_json::from_str(&text).map_err(|_| bad("not the JSON of a key"))?;
    let key = SigningKey::from_base58(parsed.private_key).map_err(|e| bad(&e.to_string()))?;
    if parsed.kind != KIND || parsed.public_key.parse::<PublicKey>() != Ok(key.public_key()) {
        return Err(bad("its public key is not that of its private key"));
    }
    Ok(key)
}

/// Writes a file that must not exist yet: whole and durable, or not there.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy()
        .into_owned();
    let beside = dir.join(format!(".{name}.{}.new", std::process::id()));
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link, unlike a renaming, never replaces what another process made meanwhile.
        fs::hard_link(&beside, path)?;
        File::open(dir)?.sync_all()
    })();
    let removed = fs::remove_file(&beside);
    result.and(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.key");
        let key = generate();
        write(&path, &key).unwrap();
        assert_eq!(read(&path).unwrap().public_key(), key.public_key());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing else is left behind"
        );
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let first = generate();
        write(&path, &first).unwrap();
        assert_eq!(write(&path, &generate()).unwrap_err().exit, Exit::Refused);
        assert_eq!(read(&path).unwrap().public_key(), first.public_key());
    }

    #[test]
    fn a_file_that_everybody_may_read_or_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write(&path, &generate()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .message
                .contains("everybody may read it (mode 0644)")
        );
        let (a, b) = (generate(), generate());
        for text in [
            String::new(),
            "{}".to_owned(),
            format!(
                r#"{{"type":"ed25519","public_key":"{}","private_key":"{}"}}"#,
                a.public_key(),
                b.to_base58()
            ),
        ] {
            let path = dir.path().join("bad");
            write_new(&path, text.as_bytes(), 0o600).unwrap();
            let failure = read(&path).unwrap_err();
            assert!(
                !failure.message.contains(&b.to_base58()),
                "secrets stay out of messages"
            );
            fs::remove_file(&path).unwrap();
        }
    }
}
