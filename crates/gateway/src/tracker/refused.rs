//! Commands of version 2 that were refused: their messages are used up (wallet tracker, section 17.2).
//!
//! A refused command leaves no entry and so no nonce in the book. Whoever has seen its frame could send it
//! again when it would pass, and get the reply: an address in the owner's name, or a payout that the owner
//! has replaced by another one.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::digest::{SHA256, digest};
use daybook_ledger::{
    BlockTime,
    json::Value,
    tracker::{Code, Payload, Refusal, Request, command},
};
use parking_lot::Mutex;

/// How long a refusal is remembered: a message whose time is five minutes ahead is taken until five minutes
/// after that.
const REMEMBERED_MS: u64 = 600_000;

/// Refusals that are remembered: about 200 bytes each. Beyond it the oldest are forgotten early.
const REFUSALS_MAX: usize = 1 << 16;

/// Names a message: the SHA-256 of what was signed.
pub(super) type MessageHash = [u8; 32];

/// All that are remembered. They live in memory: a restart forgets them.
#[derive(Default)]
pub(super) struct RefusedMessages(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    refusals: HashMap<MessageHash, Refusal>,
    by_age: VecDeque<(u64, MessageHash)>,
}

/// The message of a command that one key signed in version 2. What two keys sign repeats by its channel,
/// questions change nothing, and messages of version 1 may be sent again as often as one likes.
pub(super) fn single_use(request: &Request) -> Option<MessageHash> {
    let is_command = matches!(
        request.command,
        command::OPEN_INCOME
            | command::OPEN_SPEND
            | command::CLOSE_INCOME
            | command::CLOSE_SPEND
            | command::PAY_OUT
    );
    match &request.payload {
        Payload::Single { message, .. } if is_command => {
            let read: Value = message.parse().ok()?;
            let version = read.as_object()?.get("v")?.as_u64()?;
            let hash = digest(&SHA256, message.as_bytes());
            let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
            (version >= 2).then_some(hash)
        }
        _ => None,
    }
}

/// Whether a refusal stands: it comes from the book, so the signature was sound, and it says what is wrong with
/// the command itself. One that asks to be tried again does not.
fn stands(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::AlreadyClosed
            | Code::Expired
            | Code::HasOpenChannels
            | Code::InsufficientLimit
            | Code::TrackerEmpty
            | Code::TooManyOpen
    )
}

impl RefusedMessages {
    /// What this message was refused with before.
    pub(super) fn find(&self, message: &MessageHash, now: BlockTime) -> Option<Refusal> {
        let mut inner = self.0.lock();
        inner.forget(now);
        inner.refusals.get(message).cloned()
    }

    /// Remembers what this message was refused with, if that stands.
    pub(super) fn remember(&self, message: MessageHash, refusal: &Refusal, now: BlockTime) {
        if !stands(refusal.code) {
            return;
        }
        let mut inner = self.0.lock();
        inner.forget(now);
        while inner.by_age.len() >= REFUSALS_MAX {
            inner.forget_oldest();
        }
        if inner.refusals.insert(message, refusal.clone()).is_none() {
            inner.by_age.push_back((now.0, message));
        }
    }
}

impl Inner {
    fn forget(&mut self, now: BlockTime) {
        while let Some((then, _)) = self.by_age.front()
            && now.0.saturating_sub(*then) > REMEMBERED_MS
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, message)) = self.by_age.pop_front() {
            self.refusals.remove(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code) -> Refusal {
        Refusal::new(code, "no")
    }

    fn message(number: usize) -> MessageHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
        hash
    }

    #[test]
    fn what_asks_to_be_tried_again_may_be_sent_again_and_what_stands_may_not() {
        let refused = RefusedMessages::default();
        let again = [
            Code::RateLimited,
            Code::Internal,
            Code::BadSignature,
            Code::CorrTokenReuse,
        ];
        for code in again {
            refused.remember(message(1), &refusal(code), BlockTime(1));
            assert_eq!(refused.find(&message(1), BlockTime(1)), None, "{code:?}");
        }
        refused.remember(message(1), &refusal(Code::TrackerEmpty), BlockTime(1));
        let stands = Some(refusal(Code::TrackerEmpty));
        assert_eq!(refused.find(&message(1), BlockTime(600_001)), stands);
        assert_eq!(refused.find(&message(2), BlockTime(1)), None);
        assert_eq!(refused.find(&message(1), BlockTime(600_002)), None);
        assert!(refused.0.lock().refusals.is_empty());
    }

    #[test]
    fn the_oldest_refusals_make_room() {
        let refused = RefusedMessages::default();
        for number in 0..=REFUSALS_MAX {
            refused.remember(message(number), &refusal(Code::Expired), BlockTime(1));
        }
        assert_eq!(refused.0.lock().refusals.len(), REFUSALS_MAX);
        assert_eq!(refused.find(&message(0), BlockTime(1)), None);
        assert!(refused.find(&message(1), BlockTime(1)).is_some());
    }
}
