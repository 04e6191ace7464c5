//! Key files: a key pair as JSON, readable by its owner only, its private half encrypted when a
//! passphrase is given. `docs/keys.md` describes the format.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    encoding::{AsDer, Pkcs8V1Der},
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use daybook_client::tracker::PeerKey;
use daybook_ledger::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure},
    passphrase::{Passphrase, Source},
};

/// Bytes of a key file at most: a wrong path to a large file is refused, not read. The private half
/// of an RSA key of 4096 bits has about 3,200 characters.
const FILE_BYTES_MAX: u64 = 16_384;
/// The version of the encrypted form.
const ENCRYPTION_VERSION: u32 = 1;
const KDF: &str = "argon2id";
const CIPHER: &str = "chacha20-poly1305";
/// Work of one guess at a passphrase: 64 MiB, three passes, four lanes, which RFC 9106 (section 4)
/// recommends where memory is not plentiful.
const MEMORY_KIB: u32 = 65_536;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// Bounds of what a file may ask for: a file from elsewhere cannot take all memory or the whole day.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
/// Bytes of a salt (RFC 9106, section 3.1 recommends 16).
const SALT_BYTES: usize = 16;
/// What the cipher's additional data begin with, so that a text from another use never fits.
const DOMAIN: &str = "daybook key file";

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ed25519: the 32 bytes of the seed; both halves in base58.
    Ed25519,
    /// RSA: PKCS#8 in DER; the private half in base64, the public one as PEM.
    Rsa,
    /// NIST P-256, written as RSA is.
    P256,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Ed25519, Kind::Rsa, Kind::P256];

    /// Its name in key files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ed25519 => "ed25519",
            Kind::Rsa => "rsa",
            Kind::P256 => "p256",
        }
    }
}

/// A key pair out of a key file.
pub(crate) struct Secret {
    pub(crate) kind: Kind,
    /// The public half: base58 for Ed25519, otherwise a PEM text without a line end behind it.
    pub(crate) public: String,
    /// The private half: an Ed25519 seed, or PKCS#8 in DER.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} of {})", self.kind.name(), self.public)
    }
}

impl Secret {
    /// The key of the ledger, if it is one.
    pub(crate) fn ed25519(&self) -> Option<SigningKey> {
        let seed = (self.kind == Kind::Ed25519).then_some(&self.bytes[..])?;
        Some(SigningKey::from_seed(seed.try_into().ok()?))
    }
}

/// The JSON of a key file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key: Option<Zeroizing<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted: Option<Encrypted>,
}

/// A private half under a passphrase.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encrypted {
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    cipher: String,
    nonce: String,
    text: String,
}

/// A new Ed25519 key.
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

/// A new key of any kind; RSA keys have 2048 bits.
pub(crate) fn generate_secret(kind: Kind) -> Secret {
    match kind {
        Kind::Ed25519 => {
            let key = generate();
            Secret {
                kind,
                public: key.public_key().to_string(),
                bytes: Zeroizing::new(seed_of(&key).to_vec()),
            }
        }
        Kind::Rsa => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)
                .expect("the library makes keys of a size that it names");
            let der: Pkcs8V1Der<'_> = pair.as_der().expect("a key that was made has an encoding");
            let bytes = Zeroizing::new(der.as_ref().to_vec());
            let public = public_half(kind, &bytes).expect("the key was made just now");
            Secret {
                kind,
                public,
                bytes,
            }
        }
        Kind::P256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .expect("the library makes keys of a curve that it names");
            let der = pair
                .to_pkcs8v1()
                .expect("a key that was made has an encoding");
            let bytes = Zeroizing::new(der.as_ref().to_vec());
            let public = public_half(kind, &bytes).expect("the key was made just now");
            Secret {
                kind,
                public,
                bytes,
            }
        }
    }
}

/// Writes a key into a new file, durable before this returns.
pub(crate) fn write(
    path: &Path,
    key: &SigningKey,
    passphrase: Option<&Passphrase>,
) -> Result<(), Failure> {
    store_secret(
        path,
        Kind::Ed25519,
        &key.public_key().to_string(),
        &seed_of(key)[..],
        passphrase,
    )
}

/// Reads the Ed25519 key of a file, with a passphrase from `source` if it needs one.
pub(crate) fn read_with(path: &Path, source: &Source) -> Result<SigningKey, Failure> {
    let secret = load_secret(path, source)?;
    secret.ed25519().ok_or_else(|| {
        bad(
            path,
            &format!("a key of kind {}, not ed25519", secret.kind.name()),
        )
    })
}

