//! What a broker must not forget with its process, so that a repeated request has one effect over a
//! restart too (service bus, section 5.1): who was there, what was asked, and what came of it.
//!
//! A note is made before the effect that it is about, and written in that order by the gateway. Notes
//! hold for minutes, so they are appended to files that are deleted as a whole, and never looked up.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::{
    Code, Fault, Grant, Moment, Unbounded,
    bus::{Bus, Instance, InstanceNo, NUMBER_MAX, Secret},
    message::Reply,
    remember::{Done, Known},
};

macro_rules! notes {
    ($($(#[$doc:meta])* $kind:literal $name:ident {
        $($(#[$about:meta])* $part:ident: $type:ty,)*
    })+) => {
        /// One note. Numbers of kinds and the order of members are on disk and never change.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Note {
            $($(#[$doc])* $name { $($(#[$about])* $part: $type,)* },)+
        }

        impl Note {
            /// Appends the note's bytes.
            pub fn write(&self, into: &mut Vec<u8>) {
                match self {
                    $(Note::$name { $($part),* } => {
                        into.push($kind);
                        $(Part::write($part, into);)*
                    })+
                }
            }

            /// Reads one note, all of whose bytes these are. `None` when they are something else.
            pub fn read(bytes: &[u8]) -> Option<Note> {
                let mut input = In(bytes);
                let note = match input.byte()? {
                    $($kind => Note::$name { $($part: Part::read(&mut input)?,)* },)+
                    _ => return None,
                };
                input.0.is_empty().then_some(note)
            }
        }
    };
}

notes! {
    /// An instance came, or came back. Replaces what was noted of its number before.
    0 Instance {
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
    }
    /// Its connection was lost.
    1 Away {
        /// Its number.
        no: u64,
        /// When.
        at: Moment,
    }
    /// It will not come back.
    2 Gone {
        /// Its number.
        no: u64,
    }
    /// A request is about to have an effect.
    3 Begun {
        /// The requester's number.
        no: u64,
        /// The request's id.
        request_id: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// What becomes of it when the broker ends before its answer.
        how: Begun,
    }
    /// A request is through.
    4 Done {
        /// The requester's number.
        no: u64,
        /// When.
        at: Moment,
        /// The request's id.
        request_id: Arc<str>,
        /// What came of it.
        done: Done,
    }
    /// A request that had begun has had no effect, and may be tried again.
    5 Dropped {
        /// The requester's number.
        no: u64,
        /// The request's id.
        request_id: Arc<str>,
    }
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

/// A member of a note as bytes.
trait Part: Sized {
    fn write(&self, into: &mut Vec<u8>);
    fn read(input: &mut In<'_>) -> Option<Self>;
}

impl Part for u64 {
    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.to_le_bytes());
    }
    fn read(input: &mut In<'_>) -> Option<u64> {
        let (number, rest) = input.0.split_first_chunk()?;
        input.0 = rest;
        Some(u64::from_le_bytes(*number)).filter(|number| *number <= NUMBER_MAX)
    }
}

impl Part for Moment {
    fn write(&self, into: &mut Vec<u8>) {
        self.0.write(into);
    }
    fn read(input: &mut In<'_>) -> Option<Moment> {
        u64::read(input).map(Moment)
    }
}

impl Part for Arc<str> {
    fn write(&self, into: &mut Vec<u8>) {
        write_text(self, into);
    }
    fn read(input: &mut In<'_>) -> Option<Arc<str>> {
        input.text().map(Into::into)
    }
}

impl Part for String {
    fn write(&self, into: &mut Vec<u8>) {
        write_text(self, into);
    }
    fn read(input: &mut In<'_>) -> Option<String> {
        input.text().map(str::to_owned)
    }
}

impl Part for Secret {
    fn write(&self, into: &mut Vec<u8>) {
        self.0.write(into);
    }
    fn read(input: &mut In<'_>) -> Option<Secret> {
        String::read(input).map(Secret)
    }
}

impl Part for Begun {
    fn write(&self, into: &mut Vec<u8>) {
        into.push(*self as u8);
    }
    fn read(input: &mut In<'_>) -> Option<Begun> {
        Some(match input.byte()? {
            0 => Begun::Once,
            1 => Begun::Retry,
            2 => Begun::Silent,
            3 => Begun::Storing,
            _ => return None,
        })
    }
}

/// The name, two bits of flags, and the answer or nothing.
impl Part for Done {
    fn write(&self, into: &mut Vec<u8>) {
        self.name.write(into);
        into.push(u8::from(self.quiet) | u8::from(self.answer.is_some()) << 1);
        write_text(self.answer.as_deref().unwrap_or_default(), into);
    }
    fn read(input: &mut In<'_>) -> Option<Done> {
        let name = Part::read(input)?;
        let flags = input.byte()?;
        let answer = input.text()?;
        let answered = flags & 2 != 0;
        if flags > 3 || (!answered && !answer.is_empty()) {
            return None;
        }
        Some(Done {
            name,
            answer: answered.then(|| answer.into()),
            quiet: flags & 1 != 0,
        })
    }
}

fn write_text(text: &str, into: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).expect("a packet is bounded far below 4 GiB");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// What is left to read.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
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
        let clients = self.clients();
        let mut notes = Vec::with_capacity(clients.len() + self.calls.len());
        for (no, instance) in clients {
            notes.push(instance.note(no));
            if let Some(until) = instance.forget_at {
                let micros = self.settings.resume_ms.saturating_mul(1_000);
                let at = Moment(until.0.saturating_sub(micros));
                notes.push(Note::Away { no, at });
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
    ///
    /// Answers what of all these notes still matters, which may take their place.
    pub fn recall(&mut self, notes: impl IntoIterator<Item = Note>) -> Vec<Note> {
        let mut lost = Lost::new();
        for note in notes {
            self.recall_one(note, &mut lost);
        }
        let mut requests = lost.values().flat_map(BTreeMap::values);
        let stored = match requests.any(|(_, how)| *how == Begun::Storing) {
            true => self.durables.requests(),
            false => HashSet::new(),
        };
        for (no, requests) in lost {
            for (request_id, (name, how)) in requests {
                self.recall_lost(no, request_id, name, how, &stored);
            }
        }
        let mut kept = Vec::new();
        let mut back = Vec::new();
        for (no, instance) in self.clients() {
            kept.push(instance.note(no));
            // As it was noted. Who was there to the last is away from this start on, and from the next one
            // if this one ends at once.
            let away_since = instance.forget_at;
            kept.extend(away_since.map(|at| Note::Away { no, at }));
            kept.extend(instance.memory.ends().map(|(at, id, done)| Note::Done {
                no,
                at,
                request_id: id.clone(),
                done: done.clone(),
            }));
            back.push((no, away_since));
        }
        for (no, away_since) in back {
            let since = away_since.unwrap_or(self.now).min(self.now);
            self.keep_away_since(no, since);
        }
        kept
    }

    /// All instances but the node's own, in the order of their coming.
    fn clients(&self) -> Vec<(InstanceNo, &Instance)> {
        let all = self.instances.iter().map(|(no, instance)| (*no, instance));
        let mut clients: Vec<_> = all.filter(|(_, instance)| !instance.local).collect();
        clients.sort_unstable_by_key(|(no, _)| *no);
        clients
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
                done,
            } => {
                if let Some(requests) = lost.get_mut(&no) {
                    requests.remove(&request_id);
                }
                let known = self
                    .instances
                    .get(&no)
                    .and_then(|instance| instance.memory.get(&request_id));
                if !matches!(known, Some(Known::Done(_))) {
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
    fn recall_lost(
        &mut self,
        no: InstanceNo,
        request_id: Arc<str>,
        name: Arc<str>,
        how: Begun,
        stored: &HashSet<(String, String)>,
    ) {
        let Some(id) = self.instances.get(&no).map(|instance| instance.id.clone()) else {
            return;
        };
        let answer = match how {
            Begun::Retry => return,
            Begun::Storing if !stored.contains(&(id.to_string(), request_id.to_string())) => return,
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
        self.remember_since(no, self.now, request_id, done);
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
            no: NUMBER_MAX,
            at: Moment(7),
            request_id: "é".into(),
            done: Done {
                name: "n".into(),
                quiet,
                answer: answer.map(Into::into),
            },
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
    fn a_number_after_which_none_can_be_counted_is_none() {
        for no in [NUMBER_MAX + 1, u64::MAX] {
            let mut bytes = Vec::new();
            Note::Gone { no }.write(&mut bytes);
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
