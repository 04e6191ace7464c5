//! What an instance asked lately, so that a repeated request has one effect (service bus, section
//! 5.1).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{CallId, Frame, Moment};

/// What is known of a request id.
#[derive(Clone)]
pub(crate) enum Known {
    /// It waits to be written to the store: its name, and the ticket of the write.
    Storing(Arc<str>, u64),
    /// It waits for its answer.
    Open(CallId),
    /// It is through.
    Done(Done),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its name.
    pub name: Arc<str>,
    /// What is sent again when the request is repeated.
    pub answer: Option<Frame>,
    /// Further answers are expected and are no mistake of those who send them.
    pub quiet: bool,
}

/// Requests of one instance.
#[derive(Default)]
pub(crate) struct Memory {
    known: HashMap<Arc<str>, Known>,
    done: VecDeque<(Moment, Arc<str>, usize)>,
    bytes: usize,
}

/// What an entry costs beside its texts, roughly: two map slots and their allocations.
const ENTRY_BYTES: usize = 200;

impl Memory {
    pub(crate) fn get(&self, request_id: &str) -> Option<&Known> {
        self.known.get(request_id)
    }

    pub(crate) fn begin(&mut self, request_id: Arc<str>, known: Known) {
        self.known.insert(request_id, known);
    }

    pub(crate) fn remove(&mut self, request_id: &str) {
        self.known.remove(request_id);
    }

    /// Keeps the end of a request. Answers the bytes that this adds.
    pub(crate) fn end(&mut self, at: Moment, request_id: Arc<str>, done: Done) -> usize {
        let bytes = ENTRY_BYTES + request_id.len() + done.answer.as_ref().map_or(0, |a| a.len());
        self.known.insert(request_id.clone(), Known::Done(done));
        self.done.push_back((at, request_id, bytes));
        self.bytes += bytes;
        bytes
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the oldest. Answers the bytes that this frees; 0 when there is nothing.
    pub(crate) fn forget_oldest(&mut self) -> usize {
        let Some((_, request_id, bytes)) = self.done.pop_front() else {
            return 0;
        };
        self.known.remove(&request_id);
        self.bytes -= bytes;
        bytes
    }

    pub(crate) fn forget_before(&mut self, before: Moment) -> usize {
        let mut freed = 0;
        while self.done.front().is_some_and(|(at, _, _)| *at < before) {
            freed += self.forget_oldest();
        }
        freed
    }

    /// The ends that are kept, the oldest first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Moment, &Arc<str>, &Done)> {
        let done = self.done.iter();
        done.filter_map(|(at, request_id, _)| match self.known.get(request_id) {
            Some(Known::Done(done)) => Some((*at, request_id, done)),
            _ => None,
        })
    }

    pub(crate) fn open_calls(&self) -> Vec<CallId> {
        self.known
            .values()
            .filter_map(|known| match known {
                Known::Open(call) => Some(*call),
                _ => None,
            })
            .collect()
    }
}