/// Writes a private key into a new file, encrypted when there is a passphrase; durable before this
/// returns.
///
/// `bytes` is what [`Secret::bytes`] says of the kind, `public` what [`Secret::public`] says.
pub(crate) fn store_secret(
    path: &Path,
    kind: Kind,
    public: &str,
    bytes: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), Failure> {
    let text = file_text(kind, public, bytes, passphrase);
    write_new(path, text.as_bytes(), 0o600).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::refused(format!(
            "{} exists already; keys are never overwritten",
            path.display()
        )),
        _ => Failure::system(path.display(), &error),
    })
}

/// Reads a private key, with a passphrase from `source` if the file is encrypted. A file that
/// everybody may read is refused: its key is no secret any more.
///
/// # Errors
/// `Refused` for a wrong passphrase and for what is no key file, `Usage` when a passphrase is needed
/// and there is none, `System` when the file cannot be read.
pub(crate) fn load_secret(path: &Path, source: &Source) -> Result<Secret, Failure> {
    let (kind, file) = parse(path)?;
    let bytes = match (&file.private_key, &file.encrypted) {
        (Some(text), None) => plain(kind, text).ok_or_else(|| bad(path, "no private key"))?,
        (None, Some(encrypted)) => {
            let passphrase = source.to_open(path)?;
            decrypt(path, &file, encrypted, &passphrase)?
        }
        _ => return Err(bad(path, "neither plain nor encrypted")),
    };
    let same = public_half(kind, &bytes).is_some_and(|public| public == file.public_key);
    if !same {
        return Err(bad(path, "its public key is not that of its private key"));
    }
    Ok(Secret {
        kind,
        public: file.public_key,
        bytes,
    })
}

/// Kind, public half and whether the private half is encrypted, without opening it.
pub(crate) fn look(path: &Path) -> Result<(Kind, String, bool), Failure> {
    let (kind, file) = parse(path)?;
    Ok((kind, file.public_key, file.encrypted.is_some()))
}

/// Writes the key of a file anew, under another passphrase or none; the old text stays until the new
/// one is durable.
pub(crate) fn change_passphrase(
    path: &Path,
    old: &Source,
    new: Option<&Passphrase>,
) -> Result<(), Failure> {
    let secret = load_secret(path, old)?;
    let text = file_text(secret.kind, &secret.public, &secret.bytes, new);
    replace(path, text.as_bytes(), 0o600).map_err(|error| Failure::system(path.display(), &error))
}

fn file_text(
    kind: Kind,
    public: &str,
    bytes: &[u8],
    passphrase: Option<&Passphrase>,
) -> Zeroizing<String> {
    let mut file = KeyFile {
        kind: kind.name().to_owned(),
        public_key: public.to_owned(),
        private_key: None,
        encrypted: None,
    };
    match passphrase {
        None => file.private_key = Some(private_text(kind, bytes)),
        Some(passphrase) => {
            let mut salt = [0; SALT_BYTES];
            let mut nonce = [0; NONCE_LEN];
            for random in [&mut salt[..], &mut nonce[..]] {
                aws_lc_rs::rand::fill(random).expect("the operating system gives random bytes");
            }
            file.encrypted = Some(encrypt(&file, bytes, passphrase, &salt, nonce));
        }
    }
    let text = serde_json::to_string_pretty(&file).expect("texts and numbers make JSON");
    Zeroizing::new(text + "\n")
}

fn encrypt(
    file: &KeyFile,
    bytes: &[u8],
    passphrase: &Passphrase,
    salt: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Encrypted {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).expect("the constants are within bounds");
    let key = derive(passphrase, salt, params).expect("the constants are within bounds");
    let mut text = bytes.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(additional(file)),
        &mut text,
    )
    .expect("a private key is short enough for the cipher");
    Encrypted {
        version: ENCRYPTION_VERSION,
        kdf: KDF.to_owned(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: BASE64.encode(salt),
        cipher: CIPHER.to_owned(),
        nonce: BASE64.encode(nonce),
        text: BASE64.encode(text),
    }
}

fn decrypt(
    path: &Path,
    file: &KeyFile,
    encrypted: &Encrypted,
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let unknown = || bad(path, "encrypted in a way that this version does not know");
    if encrypted.version != ENCRYPTION_VERSION
        || encrypted.kdf != KDF
        || encrypted.cipher != CIPHER
        || encrypted.memory_kib > MEMORY_KIB_MAX
        || encrypted.passes > PASSES_MAX
        || encrypted.lanes > LANES_MAX
    {
        return Err(unknown());
    }
    let params = Params::new(
        encrypted.memory_kib,
        encrypted.passes,
        encrypted.lanes,
        Some(32),
    )
    .map_err(|_| unknown())?;
    let damaged = || bad(path, "not the base64 of an encrypted key");
    let decode = |text: &str| BASE64.decode(text).map_err(|_| damaged());
    let nonce: [u8; NONCE_LEN] = decode(&encrypted.nonce)?
        .try_into()
        .map_err(|_| damaged())?;
    let key = derive(passphrase, &decode(&encrypted.salt)?, params).ok_or_else(damaged)?;
    let mut text = Zeroizing::new(decode(&encrypted.text)?);
    let opened = key
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(additional(file)),
            &mut text,
        )
        .map(|opened| opened.len());
    let length = opened.map_err(|_| bad(path, "wrong passphrase, or the file was changed"))?;
    text.truncate(length);
    Ok(text)
}

