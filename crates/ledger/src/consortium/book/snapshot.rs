//! A book as bytes, so that a start need not read the whole log.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{Book, Ledger, Mark, Opened, Pending, Seat, Slot, plan::growth, plan::slots_of};
use crate::{
    BlockTime, Height, PublicKey, TransactionId,
    consortium::{
        canonical::canon_object,
        command::{Admission, Policy, Settings},
        container::Documents,
        did::Did,
        entry::Entry,
        limits::DEPTH_MAX,
        member::{Card, Member},
        refusal::MalformedSnapshot,
        state::agreed,
        tree::Frontier,
    },
    json::{Object, Value},
};

/// The first byte of a snapshot.
const FORMAT: u8 = 1;

impl Book {
    /// The book as bytes: a format byte, settings, members, ledgers, proposals and what is not
    /// forgotten yet, all sorted, lengths as little-endian 32-bit numbers. Equal books have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![FORMAT]);
        match &self.settings {
            None => out.byte(0),
            Some(settings) => {
                out.byte(match settings.admission {
                    Admission::Validators => 1,
                    Admission::Members => 2,
                });
                out.number(settings.deadline_ms_max);
                out.bytes(settings.documents.as_str().as_bytes());
            }
        }
        out.number(self.next_proposal);
        out.number(self.next_ledger);
        out.list(self.members.values(), |out, member| {
            out.object(&member.card.to_object());
            out.list(&member.keys, |out, key| out.0.extend_from_slice(&key.0));
            out.byte(u8::from(member.active));
        });
        let ledgers: Vec<&Ledger> = self
            .created
            .values()
            .filter_map(|name| self.ledger(name))
            .collect();
        out.list(ledgers, |out, ledger| {
            out.bytes(ledger.name.as_bytes());
            out.number(ledger.number);
            out.number(ledger.created.0);
            out.number(ledger.changed.0);
            out.did(&ledger.creator);
            out.list(&ledger.participants, Writer::did);
            out.number(match ledger.policy {
                Policy::Unanimous => 0,
                Policy::AtLeast(count) => u64::from(count),
            });
            out.number(ledger.frontier.size());
            out.list(ledger.frontier.roots(), |out, root| {
                out.0.extend_from_slice(root)
            });
        });
        let mut proposals: Vec<&Arc<Pending>> = self.proposals.values().collect();
        proposals.sort_unstable_by_key(|pending| pending.number);
        out.list(proposals, |out, pending| {
            out.number(pending.number);
            out.bytes(pending.entry.text());
            out.list(&pending.endorsed, Writer::did);
            out.list(&pending.refused, Writer::did);
            match &pending.opened {
                None => out.byte(0),
                Some(opened) => {
                    out.byte(1);
                    out.number(opened.at.0);
                    out.list(opened.seats.iter(), |out, seat| {
                        out.bytes(seat.ledger.as_bytes());
                        out.list(&seat.participants, Writer::did);
                        out.number(seat.needed as u64);
                    });
                }
            }
        });
        out.list(&self.marks, |out, (height, marks)| {
            out.number(height.0);
            out.list(marks, |out, mark| match mark {
                Mark::Request(key) => {
                    out.byte(0);
                    out.0.extend_from_slice(key);
                    out.bytes(self.requests.get(key).map_or(&[][..], |entry| entry.text()));
                }
                Mark::Closed(id) => {
                    out.byte(1);
                    out.0.extend_from_slice(&id.0);
                    out.bytes(self.closed.get(id).map_or(&[][..], |entry| entry.text()));
                }
            });
        });
        out.0
    }

    /// Reads what [`Book::encode`] wrote, and audits it.
    ///
    /// # Errors
    /// [`MalformedSnapshot`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Book, MalformedSnapshot> {
        let mut input = Reader(bytes);
        if input.byte()? != FORMAT {
            return Err(format("another format"));
        }
        let mut book = Book::default();
        let admission = match input.byte()? {
            0 => None,
            1 => Some(Admission::Validators),
            2 => Some(Admission::Members),
            _ => return Err(format("settings")),
        };
        if let Some(admission) = admission {
            book.settings = Some(Settings {
                admission,
                deadline_ms_max: input.number()?,
                documents: Documents::from_name(&input.text()?)
                    .ok_or_else(|| format("settings"))?,
            });
        }
        book.next_proposal = input.number()?;
        let next_ledger = input.number()?;
        for _ in 0..input.count()? {
            let member = Member {
                card: input.card()?,
                keys: input.list(|input| input.array().map(PublicKey))?,
                active: input.flag()?,
            };
            for key in &member.keys {
                book.keys.insert(*key, member.card.did());
            }
            book.members.insert(member.card.did(), Arc::new(member));
        }
        for _ in 0..input.count()? {
            let ledger = input.ledger()?;
            book.share(None, &ledger);
            let slot = book.slots.entry(Arc::clone(&ledger.name)).or_default();
            slot.ledger = Some(Arc::new(ledger));
        }
        if book.next_ledger != next_ledger {
            return Err(format("ledgers are missing"));
        }
        for _ in 0..input.count()? {
            let pending = input.pending(&book)?;
            let id = pending.entry.id();
            for name in slots_of(&pending.propose().action) {
                let known = book.slots.get_key_value(name);
                let name = known.map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
                let slot: &mut Slot = book.slots.entry(name).or_default();
                slot.queue.push_back(id);
            }
            book.deadlines
                .insert((pending.propose().deadline, pending.number, id));
            book.load(&pending);
            book.proposals.insert(id, Arc::new(pending));
        }
        for _ in 0..input.count()? {
            let height = Height(input.number()?);
            for _ in 0..input.count()? {
                let mark = match input.byte()? {
                    0 => Mark::Request(input.array()?),
                    1 => Mark::Closed(TransactionId(input.array()?)),
                    _ => return Err(format("a mark")),
                };
                let entry = input.entry()?;
                match mark {
                    Mark::Request(key) => drop(book.requests.insert(key, entry)),
                    Mark::Closed(id) => drop(book.closed.insert(id, entry)),
                }
                book.mark(height, mark);
            }
        }
        if !input.0.is_empty() {
            return Err(format("longer than it should be"));
        }
        book.audit()?;
        Ok(book)
    }
}

