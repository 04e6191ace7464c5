//! Notices: small signed messages between members that are no part of the log. Pings and pongs pass
//! by; plan documents (GU-11, GU-12) are kept until every member has read them.

use bytes::Bytes;
use daybook_ledger::{
    PublicKey, SigningKey,
    block::BlockHash,
    consortium::{DEPTH_MAX, Did, SignatureObject},
    json::{Object, Value},
};

use crate::json::{text, write};

/// What a notice says it is, so that its signature can never be taken for one over anything else.
const DOMAIN: &str = "daybook/consortium/notice/1";
/// Bytes of a notice: a plan document with a hundred attachments.
pub const NOTICE_BYTES_MAX: usize = 128 << 10;
/// How far the time of a notice may be from the reader's, in seconds: the clocks of two organisations
/// differ, and one that is caught and sent again later is refused.
const AGE_SECONDS_MAX: u64 = 5 * 60;

/// A notice whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Notice {
    pub(crate) member: Did,
    /// When it was signed, in seconds since 1970.
    pub(crate) seconds: u64,
    pub(crate) body: Object,
}

/// The notice is not what it should be: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadNotice(pub(crate) &'static str);

/// Signs a notice of `kind` with further members.
pub(crate) fn sign(
    network: BlockHash,
    member: Did,
    kind: &str,
    members: impl IntoIterator<Item = (&'static str, Value)>,
    seconds: u64,
    key: &SigningKey,
) -> Bytes {
    let mut body: Object = members.into_iter().collect();
    body.insert("notice", DOMAIN.into());
    body.insert("network", network.to_string().into());
    body.insert("member", member.to_string().into());
    body.insert("kind", kind.into());
    let signed = SignatureObject::sign(&Value::Object(body), seconds, key);
    write(&signed.to_value()).into()
}

/// What a notice says that was verified before it was kept; `None` of anything else.
pub(crate) fn body(bytes: &[u8]) -> Option<Object> {
    let value = Value::parse(bytes, DEPTH_MAX).ok()?;
    let (_, body) = SignatureObject::read(&value).ok()?.open(DEPTH_MAX).ok()?;
    body.as_object().cloned()
}

impl Notice {
    /// Reads a notice and verifies that the member whom it names signed it with a key that `is_key_of`
    /// takes for the member's.
    pub(crate) fn open(
        bytes: &[u8],
        network: BlockHash,
        is_key_of: &dyn Fn(Did, &PublicKey) -> bool,
    ) -> Result<Notice, BadNotice> {
        if bytes.len() > NOTICE_BYTES_MAX {
            return Err(BadNotice("the notice is too long"));
        }
        let value =
            Value::parse(bytes, DEPTH_MAX).map_err(|_| BadNotice("the notice is no JSON"))?;
        let signature = SignatureObject::read(&value)
            .map_err(|_| BadNotice("the notice is no signature object"))?;
        let (seconds, body) = signature
            .open(DEPTH_MAX)
            .map_err(|_| BadNotice("the notice's signature is wrong"))?;
        if text(&body, "notice") != DOMAIN {
            return Err(BadNotice("what was signed is no notice"));
        }
        if text(&body, "network") != network.to_string() {
            return Err(BadNotice("the notice is for another network"));
        }
        let member: Did = text(&body, "member")
            .parse()
            .map_err(|_| BadNotice("the notice names no member"))?;
        if !is_key_of(member, &signature.signer()) {
            return Err(BadNotice("the notice is not signed by the member it names"));
        }
        match body {
            Value::Object(body) => Ok(Notice {
                member,
                seconds,
                body,
            }),
            _ => Err(BadNotice("what was signed is no notice")),
        }
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("kind")
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.body.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// Whether it was signed about now.
    pub(crate) fn is_fresh(&self, now_ms: u64) -> bool {
        self.seconds.abs_diff(now_ms / 1_000) <= AGE_SECONDS_MAX
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_notice_is_its_members_and_of_its_network() {
        let key = SigningKey::from_seed([1; 32]);
        let (me, network) = (Did::of(&key.public_key()), BlockHash([7; 32]));
        let members = [("ping_id", Value::from("p"))];
        let signed = sign(network, me, "ping", members, 1_000, &key);
        let mine = |did: Did, signer: &PublicKey| did == me && *signer == key.public_key();
        let notice = Notice::open(&signed, network, &mine).unwrap();
        assert_eq!((notice.kind(), notice.text("ping_id")), ("ping", "p"));
        assert!(notice.is_fresh(1_200_000) && !notice.is_fresh(1_400_000));
        assert!(Notice::open(&signed, BlockHash([8; 32]), &mine).is_err());
        assert!(Notice::open(&signed, network, &|_, _| false).is_err());
        let other = SignatureObject::sign(&Value::Null, 1_000, &key).to_value();
        for wrong in [&b"{}"[..], b"x", b"null", write(&other).as_bytes()] {
            assert!(Notice::open(wrong, network, &mine).is_err());
        }
    }
}
