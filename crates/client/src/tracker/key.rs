//! Keys of peers, to sign with (wallet tracker, section 4).

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use daybook_ledger::{
    SigningKey,
    tracker::{Address, Key, KeyHash, Suite, pem_of},
};

/// A peer's key pair in one of the three suites. Cheap to clone.
#[derive(Clone)]
pub struct PeerKey {
    pem: String,
    hash: KeyHash,
    pair: Arc<Pair>,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ed25519(Box<SigningKey>),
    P256(EcdsaKeyPair),
}

/// The bytes are no private key of this suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a private key that the tracker knows a suite for")]
pub struct NotASigningKey;

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({} {})", self.suite().name(), self.hash)
    }
}

impl PeerKey {
    /// The Ed25519 key of an owner in the ledger.
    pub fn ed25519(key: SigningKey) -> PeerKey {
        PeerKey::new(Pair::Ed25519(Box::new(key))).expect("a seed gives a sound public key")
    }

    /// An RSA key of 2048 to 4096 bits: PKCS#8 in DER.
    ///
    /// # Errors
    /// [`NotASigningKey`] for anything else.
    pub fn rsa(pkcs8: &[u8]) -> Result<PeerKey, NotASigningKey> {
        let pair = rsa::KeyPair::from_pkcs8(pkcs8).map_err(|_| NotASigningKey)?;
        PeerKey::new(Pair::Rsa(pair))
    }

    /// A P-256 key: PKCS#8 in DER.
    ///
    /// # Errors
    /// [`NotASigningKey`] for anything else.
    pub fn p256(pkcs8: &[u8]) -> Result<PeerKey, NotASigningKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| NotASigningKey)?;
        PeerKey::new(Pair::P256(pair))
    }

    /// A new key; RSA keys have 2048 bits.
    pub fn generate(suite: Suite) -> PeerKey {
        const RANDOM: &str = "the operating system gives random bytes";
        let pair = match suite {
            Suite::Ed25519 => {
                let mut seed = [0; 32];
                aws_lc_rs::rand::fill(&mut seed).expect(RANDOM);
                Pair::Ed25519(Box::new(SigningKey::from_seed(seed)))
            }
            Suite::Rsa => Pair::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect(RANDOM)),
            Suite::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
                Pair::P256(pair.expect(RANDOM))
            }
        };
        PeerKey::new(pair).expect("a key that was made has an encoding")
    }

    fn new(pair: Pair) -> Result<PeerKey, NotASigningKey> {
        let of_spki = |der: Result<PublicKeyX509Der<'_>, Unspecified>| {
            der.map(|der| pem_of(der.as_ref()))
                .map_err(|_| NotASigningKey)
        };
        let pem = match &pair {
            Pair::Ed25519(key) => Key::ed25519_pem(&key.public_key()),
            Pair::Rsa(pair) => of_spki(pair.public_key().as_der())?,
            Pair::P256(pair) => of_spki(pair.public_key().as_der())?,
        };
        let hash = Key::read(&pem).map_err(|_| NotASigningKey)?.hash();
        Ok(PeerKey {
            pem,
            hash,
            pair: Arc::new(pair),
        })
    }

    /// The public half as PEM, without a final newline.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the public half.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// How it signs.
    pub fn suite(&self) -> Suite {
        match &*self.pair {
            Pair::Rsa(_) => Suite::Rsa,
            Pair::Ed25519(_) => Suite::Ed25519,
            Pair::P256(_) => Suite::P256,
        }
    }

    /// The wallet of whoever holds this key (section 5).
    pub fn common_address(&self) -> Address {
        Address::common(&self.pem)
    }

    /// The signature over `message`, in base64.
    pub fn sign(&self, message: &str) -> String {
        let message = message.as_bytes();
        match &*self.pair {
            Pair::Ed25519(key) => STANDARD.encode(key.sign(message)),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .expect("the buffer is as long as the modulus");
                STANDARD.encode(signature)
            }
            Pair::P256(pair) => {
                let signature = pair
                    .sign(&SystemRandom::new(), message)
                    .expect("the operating system gives random bytes");
                STANDARD.encode(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::tracker::Suites;

    use super::*;

    #[test]
    fn a_key_of_every_suite_signs_what_its_public_half_verifies() {
        for suite in [Suite::Rsa, Suite::Ed25519, Suite::P256] {
            let key = PeerKey::generate(suite);
            assert_eq!(key.suite(), suite);
            let public = Key::read(key.pem()).unwrap();
            let sign = key.sign("здраво · ✓");
            let suites = Suites::default();
            assert!(public.verify(&suites, "здраво · ✓".as_bytes(), &sign));
            assert!(!public.verify(&suites, b"other", &sign));
        }
    }

    /// Wallet tracker, appendix A, V6.
    #[test]
    fn the_ed25519_vector_is_reproduced() {
        let seed = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let key = PeerKey::ed25519(SigningKey::from_seed(seed));
        assert_eq!(
            key.sign(key.pem()),
            "v/4emHx0FuoXa6Y90fubWycIHac3EWgEm0bmQ3jHMztRDDFxZwPxap9NR6av7naKgEeXN/WiTeB6t8iP+Pj6Bw=="
        );
        assert_eq!(
            key.common_address().as_str(),
            "0x0b1dac42cc91283064ePh0awiUFpni1WT_sRm38BktGW4rLqj72ezasw=="
        );
    }
}
