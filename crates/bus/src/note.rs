//! What a broker must not forget with its process, so that a repeated request has one effect over a
//! restart too (service bus, section 5.1): who was there, what was asked, and what came of it.
//!
//! A note is made before the effect that it is about, and written in that order by the gateway. Notes
//! hold for minutes, so they are appended to files that are deleted as a whole, and never looked up.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Code, Fault, Frame, Grant, Moment, Unbounded,
    bus::{Bus, Instance, InstanceNo, Secret},
    message::Reply,
    remember::{Done, Known},
};

/// One note. Numbers of kinds and the order of members are on disk and never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An instance came, or came back. Replaces what was noted of its number before.
    Instance {
        /// Its number.
        no: u64,
        /// Its id.
        id: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// What it shows when it comes back.
        token: Secret,
        /// The key that it came with.
        key_id: String,
    },
    /// Its connection was lost.
    Away {
        /// Its number.
        no: u64,
        /// When.
        at: Moment,
    },
    /// It will not come back.
    Gone {
        /// Its number.
        no: u64,
    },
    /// A request is about to have an effect.
    Begun {
        /// The requester's number.
        no: u64,
        /// The request's id.
        request_id: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// What becomes of it when the broker ends before its answer.
        how: Begun,
    },
    /// A request is through.
    Done {
        /// The requester's number.
        no: u64,
        /// When.
        at: Moment,
        /// The request's id.
        request_id: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Further answers are no mistake.
        quiet: bool,
        /// What is sent again when the request is repeated.
        answer: Option<Frame>,
    },
    /// A request that had begun has had no effect, and may be tried again.
    Dropped {
        /// The requester's number.
        no: u64,
        /// The request's id.
        request_id: Arc<str>,
    },
}

/// How a request goes on after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Begun {
    /// Whether it had its effect is not known, so it is answered `recipient_gone` and not repeated.
    Once = 0,
    /// Its caller says that it may be delivered twice, so it may be asked again.
    Retry = 1,
    /// Nobody waits for its answer.
    Silent = 2,
    /// It was being written for a durable subscription: if it is there, it was taken.
    Storing = 3,
}

impl Note {
    /// Appends the note's bytes.
    pub fn write(&self, into: &mut Vec<u8>) {
        let mut out = Out(into);
        match self {
            Note::Instance {
                no,
                id,
                name,
                token,
                key_id,
            } => {
                out.head(0, *no);
                out.text(id);
                out.text(name);
                out.text(&token.0);
                out.text(key_id);
            }
            Note::Away { no, at } => {
                out.head(1, *no);
                out.number(at.0);
            }
            Note::Gone { no } => out.head(2, *no),
            Note::Begun {
                no,
                request_id,
                name,
                how,
            } => {
                out.head(3, *no);
                out.text(request_id);
                out.text(name);
                out.0.push(*how as u8);
            }
            Note::Done {
                no,
                at,
                request_id,
                name,
                quiet,
                answer,
            } => {
                out.head(4, *no);
                out.number(at.0);
                out.text(request_id);
                out.text(name);
                out.0
                    .push(u8::from(*quiet) | u8::from(answer.is_some()) << 1);
                out.text(answer.as_deref().unwrap_or_default());
            }
            Note::Dropped { no, request_id } => {
                out.head(5, *no);
                out.text(request_id);
            }
        }
    }

    /// Reads one note, all of whose bytes these are. `None` when they are something else.
    pub fn read(bytes: &[u8]) -> Option<Note> {
        let mut input = In(bytes);
        let kind = input.byte()?;
        let no = input.number()?;
        let note = match kind {
            0 => Note::Instance {
                no,
                id: input.text()?.into(),
                name: input.text()?.into(),
                token: Secret(input.text()?.to_owned()),
                key_id: input.text()?.to_owned(),
            },
            1 => Note::Away {
                no,
                at: Moment(input.number()?),
            },
            2 => Note::Gone { no },
            3 => Note::Begun {
                no,
                request_id: input.text()?.into(),
                name: input.text()?.into(),
                how: match input.byte()? {
                    0 => Begun::Once,
                    1 => Begun::Retry,
                    2 => Begun::Silent,
                    3 => Begun::Storing,
                    _ => return None,
                },
            },
            4 => {
                let at = Moment(input.number()?);
                let (request_id, name) = (input.text()?.into(), input.text()?.into());
                let flags = input.byte()?;
                let answer = input.text()?;
                if flags > 3 || (flags & 2 == 0 && !answer.is_empty()) {
                    return None;
                }
                Note::Done {
                    no,
                    at,
                    request_id,
                    name,
                    quiet: flags & 1 != 0,
                    answer: (flags & 2 != 0).then(|| answer.into()),
                }
            }
            5 => Note::Dropped {
                no,
                request_id: input.text()?.into(),
            },
            _ => return None,
        };
        input.0.is_empty().then_some(note)
    }
}

