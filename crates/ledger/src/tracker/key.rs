//! Keys of peers and their signature suites (wallet tracker, section 4).

use std::sync::Arc;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use twox_hash::XxHash64;

use super::{Code, KeyHash, Refusal};
use crate::{PublicKey, signature};

/// Characters of a key's text: an RSA key of 4096 bits has 800, and lines may be short.
pub const PEM_CHARS_MAX: usize = 2_048;

/// Characters of a signature: base64 of the 512 bytes of RSA with 4096 bits.
pub const SIGNATURE_CHARS_MAX: usize = 684;

/// Keys that a [`KeyRing`] remembers. A key has one place; a newcomer takes it over. Fully used, a ring
/// of RSA keys holds about 16 MB.
const KEYS: usize = 4_096;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// RSASSA-PKCS1-v1_5 with SHA-256, moduli of 2048 to 4096 bits, exponent 65537.
    Rsa,
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256: with SHA-256, or with MD5 as the first generation did where that is allowed.
    P256,
}

/// Which suites a tracker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites {
    /// [`Suite::Rsa`].
    pub rsa: bool,
    /// [`Suite::Ed25519`].
    pub ed25519: bool,
    /// [`Suite::P256`] with SHA-256.
    pub p256: bool,
    /// P-256 with MD5 as well (`legacy-ec-md5`, section 4.2). MD5 is broken: whoever lets somebody
    /// choose what they sign can be cheated.
    pub legacy_md5: bool,
}

/// A public key, ready to verify with.
#[derive(Debug)]
pub struct Key {
    hash: KeyHash,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(ParsedPublicKey),
    Ed25519(PublicKey),
    P256 {
        parsed: ParsedPublicKey,
        /// x and y behind the byte 4, for the legacy suite.
        point: [u8; 65],
    },
}

/// Remembers parsed keys by their texts; one per thread.
pub(super) struct KeyRing {
    places: Vec<Option<(Box<str>, Arc<Key>)>>,
}

impl Suite {
    /// The name in capabilities (section 17.1).
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Rsa => "rsa-pkcs1-sha256",
            Suite::Ed25519 => "ed25519",
            Suite::P256 => "p256-sha256",
        }
    }
}

impl Default for Suites {
    fn default() -> Suites {
        Suites {
            rsa: true,
            ed25519: true,
            p256: true,
            legacy_md5: false,
        }
    }
}

impl Suites {
    /// Whether keys of `suite` are taken.
    pub fn allow(&self, suite: Suite) -> bool {
        match suite {
            Suite::Rsa => self.rsa,
            Suite::Ed25519 => self.ed25519,
            Suite::P256 => self.p256 || self.legacy_md5,
        }
    }

    /// The names of those allowed.
    pub fn names(&self) -> Vec<&'static str> {
        let suites = [Suite::Rsa, Suite::Ed25519, Suite::P256];
        let mut names: Vec<_> = suites
            .into_iter()
            .filter(|suite| match suite {
                Suite::P256 => self.p256,
                suite => self.allow(*suite),
            })
            .map(Suite::name)
            .collect();
        if self.legacy_md5 {
            names.push("legacy-ec-md5");
        }
        names
    }
}

fn bad_key() -> Refusal {
    Refusal::new(Code::BadKey, "invalid encoded public key")
}

/// The SubjectPublicKeyInfo of an Ed25519 key (RFC 8410), up to the key.
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The SubjectPublicKeyInfo of an uncompressed P-256 key (RFC 5480), up to the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The algorithm identifier of RSA (RFC 3279) with its NULL.
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// The exponent 65537 in DER.
const RSA_EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

