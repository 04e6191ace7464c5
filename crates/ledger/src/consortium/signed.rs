//! Signature objects (section 5.2): a value, a time and the exact bytes that were signed, so that
//! anyone can verify them for ever; and how the entries of ledgers are signed with them (section 5.3).

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{canonical::dumps, signature};
use crate::{
    PublicKey, SigningKey,
    json::{Object, Value},
};

/// What the `@type` of a signature object is.
pub const SIGNATURE_TYPE: &str =
    "did:sov:BzCbsNYhMrjHiqZDTUASHg;spec/signature/1.0/ed25519Sha512_single";

/// The other spelling of [`SIGNATURE_TYPE`] (section 3.1).
const SIGNATURE_TYPE_DIDCOMM: &str = "https://didcomm.org/signature/1.0/ed25519Sha512_single";

/// The member of an entry that holds its proposer's signature.
pub const ENTRY_SIGNATURE: &str = "msg~sig";

/// The member of an entry that holds the signature that the client's own system made (section 5.5).
pub const ORIGIN_SIGNATURE: &str = "origin~sig";

/// The member that a ledger adds to an entry (section 4.1).
pub const METADATA: &str = "txnMetadata";

/// Base64url, written with padding and read with or without (section 5.2).
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signature with all that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureObject {
    signer: PublicKey,
    signed: Vec<u8>,
    signature: [u8; 64],
}

/// Why a signature object says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// A member is missing or is not what it should be.
    #[error("\"{0}\" of the signature is missing or malformed")]
    Member(&'static str),
    /// The signature is not over the signed bytes, or not by the signer.
    #[error("the signature is not the signer's over its sig_data")]
    Wrong,
    /// The signed bytes are not a time and a value.
    #[error("sig_data is not a time and a JSON text")]
    Data,
    /// Something else was signed.
    #[error("the signature is over something else")]
    Value,
}

impl SignatureObject {
    /// Signs `value` at `seconds` since 1970.
    pub fn sign(value: &Value, seconds: u64, key: &SigningKey) -> SignatureObject {
        let mut signed = seconds.to_be_bytes().to_vec();
        signed.extend_from_slice(dumps(value).as_bytes());
        SignatureObject {
            signer: key.public_key(),
            signature: key.sign(&signed),
            signed,
        }
    }

    /// Reads a signature object; the signature itself is not looked at yet.
    ///
    /// # Errors
    /// [`BadSignature::Member`].
    pub fn read(value: &Value) -> Result<SignatureObject, BadSignature> {
        let text = |name| {
            let value = value.as_object().and_then(|object| object.get(name));
            value
                .and_then(Value::as_str)
                .ok_or(BadSignature::Member(name))
        };
        let bytes = |name| {
            let decoded = BASE64.decode(text(name)?);
            decoded.map_err(|_| BadSignature::Member(name))
        };
        if !matches!(text("@type")?, SIGNATURE_TYPE | SIGNATURE_TYPE_DIDCOMM) {
            return Err(BadSignature::Member("@type"));
        }
        let signature = bytes("signature")?.try_into();
        Ok(SignatureObject {
            signer: text("signer")?
                .parse()
                .map_err(|_| BadSignature::Member("signer"))?,
            signed: bytes("sig_data")?,
            signature: signature.map_err(|_| BadSignature::Member("signature"))?,
        })
    }

    /// The object as it stands in messages and entries.
    pub fn to_value(&self) -> Value {
        Value::Object(Object::from_iter([
            ("@type", SIGNATURE_TYPE.to_owned()),
            ("signer", self.signer.to_string()),
            ("sig_data", BASE64.encode(&self.signed)),
            ("signature", BASE64.encode(self.signature)),
        ]))
    }

    /// Who signed.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// Verifies the signature and gives what was signed: the time in seconds since 1970 and the value.
    /// Nesting beyond `depth_max` is refused.
    ///
    /// # Errors
    /// [`BadSignature::Wrong`] or [`BadSignature::Data`].
    pub fn open(&self, depth_max: usize) -> Result<(u64, Value), BadSignature> {
        if !signature::holds(&self.signer, &self.signed, &self.signature) {
            return Err(BadSignature::Wrong);
        }
        let (seconds, text) = self.signed.split_first_chunk().ok_or(BadSignature::Data)?;
        let value = Value::parse(text, depth_max).map_err(|_| BadSignature::Data)?;
        Ok((u64::from_be_bytes(*seconds), value))
    }
}

