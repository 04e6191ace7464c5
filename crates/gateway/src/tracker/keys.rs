//! The tracker's keys, and replies that stay the same for each of them.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use daybook_ledger::{
    SigningKey,
    tracker::{Key, KeyHash, Payload, Request, pem_of, reply},
};
use daybook_wire::tracker::SignedData;

/// The keys that a tracker signs with. The RSA key is the primary one: addresses are derived from it,
/// and who asks with a suite that has no key here is answered with it.
pub struct TrackerKeys {
    rsa: RsaKeyPair,
    ed25519: SigningKey,
    signers: [Identity; 2],
}

/// One of the tracker's keys as others see it.
struct Identity {
    pem: String,
    hash: KeyHash,
    /// The reply to a handshake.
    handshake: SignedData,
    /// The message `{"pk":…}`, which answers a close and an update of a cursor.
    pk_message: String,
    pk: SignedData,
}

/// Which of its keys the tracker signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Signer {
    /// The primary key.
    Rsa,
    /// The Ed25519 key.
    Ed25519,
}

/// The tracker's RSA key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#8 RSA key of 2048 to 4096 bits with the exponent 65537")]
pub struct BadRsaKey;

impl Signer {
    /// The signer of the answer to a request: of the suite of who signed it, or of the payee, who
    /// submits what two signed (wallet tracker, section 4.4).
    pub(crate) fn of(request: &Request) -> Signer {
        /// Base64 of the first twelve bytes of an Ed25519 key's SubjectPublicKeyInfo, which hold nothing
        /// but its algorithm.
        const ED25519: &[u8] = b"MCowBQYDK2VwAyEA";
        let (Payload::Single { pk, .. } | Payload::CoSigned { to_pk: pk, .. }) = &request.payload;
        let body = pk.split_once("-----\n").or(pk.split_once("-----\r\n"));
        let base64 = body.map_or("", |(_, body)| body).bytes();
        let begins = base64
            .filter(|byte| !b"\r\n".contains(byte))
            .take(ED25519.len())
            .eq(ED25519.iter().copied());
        if begins { Signer::Ed25519 } else { Signer::Rsa }
    }
}

impl TrackerKeys {
    /// The keys of a tracker: an RSA key in PKCS#8, and an Ed25519 key.
    ///
    /// # Errors
    /// [`BadRsaKey`] when the first is none that clients take.
    pub fn new(rsa_pkcs8: &[u8], ed25519: SigningKey) -> Result<TrackerKeys, BadRsaKey> {
        let rsa = RsaKeyPair::from_pkcs8(rsa_pkcs8).map_err(|_| BadRsaKey)?;
        let spki: PublicKeyX509Der<'_> = rsa.public_key().as_der().map_err(|_| BadRsaKey)?;
        let rsa_pem = pem_of(spki.as_ref());
        let ed25519_pem = Key::ed25519_pem(&ed25519.public_key());
        let identity = |pem: String, sign: &dyn Fn(&str) -> Vec<u8>| {
            let hash = Key::read(&pem).map_err(|_| BadRsaKey)?.hash();
            let pk_message = reply::done(&pem);
            Ok(Identity {
                handshake: SignedData::new(&pem, &sign(&pem)),
                pk: SignedData::new(&pk_message, &sign(&pk_message)),
                pem,
                hash,
                pk_message,
            })
        };
        let signers = [
            identity(rsa_pem, &|message| sign_rsa(&rsa, message))?,
            identity(ed25519_pem, &|message| {
                ed25519.sign(message.as_bytes()).to_vec()
            })?,
        ];
        Ok(TrackerKeys {
            rsa,
            ed25519,
            signers,
        })
    }

    /// The texts of all keys, the primary one first.
    pub fn pems(&self) -> Vec<String> {
        self.signers.iter().map(|one| one.pem.clone()).collect()
    }

    /// SHA-256 of the SubjectPublicKeyInfo of each key, the primary one first: what version 2 messages
    /// call the tracker.
    pub fn ids(&self) -> Vec<KeyHash> {
        self.signers.iter().map(|one| one.hash).collect()
    }

    /// The text of one key.
    pub(crate) fn pem(&self, signer: Signer) -> &str {
        &self.identity(signer).pem
    }

    /// The answer to a handshake.
    pub(crate) fn handshake(&self, signer: Signer) -> &SignedData {
        &self.identity(signer).handshake
    }

    /// `message` with a signature over it.
    pub(crate) fn signed(&self, signer: Signer, message: &str) -> SignedData {
        let identity = self.identity(signer);
        if message == identity.pk_message {
            return identity.pk.clone();
        }
        SignedData::new(message, &self.sign(signer, message))
    }

    /// The signature over a message.
    pub(crate) fn sign(&self, signer: Signer, message: &str) -> Vec<u8> {
        match signer {
            Signer::Rsa => sign_rsa(&self.rsa, message),
            Signer::Ed25519 => self.ed25519.sign(message.as_bytes()).to_vec(),
        }
    }

    fn identity(&self, signer: Signer) -> &Identity {
        &self.signers[signer as usize]
    }
}

impl fmt::Debug for TrackerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrackerKeys").field(&self.ids()).finish()
    }
}

/// PKCS#1 v1.5 draws nothing: the same message has the same signature, whoever asks again.
fn sign_rsa(key: &RsaKeyPair, message: &str) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message.as_bytes(),
        &mut signature,
    )
    .expect("a key that was read signs a digest of any message");
    signature
}