struct Out<'a>(&'a mut Vec<u8>);

impl Out<'_> {
    fn head(&mut self, kind: u8, no: u64) {
        self.0.push(kind);
        self.number(no);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("a packet is bounded far below 4 GiB");
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Option<&'a str> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// Requests whose end was not noted, by instance.
type Lost = BTreeMap<InstanceNo, BTreeMap<Arc<str>, (Arc<str>, Begun)>>;

impl Bus {
    /// Everything that has to be noted again when older notes are thrown away: who is there, and what
    /// is under way. Answers that are kept are in younger notes, or their window is over.
    pub fn notes(&self) -> Vec<Note> {
        let mut instances: Vec<(&InstanceNo, &Instance)> =
            self.instances.iter().filter(|(_, i)| !i.local).collect();
        instances.sort_unstable_by_key(|(no, _)| **no);
        let mut notes = Vec::with_capacity(instances.len() + self.calls.len());
        for (no, instance) in instances {
            notes.push(instance.note(*no));
            if let Some(until) = instance.forget_at {
                let micros = self.settings.resume_ms.saturating_mul(1_000);
                let at = Moment(until.0.saturating_sub(micros));
                notes.push(Note::Away { no: *no, at });
            }
        }
        notes.extend(self.calls.values().map(|call| Note::Begun {
            no: call.requester,
            request_id: call.request_id.clone(),
            name: call.name.clone(),
            how: Begun::of(call.reply, call.retry),
        }));
        notes.extend(
            self.durables
                .storing()
                .map(|(no, request_id, name)| Note::Begun {
                    no,
                    request_id: request_id.clone(),
                    name: name.clone(),
                    how: Begun::Storing,
                }),
        );
        notes
    }

    /// Takes up what was noted before a restart, in the order of the notes. Instances may come back as
    /// if their connections had been lost just now.
    pub fn recall(&mut self, notes: impl IntoIterator<Item = Note>) {
        let mut lost = Lost::new();
        for note in notes {
            self.recall_one(note, &mut lost);
        }
        for (no, requests) in lost {
            for (request_id, (name, how)) in requests {
                self.recall_lost(no, request_id, name, how);
            }
        }
        let mut back: Vec<(InstanceNo, Option<Moment>)> = self
            .instances
            .iter()
            .filter(|(_, instance)| !instance.local)
            .map(|(no, instance)| (*no, instance.forget_at))
            .collect();
        back.sort_unstable();
        for (no, away_since) in back {
            let since = away_since.unwrap_or(self.now).min(self.now);
            self.keep_away_since(no, since);
        }
    }

    fn recall_one(&mut self, note: Note, lost: &mut Lost) {
        match note {
            Note::Instance {
                no,
                id,
                name,
                token,
                key_id,
            } => {
                self.numbers_begin_after(no);
                let known = self.instances.remove(&no);
                self.by_id.insert(id.clone(), no);
                let mut grant = Grant::everything(&key_id);
                // What it may do is known when it shows its key again.
                grant.publish.clear();
                grant.subscribe.clear();
                let mut instance = Instance::new(id, name, Arc::new(grant), Arc::new(Unbounded));
                instance.token = token.0;
                instance.connected_at = self.now;
                if let Some(known) = known {
                    instance.memory = known.memory;
                }
                self.instances.insert(no, instance);
            }
            Note::Away { no, at } => {
                if let Some(instance) = self.instances.get_mut(&no) {
                    instance.forget_at = Some(at);
                }
            }
            Note::Gone { no } => {
                lost.remove(&no);
                if let Some(instance) = self.instances.remove(&no) {
                    self.by_id.remove(&instance.id);
                    self.remembered_bytes -= instance.memory.bytes();
                }
            }
            Note::Begun {
                no,
                request_id,
                name,
                how,
            } => {
                if self.instances.contains_key(&no) {
                    lost.entry(no).or_default().insert(request_id, (name, how));
                }
            }
            Note::Done {
                no,
                at,
                request_id,
                name,
                quiet,
                answer,
            } => {
                if let Some(requests) = lost.get_mut(&no) {
                    requests.remove(&request_id);
                }
                let known = self
                    .instances
                    .get(&no)
                    .and_then(|instance| instance.memory.get(&request_id));
                if !matches!(known, Some(Known::Done(_))) {
                    let done = Done {
                        name,
                        answer,
                        quiet,
                    };
                    self.remember_since(no, at.min(self.now), request_id, done);
                }
            }
            Note::Dropped { no, request_id } => {
                if let Some(requests) = lost.get_mut(&no) {
                    requests.remove(&request_id);
                }
            }
        }
    }

    /// A request whose answer the end of the broker cut off.
    fn recall_lost(&mut self, no: InstanceNo, request_id: Arc<str>, name: Arc<str>, how: Begun) {
        let Some(id) = self.instances.get(&no).map(|instance| instance.id.clone()) else {
            return;
        };
        let answer = match how {
            Begun::Retry => return,
            Begun::Storing if !self.durables.holds(&id, &request_id) => return,
            Begun::Storing | Begun::Silent => None,
            Begun::Once => {
                let fault = Fault::new(Code::RecipientGone);
                Some(self.broker_answer(&name, &request_id, &id, &fault))
            }
        };
        if let (Some(answer), Some(instance)) = (&answer, self.instances.get_mut(&no)) {
            // It waits for the instance, as it would if the receiver alone had gone.
            instance.park(answer.clone());
        }
        let done = Done {
            name,
            answer,
            quiet: true,
        };
        self.remember(no, request_id, done);
    }
}

impl Begun {
    pub(crate) fn of(reply: Reply, retry: bool) -> Begun {
        match (reply, retry) {
            (Reply::None, _) => Begun::Silent,
            (_, true) => Begun::Retry,
            (_, false) => Begun::Once,
        }
    }
}

impl Instance {
    pub(crate) fn note(&self, no: InstanceNo) -> Note {
        Note::Instance {
            no,
            id: self.id.clone(),
            name: self.name.clone(),
            token: Secret(self.token.clone()),
            key_id: self.grant.key_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn every_kind() -> Vec<Note> {
        let begun = |how| Note::Begun {
            no: 3,
            request_id: "r".into(),
            name: "grid.read".into(),
            how,
        };
        let done = |quiet, answer: Option<&str>| Note::Done {
            no: u64::MAX,
            at: Moment(7),
            request_id: "é".into(),
            name: "n".into(),
            quiet,
            answer: answer.map(Into::into),
        };
        vec![
            Note::Instance {
                no: 1,
                id: "meter.1.2".into(),
                name: "meter".into(),
                token: Secret("t".to_owned()),
                key_id: "k".to_owned(),
            },
            Note::Away {
                no: 1,
                at: Moment(5),
            },
            Note::Gone { no: 1 },
            begun(Begun::Once),
            begun(Begun::Retry),
            begun(Begun::Silent),
            begun(Begun::Storing),
            done(false, None),
            done(true, Some("2/communication,[]")),
            done(true, Some("")),
            Note::Dropped {
                no: 1,
                request_id: "r".into(),
            },
        ]
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_a_part_of_it_is_none() {
        for note in every_kind() {
            let mut bytes = Vec::new();
            note.write(&mut bytes);
            assert_eq!(Note::read(&bytes), Some(note.clone()));
            for cut in 0..bytes.len() {
                assert_eq!(Note::read(&bytes[..cut]), None, "{note:?}, {cut} bytes");
            }
            bytes.push(0);
            assert_eq!(Note::read(&bytes), None);
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", every_kind()[0]).contains("\"t\""));
    }

    proptest! {
        #[test]
        fn bytes_that_are_a_note_are_written_the_same_again(bytes: Vec<u8>) {
            if let Some(note) = Note::read(&bytes) {
                let mut again = Vec::new();
                note.write(&mut again);
                prop_assert_eq!(bytes, again);
            }
        }
    }
}
