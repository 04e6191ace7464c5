//! What is on its way to one client: counted when it is handed to the transport, and again when the
//! transport has let go of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use daybook_bus::{ConnId, Frame, Rooms};
use engineioxide::Str;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Tells which connections have room again. Each is in the list at most once.
#[derive(Default)]
pub(crate) struct Drained {
    conns: Mutex<Vec<ConnId>>,
    wake: Notify,
}

impl Drained {
    fn push(&self, conn: ConnId) {
        self.conns.lock().push(conn);
        self.wake.notify_one();
    }

    pub(crate) async fn next(&self) -> Vec<ConnId> {
        loop {
            let conns = std::mem::take(&mut *self.conns.lock());
            if !conns.is_empty() {
                return conns;
            }
            self.wake.notified().await;
        }
    }
}

pub(crate) struct Outbound {
    conn: ConnId,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
    /// Somebody waits for room.
    wanted: AtomicBool,
    /// Grows whenever the transport takes something.
    taken: AtomicU64,
    drained: Arc<Drained>,
}

/// One message of one client's queue.
struct Counted {
    text: Frame,
    of: Arc<Outbound>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let of = &self.of;
        let messages = of.messages.fetch_sub(1, Ordering::AcqRel) - 1;
        let bytes = of.bytes.fetch_sub(self.text.len(), Ordering::AcqRel) - self.text.len();
        of.taken.fetch_add(1, Ordering::Relaxed);
        // Half empty, so that a queue at its limit does not wake somebody for each message.
        if of.wanted.load(Ordering::Acquire)
            && messages <= of.messages_max / 2
            && bytes <= of.bytes_max / 2
            && of.wanted.swap(false, Ordering::AcqRel)
        {
            of.drained.push(of.conn);
        }
    }
}

impl Outbound {
    pub(crate) fn new(
        conn: ConnId,
        messages_max: usize,
        bytes_max: usize,
        drained: Arc<Drained>,
    ) -> Outbound {
        Outbound {
            conn,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages_max,
            bytes_max,
            wanted: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            drained,
        }
    }

    /// A message for the transport, which counts until it is let go of.
    pub(crate) fn count(self: &Arc<Outbound>, text: Frame) -> Str {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(text.len(), Ordering::AcqRel);
        let bytes = Bytes::from_owner(Counted {
            text,
            of: self.clone(),
        });
        // SAFETY: the bytes are those of a `str`, which the owner keeps unchanged.
        unsafe { Str::from_bytes_unchecked(bytes) }
    }

    /// Fuller than a queue is whose client reads as fast as others write.
    pub(crate) fn is_over_mark(&self) -> bool {
        self.messages.load(Ordering::Acquire) >= self.messages_max / 4 * 3
            || self.bytes.load(Ordering::Acquire) >= self.bytes_max / 4 * 3
    }

    /// Asks to be told when there is room again.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// A number that changes as long as the client reads.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn fits(&self) -> bool {
        self.messages.load(Ordering::Acquire) < self.messages_max
            && self.bytes.load(Ordering::Acquire) < self.bytes_max
    }
}

impl Rooms for Outbound {
    fn has_room(&self) -> bool {
        if self.fits() {
            return true;
        }
        self.want();
        // It may have been emptied between the look and the wish.
        self.fits()
    }
}