fn format(what: &str) -> MalformedSnapshot {
    MalformedSnapshot::Format(what.to_owned())
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("everything counted is bounded far below 2^32");
        self.0.extend_from_slice(&count.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn did(&mut self, did: &Did) {
        self.0.extend_from_slice(&did.0);
    }

    fn object(&mut self, object: &Object) {
        self.bytes(canon_object(object).as_bytes());
    }

    fn list<T, I>(&mut self, items: I, each: impl Fn(&mut Writer, T))
    where
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        let items = items.into_iter();
        self.count(items.len());
        for item in items {
            each(self, item);
        }
    }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedSnapshot> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| format("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, MalformedSnapshot> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, MalformedSnapshot> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(format("neither yes nor no")),
        }
    }

    fn number(&mut self) -> Result<u64, MalformedSnapshot> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Result<usize, MalformedSnapshot> {
        // Whoever counts more items than there are bytes is refused by the first that is missing.
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn bytes(&mut self) -> Result<&[u8], MalformedSnapshot> {
        let length = self.count()?;
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| format("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, MalformedSnapshot> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|_| format("not UTF-8"))
    }

    fn did(&mut self) -> Result<Did, MalformedSnapshot> {
        self.array().map(Did)
    }

    fn list<T, C: FromIterator<T>>(
        &mut self,
        each: impl Fn(&mut Self) -> Result<T, MalformedSnapshot>,
    ) -> Result<C, MalformedSnapshot> {
        (0..self.count()?).map(|_| each(self)).collect()
    }

    fn entry(&mut self) -> Result<Entry, MalformedSnapshot> {
        let text = Bytes::copy_from_slice(self.bytes()?);
        Entry::read(text).map_err(|error| format(&error.0))
    }

    fn card(&mut self) -> Result<Card, MalformedSnapshot> {
        let value = Value::parse(self.bytes()?, DEPTH_MAX).map_err(|_| format("a card"))?;
        Card::read_unproven(&value).map_err(|refusal| format(&refusal.detail))
    }

    fn ledger(&mut self) -> Result<Ledger, MalformedSnapshot> {
        Ok(Ledger {
            name: self.text()?.into(),
            number: self.number()?,
            created: BlockTime(self.number()?),
            changed: BlockTime(self.number()?),
            creator: self.did()?,
            participants: self.list(Self::did)?,
            policy: match u32::try_from(self.number()?) {
                Ok(0) => Policy::Unanimous,
                Ok(count) => Policy::AtLeast(count),
                Err(_) => return Err(format("a policy")),
            },
            frontier: {
                let size = self.number()?;
                let roots = self.list(Self::array)?;
                Frontier::from_parts(size, roots).ok_or_else(|| format("a frontier"))?
            },
        })
    }

    /// A proposal; what it leads to is worked out again.
    fn pending(&mut self, book: &Book) -> Result<Pending, MalformedSnapshot> {
        let number = self.number()?;
        let entry = self.entry()?;
        let propose = entry.propose().ok_or_else(|| format("not a proposal"))?;
        let endorsed: BTreeSet<Did> = self.list(Self::did)?;
        let refused: BTreeSet<Did> = self.list(Self::did)?;
        let opened = if self.flag()? {
            let at = BlockTime(self.number()?);
            let seats: Vec<Seat> = self.list(|input| {
                Ok(Seat {
                    ledger: input.text()?,
                    participants: input.list(Self::did)?,
                    needed: usize::try_from(input.number()?).map_err(|_| format("a seat"))?,
                })
            })?;
            let (states, after) = growth(propose, at, |name| {
                let ledger = book.ledger(name);
                ledger.map_or_else(Frontier::new, |ledger| ledger.frontier.clone())
            });
            Some(Opened {
                at,
                agreed: agreed(&states),
                seats: seats.into(),
                states: states.into(),
                after: after.into(),
            })
        } else {
            None
        };
        Ok(Pending {
            number,
            bytes: entry.text().len(),
            entry,
            opened,
            endorsed,
            refused,
        })
    }
}