/// Signs an entry as its proposer: a `msg~sig` that a client's own system made is kept as
/// `origin~sig`, metadata is left out, and the signature is attached with the bytes that it covers.
///
/// # Errors
/// When the client's own signature has signed data and does not verify. One without signed data
/// cannot be verified by anybody and is dropped.
pub fn sign_entry(
    mut entry: Object,
    seconds: u64,
    key: &SigningKey,
    depth_max: usize,
) -> Result<Object, BadSignature> {
    entry.remove(METADATA);
    if let Some(own) = entry.remove(ENTRY_SIGNATURE)
        && own
            .as_object()
            .is_some_and(|own| own.get("sig_data").is_some())
    {
        let signature = SignatureObject::read(&own)?;
        check_value(&signature, &entry, depth_max)?;
        entry.insert(ORIGIN_SIGNATURE, signature.to_value());
    }
    let mut signed = entry.clone();
    signed.insert(METADATA, Value::Object(Object::new()));
    let signature = SignatureObject::sign(&Value::Object(signed), seconds, key);
    entry.insert(ENTRY_SIGNATURE, signature.to_value());
    Ok(entry)
}

/// Verifies the `msg~sig` of an entry, with or without its metadata: who signed, and when in seconds
/// since 1970 (section 5.5).
///
/// # Errors
/// When it is missing, wrong or over something else.
pub fn check_entry(entry: &Object, depth_max: usize) -> Result<(PublicKey, u64), BadSignature> {
    let mut bare = entry.clone();
    bare.remove(METADATA);
    let own = bare
        .remove(ENTRY_SIGNATURE)
        .ok_or(BadSignature::Member(ENTRY_SIGNATURE))?;
    let signature = SignatureObject::read(&own)?;
    let seconds = check_value(&signature, &bare, depth_max)?;
    Ok((signature.signer(), seconds))
}