fn derive(passphrase: &Passphrase, salt: &[u8], params: Params) -> Option<LessSafeKey> {
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.bytes(), salt, &mut key[..])
        .ok()?;
    let key =
        UnboundKey::new(&CHACHA20_POLY1305, &key[..]).expect("the cipher's keys have 32 bytes");
    Some(LessSafeKey::new(key))
}

/// What the cipher guards beside the private half: which key this is.
fn additional(file: &KeyFile) -> String {
    format!(
        "{DOMAIN} {ENCRYPTION_VERSION}\n{}\n{}\n",
        file.kind, file.public_key
    )
}

/// The text of a private half: a secret.
pub(crate) fn private_text(kind: Kind, bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(match kind {
        Kind::Ed25519 => {
            let seed: [u8; 32] = bytes.try_into().expect("seeds have 32 bytes");
            SigningKey::from_seed(seed).to_base58()
        }
        Kind::Rsa | Kind::P256 => BASE64.encode(bytes),
    })
}

fn plain(kind: Kind, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    Some(Zeroizing::new(match kind {
        Kind::Ed25519 => seed_of(&SigningKey::from_base58(text).ok()?).to_vec(),
        Kind::Rsa | Kind::P256 => BASE64.decode(text).ok()?,
    }))
}

fn seed_of(key: &SigningKey) -> Zeroizing<[u8; 32]> {
    let text = Zeroizing::new(key.to_base58());
    let seed = text
        .parse::<PublicKey>()
        .expect("the text of a seed is base58 of 32 bytes");
    Zeroizing::new(seed.0)
}

/// The public half of a private one; `None` when it is no key of that kind.
fn public_half(kind: Kind, bytes: &[u8]) -> Option<String> {
    match kind {
        Kind::Ed25519 => {
            let seed: [u8; 32] = bytes.try_into().ok()?;
            Some(SigningKey::from_seed(seed).public_key().to_string())
        }
        Kind::Rsa => Some(PeerKey::rsa(bytes).ok()?.pem().to_owned()),
        Kind::P256 => Some(PeerKey::p256(bytes).ok()?.pem().to_owned()),
    }
}

fn parse(path: &Path) -> Result<(Kind, KeyFile), Failure> {
    let system = |error: io::Error| Failure::system(format!("key file {}", path.display()), &error);
    let mut file = File::open(path).map_err(system)?;
    let about = file.metadata().map_err(system)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let what = format!("everybody may read it (mode {mode:04o}); try chmod 600");
        return Err(bad(path, &what));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(bad(path, "too long for a key"));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(system)?;
    // What the parser says could quote the private key.
    let parsed: KeyFile =
        serde_json::from_str(&text).map_err(|_| bad(path, "not the JSON of a key"))?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == parsed.kind)
        .ok_or_else(|| bad(path, "a kind of key that this version does not know"))?;
    Ok((kind, parsed))
}

fn bad(path: &Path, what: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("key file {}: {what}", path.display()),
    )
}

/// Writes a file that must not exist yet: whole and durable, or not there.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let (dir, beside) = beside(path)?;
    let result = (|| {
        write_durably(&beside, bytes, mode)?;
        // A link, unlike a renaming, never replaces what another process made meanwhile.
        fs::hard_link(&beside, path)?;
        File::open(&dir)?.sync_all()
    })();
    let removed = fs::remove_file(&beside);
    result.and(removed)
}

/// Writes a file in place of the one that may be there: after a crash it is the old one or the new
/// one, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (dir, beside) = beside(path)?;
    let result = (|| {
        write_durably(&beside, bytes, mode)?;
        fs::rename(&beside, path)?;
        File::open(&dir)?.sync_all()
    })();
    if result.is_err() {
        // Nothing more can be done about a file that cannot be removed either.
        let _ = fs::remove_file(&beside);
    }
    result
}

/// The folder of a file, and the name under which its new text is written first.
fn beside(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = name.to_string_lossy();
    let beside = dir.join(format!(".{name}.{}.new", std::process::id()));
    Ok((dir.to_owned(), beside))
}

fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // What a process of the same number left behind when it was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// An encrypted key file of this version's first day. It must open for ever.
    const GOLDEN: &str = include_str!("golden/encrypted.key");

    fn read(path: &Path) -> Result<SigningKey, Failure> {
        read_with(path, &Source::default())
    }

    /// A source that gives `passphrase` and asks nobody.
    fn source(dir: &Path, passphrase: &str) -> Source {
        let path = dir.join("passphrase");
        fs::write(&path, passphrase).unwrap();
        Source::new(Some(&path))
    }

    #[test]
    fn a_key_survives_its_file_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.key");
        let key = generate();
        write(&path, &key, None).unwrap();
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
        write(&path, &first, None).unwrap();
        let refused = write(&path, &generate(), None).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert_eq!(read(&path).unwrap().public_key(), first.public_key());
    }

    #[test]
    fn a_key_of_every_kind_survives_an_encrypted_file_without_standing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let given = source(dir.path(), "correct horse\n");
        let passphrase = given.given().unwrap().unwrap();
        for kind in Kind::ALL {
            let path = dir.path().join(kind.name());
            let made = generate_secret(kind);
            store_secret(&path, kind, &made.public, &made.bytes, Some(&passphrase)).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(&*private_text(kind, &made.bytes)), "{text}");
            let again = load_secret(&path, &given).unwrap();
            assert_eq!((again.kind, &again.public), (kind, &made.public));
            assert_eq!(again.bytes, made.bytes);
            assert_eq!(look(&path).unwrap(), (kind, made.public.clone(), true));
            let plain = dir.path().join(format!("{} in plain", kind.name()));
            store_secret(&plain, kind, &made.public, &made.bytes, None).unwrap();
            assert_eq!(load_secret(&plain, &given).unwrap().bytes, made.bytes);
        }
    }

    #[test]
    fn a_wrong_passphrase_is_told_and_so_is_a_public_half_that_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let right = source(dir.path(), "right");
        let key = generate();
        write(&path, &key, right.given().unwrap().as_ref()).unwrap();
        let failure = read_with(&path, &source(dir.path(), "wrong")).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("wrong passphrase"), "{failure}");
        let text = fs::read_to_string(&path).unwrap();
        let other = generate().public_key().to_string();
        let text = text.replace(&key.public_key().to_string(), &other);
        fs::write(&path, text).unwrap();
        let failure = read_with(&path, &source(dir.path(), "right")).unwrap_err();
        assert!(
            failure.message.contains("the file was changed"),
            "{failure}"
        );
    }

    #[test]
    fn a_passphrase_can_be_changed_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = generate();
        write(&path, &key, None).unwrap();
        let new = source(dir.path(), "new");
        let passphrase = new.given().unwrap();
        change_passphrase(&path, &Source::default(), passphrase.as_ref()).unwrap();
        assert!(look(&path).unwrap().2);
        change_passphrase(&path, &new, None).unwrap();
        assert_eq!(read(&path).unwrap().public_key(), key.public_key());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "the key and the passphrase");
    }

    #[test]
    fn an_encrypted_file_of_the_first_day_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        fs::write(&path, GOLDEN).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let key = read_with(&path, &source(dir.path(), "correct horse battery staple")).unwrap();
        let seed: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(key.public_key(), SigningKey::from_seed(seed).public_key());
        // The same seed, salt and nonce give the same bytes.
        let (_, file) = parse(&path).unwrap();
        let passphrase = Passphrase::new("correct horse battery staple").unwrap();
        let made = encrypt(&file, &seed, &passphrase, &[7; SALT_BYTES], [9; NONCE_LEN]);
        let file = KeyFile {
            encrypted: Some(made),
            ..file
        };
        assert_eq!(serde_json::to_string_pretty(&file).unwrap() + "\n", GOLDEN);
    }

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        let dir = tempfile::tempdir().unwrap();
        let given = source(dir.path(), "x");
        for (from, to) in [
            (r#""memory_kib": 65536"#, r#""memory_kib": 4294967295"#),
            (r#""passes": 3"#, r#""passes": 4000000000"#),
            (r#""passes": 3"#, r#""passes": 0"#),
            (r#""lanes": 4"#, r#""lanes": 100"#),
            (r#""version": 1"#, r#""version": 2"#),
            (r#""salt": ""#, r#""salt": "!"#),
            (r#""nonce": ""#, r#""nonce": "AAAA"#),
        ] {
            let path = dir.path().join("k");
            assert!(GOLDEN.contains(from), "{from}");
            write_new(&path, GOLDEN.replace(from, to).as_bytes(), 0o600).unwrap();
            assert_eq!(read_with(&path, &given).unwrap_err().exit, Exit::Refused);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_or_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write(&path, &generate(), None).unwrap();
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
            format!(r#"{{"type":"ed25519","public_key":"{}"}}"#, a.public_key()),
            format!(
                r#"{{"type":"ed25519","public_key":"{}","private_key":"{}"}}"#,
                a.public_key(),
                b.to_base58()
            ),
            format!(
                r#"{{"type":"dsa","public_key":"{}","private_key":"{}"}}"#,
                b.public_key(),
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