impl Key {
    /// Reads the PEM text of a public key, with or without a final newline, lines ended by LF or CRLF.
    ///
    /// # Errors
    /// `bad_key` for anything but a SubjectPublicKeyInfo in DER of one of the three suites.
    pub fn read(pem: &str) -> Result<Key, Refusal> {
        Key::from_spki(&spki(pem).ok_or_else(bad_key)?)
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// `bad_key`, as [`Key::read`].
    pub fn from_spki(der: &[u8]) -> Result<Key, Refusal> {
        let hash = digest(&SHA256, der);
        let hash = KeyHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        let material = if let Some(key) = der.strip_prefix(&ED25519_SPKI) {
            let key = PublicKey(key.try_into().map_err(|_| bad_key())?);
            if !signature::can_sign(&key) {
                return Err(bad_key());
            }
            Material::Ed25519(key)
        } else if let Some(point) = der.strip_prefix(&P256_SPKI) {
            let point: [u8; 65] = point.try_into().map_err(|_| bad_key())?;
            let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            Material::P256 {
                parsed: parsed.map_err(|_| bad_key())?,
                point,
            }
        } else {
            let public = rsa_public_key(der).ok_or_else(bad_key)?;
            let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
            Material::Rsa(parsed.map_err(|_| bad_key())?)
        };
        Ok(Key { hash, material })
    }

    /// The PEM text of an Ed25519 key, without a final newline.
    pub fn ed25519_pem(key: &PublicKey) -> String {
        let der = [&ED25519_SPKI[..], &key.0].concat();
        pem_of(&der)
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// How it signs.
    pub fn suite(&self) -> Suite {
        match &self.material {
            Material::Rsa(_) => Suite::Rsa,
            Material::Ed25519(_) => Suite::Ed25519,
            Material::P256 { .. } => Suite::P256,
        }
    }

    /// The key itself, if it is one of Ed25519.
    pub fn as_ed25519(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Ed25519(key) => Some(key),
            _ => None,
        }
    }

    /// Whether `signature`, in base64, is this key's over `message` in a suite that is allowed.
    pub fn verify(&self, suites: &Suites, message: &[u8], signature: &str) -> bool {
        self.check(suites, message, signature).is_some()
    }

    fn check(&self, suites: &Suites, message: &[u8], signature: &str) -> Option<()> {
        let signature = decode_signature(signature)?;
        match &self.material {
            Material::Rsa(parsed) if suites.rsa => parsed.verify_sig(message, &signature).ok(),
            Material::Ed25519(key) if suites.ed25519 => {
                let signature = signature[..].try_into().ok()?;
                signature::verify_one(key, &signature, message).then_some(())
            }
            Material::P256 { parsed, point } => {
                if suites.p256 && parsed.verify_sig(message, &signature).is_ok() {
                    return Some(());
                }
                if !suites.legacy_md5 {
                    return None;
                }
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
                let signature = p256::ecdsa::Signature::from_slice(&signature).ok()?;
                key.verify_prehash(&Md5::digest(message), &signature).ok()
            }
            Material::Rsa(_) | Material::Ed25519(_) => None,
        }
    }
}

/// The bytes of a signature in standard base64 with padding.
pub(super) fn decode_signature(text: &str) -> Option<Vec<u8>> {
    if text.len() > SIGNATURE_CHARS_MAX {
        return None;
    }
    STANDARD.decode(text).ok()
}

/// The PEM text of a SubjectPublicKeyInfo: lines of 64 characters, no final newline.
pub fn pem_of(spki: &[u8]) -> String {
    let base64 = STANDARD.encode(spki);
    let mut pem = String::with_capacity(base64.len() + 64);
    pem.push_str(PEM_BEGIN);
    for line in base64.as_bytes().chunks(64) {
        pem.push('\n');
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
    }
    pem.push('\n');
    pem.push_str(PEM_END);
    pem
}

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// The DER inside a PEM text.
fn spki(pem: &str) -> Option<Vec<u8>> {
    if pem.len() > PEM_CHARS_MAX {
        return None;
    }
    let body = pem
        .trim_end_matches(['\r', '\n'])
        .strip_prefix(PEM_BEGIN)?
        .strip_suffix(PEM_END)?;
    if !body.starts_with(['\r', '\n']) || !body.ends_with('\n') {
        return None;
    }
    let base64: Vec<u8> = body.bytes().filter(|c| !b"\r\n".contains(c)).collect();
    STANDARD.decode(base64).ok()
}

/// The RSAPublicKey inside a SubjectPublicKeyInfo, if its modulus has 2048 to 4096 bits and its
/// exponent is 65537. Takes strict DER only, so that one key has one hash.
fn rsa_public_key(spki: &[u8]) -> Option<&[u8]> {
    let (outer, rest) = element(0x30, spki)?;
    if !rest.is_empty() {
        return None;
    }
    let bits = outer.strip_prefix(&RSA_ALGORITHM)?;
    let (bits, rest) = element(0x03, bits)?;
    let public = bits.strip_prefix(&[0])?;
    if !rest.is_empty() {
        return None;
    }
    let (numbers, rest) = element(0x30, public)?;
    let (modulus, exponent) = element(0x02, numbers)?;
    if !rest.is_empty() || exponent != RSA_EXPONENT {
        return None;
    }
    // A modulus of a multiple of eight bits has its highest bit set, and a zero before it.
    let magnitude = match modulus {
        [0, rest @ ..] if rest.first()? & 0x80 != 0 => rest,
        [first, ..] if (1..0x80).contains(first) => modulus,
        _ => return None,
    };
    let bits = magnitude.len() * 8 - magnitude.first()?.leading_zeros() as usize;
    (2_048..=4_096).contains(&bits).then_some(public)
}

/// Splits off one DER element: its contents and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_at_checked(2)?;
            (usize::from(length[0]) << 8 | usize::from(length[1]), rest)
        }
        _ => return None,
    };
    let shortest = if length < 0x80 {
        first < 0x80
    } else if length < 0x100 {
        first == 0x81
    } else {
        first == 0x82
    };
    if !shortest {
        return None;
    }
    rest.split_at_checked(length)
}

impl KeyRing {
    pub(super) fn new() -> KeyRing {
        KeyRing { places: Vec::new() }
    }

    /// The key with this text. Keys that do not parse are not remembered: they cost their sender more
    /// than us.
    pub(super) fn key(&mut self, pem: &str) -> Result<Arc<Key>, Refusal> {
        if pem.len() > PEM_CHARS_MAX {
            return Err(bad_key());
        }
        if self.places.is_empty() {
            self.places.resize_with(KEYS, || None);
        }
        let place = XxHash64::oneshot(0, pem.as_bytes()) as usize % KEYS;
        match &mut self.places[place] {
            Some((text, key)) if **text == *pem => Ok(key.clone()),
            place => {
                let key = Arc::new(Key::read(pem)?);
                *place = Some((pem.into(), key.clone()));
                Ok(key)
            }
        }
    }
}