/// Whether `signature` covers `entry`, empty metadata aside.
fn check_value(
    signature: &SignatureObject,
    entry: &Object,
    depth_max: usize,
) -> Result<u64, BadSignature> {
    match signature.open(depth_max)? {
        (seconds, Value::Object(mut signed)) => {
            if matches!(signed.get(METADATA), Some(Value::Object(empty)) if empty.is_empty()) {
                signed.remove(METADATA);
            }
            (signed == *entry)
                .then_some(seconds)
                .ok_or(BadSignature::Value)
        }
        _ => Err(BadSignature::Value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEPTH: usize = 16;
    const SECONDS: u64 = 1_772_356_527;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn parse(text: &str) -> Value {
        text.parse().unwrap()
    }

    fn text<'v>(value: &'v Value, name: &str) -> &'v str {
        value
            .as_object()
            .unwrap()
            .get(name)
            .unwrap()
            .as_str()
            .unwrap()
    }

    #[test]
    fn the_published_signatures_are_made_bit_for_bit_and_verify() {
        let hash = "\"674aaa87c64f92cd7809056036d21ca7\"";
        let ledger =
            r#"{"func": "sha256", "base58": "21G44EuLeo5BUc1SJt9UvbHNzsQ3Z1SwZpYmpKj3U2JS"}"#;
        let entry = r#"{"no": "A-1", "cargo": "Арбузы", "qty": 3, "txnMetadata": {}}"#;
        let published = [
            (
                hash,
                1,
                SECONDS,
                Some("AAAAAGmkA68iNjc0YWFhODdjNjRmOTJjZDc4MDkwNTYwMzZkMjFjYTci"),
                "MnnIAuwF3ENL7Ykge1pnXsJYxNpei0CyI4SX5_-TfFXTMRYkdXelcE3dKWc7Sz_75lMma3RaMdVcLyYoGyDlDA==",
            ),
            (
                hash,
                2,
                SECONDS + 1,
                Some("AAAAAGmkA7AiNjc0YWFhODdjNjRmOTJjZDc4MDkwNTYwMzZkMjFjYTci"),
                "V-J7NTofLv6-kIgvSFyNgMlBzCUmm7TiC5qgbTxHTE199EARnt_plS70JyngHLl03iaPsD8PHKfVexC209LkCg==",
            ),
            (
                ledger,
                1,
                SECONDS,
                None,
                "ZVSP6o4Rsd1CscIZ9OX0RQKPw9H_XAXo3oA2U5QanG8MgcTi2AiPA63iZ5oYr1Mx-HftSKuj2W0Goa3_fCjvAg==",
            ),
            (
                entry,
                1,
                SECONDS,
                Some(
                    "AAAAAGmkA697Im5vIjogIkEtMSIsICJjYXJnbyI6ICJcdTA0MTBcdTA0NDBcdTA0MzFcdTA0NDNcdTA0MzdcdTA0NGIiLCAicXR5IjogMywgInR4bk1ldGFkYXRhIjoge319",
                ),
                "7PjnT6RZp9hv9xO5WzSY9OTOq2kwZHL-Saa7O0vgghvRxTQ1s0wzbuGaK3_Sk930uy7724M4e8SoB72e2dkpDQ==",
            ),
        ];
        for (value, seed, seconds, data, signature) in published {
            let object = SignatureObject::sign(&parse(value), seconds, &key(seed));
            let written = object.to_value();
            assert_eq!(text(&written, "signature"), signature);
            if let Some(data) = data {
                assert_eq!(text(&written, "sig_data"), data);
            }
            let read = SignatureObject::read(&written).unwrap();
            assert_eq!(read, object);
            assert_eq!(read.open(DEPTH), Ok((seconds, parse(value))));
        }
    }

    #[test]
    fn a_changed_byte_anywhere_fails_and_missing_padding_does_not() {
        let object = SignatureObject::sign(&parse("\"a\""), SECONDS, &key(1));
        let written = object.to_value();
        let with = |name: &str, value: &str| {
            let mut changed = written.as_object().unwrap().clone();
            changed.insert(name, Value::from(value));
            SignatureObject::read(&Value::Object(changed)).and_then(|read| read.open(DEPTH))
        };
        let signature = text(&written, "signature");
        assert!(with("signature", signature.trim_end_matches('=')).is_ok());
        let data = text(&written, "sig_data").to_owned();
        assert!(with("sig_data", data.trim_end_matches('=')).is_ok());
        for name in ["signature", "sig_data"] {
            for place in 0..text(&written, name).trim_end_matches('=').len() {
                let mut changed = text(&written, name).as_bytes().to_vec();
                changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(with(name, &changed).is_err(), "{name} {changed}");
            }
        }
        assert_eq!(
            with("signer", &key(2).public_key().to_string()),
            Err(BadSignature::Wrong)
        );
        assert_eq!(with("signer", "x"), Err(BadSignature::Member("signer")));
        assert_eq!(with("@type", "x"), Err(BadSignature::Member("@type")));
        assert!(with("@type", SIGNATURE_TYPE_DIDCOMM).is_ok());
    }

    #[test]
    fn an_entry_is_signed_so_that_it_verifies_with_and_without_its_metadata() {
        let entry = parse(r#"{"no":"A-1","cargo":"Арбузы","txnMetadata":{}}"#);
        let entry = entry.as_object().unwrap().clone();
        let signed = sign_entry(entry, SECONDS, &key(1), DEPTH).unwrap();
        let proof = Ok((key(1).public_key(), SECONDS));
        assert_eq!(check_entry(&signed, DEPTH), proof);
        let mut stored = signed.clone();
        stored.insert(METADATA, parse(r#"{"seqNo":7}"#));
        assert_eq!(check_entry(&stored, DEPTH), proof);
        stored.insert("cargo", Value::from("Tea"));
        assert_eq!(check_entry(&stored, DEPTH), Err(BadSignature::Value));
        stored.remove(ENTRY_SIGNATURE);
        assert_eq!(
            check_entry(&stored, DEPTH),
            Err(BadSignature::Member(ENTRY_SIGNATURE))
        );
    }

    #[test]
    fn a_clients_own_signature_is_kept_when_it_verifies_and_refused_when_it_is_forged() {
        let bare = parse(r#"{"no":"A-1"}"#).as_object().unwrap().clone();
        let own = sign_entry(bare.clone(), SECONDS, &key(9), DEPTH).unwrap();
        let both = sign_entry(own.clone(), SECONDS, &key(1), DEPTH).unwrap();
        assert_eq!(both.get(ORIGIN_SIGNATURE), own.get(ENTRY_SIGNATURE));
        assert_eq!(
            check_entry(&both, DEPTH),
            Ok((key(1).public_key(), SECONDS))
        );

        let mut forged = own.clone();
        forged.insert("no", Value::from("A-2"));
        assert_eq!(
            sign_entry(forged, SECONDS, &key(1), DEPTH),
            Err(BadSignature::Value)
        );
        let mut unverifiable = bare.clone();
        unverifiable.insert(ENTRY_SIGNATURE, parse(r#"{"signature":"x"}"#));
        let signed = sign_entry(unverifiable, SECONDS, &key(1), DEPTH).unwrap();
        assert_eq!(signed.get(ORIGIN_SIGNATURE), None);
    }
}
