//! Everything that must always hold, looked at as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{Book, Load, NETWORK, plan::growth, plan::slots_of};
use crate::consortium::{refusal::Violation, state::agreed, tree::Frontier};

impl Book {
    /// Checks all of the book: at a start and in tests. Takes time linear in its size.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn audit(&self) -> Result<(), Violation> {
        self.audit_members()?;
        self.audit_slots()?;
        self.audit_proposals()
    }

    fn audit_members(&self) -> Result<(), Violation> {
        let mut keys = BTreeMap::new();
        for (did, member) in &self.members {
            if member.card.did() != *did || member.keys.last() != Some(&member.card.verkey()) {
                return Err(Violation::new("members", format!("{did} has another card")));
            }
            for key in &member.keys {
                if keys.insert(*key, *did).is_some() {
                    return Err(Violation::new("members", format!("{key} is held twice")));
                }
            }
        }
        if keys != self.keys {
            return Err(Violation::new("members", "keys and members differ"));
        }
        if self.settings.is_some() == self.members.is_empty() {
            return Err(Violation::new(
                "members",
                "founded without members, or not at all",
            ));
        }
        Ok(())
    }

    fn audit_slots(&self) -> Result<(), Violation> {
        let (mut created, mut shares) = (BTreeMap::new(), BTreeMap::<_, BTreeSet<u64>>::new());
        for (name, slot) in &self.slots {
            let broken = |what: &str| Violation::new("slots", format!("\"{name}\": {what}"));
            if slot.is_empty() {
                return Err(broken("is kept for nothing"));
            }
            let mut last = None;
            for (place, id) in slot.queue.iter().enumerate() {
                let pending = self
                    .proposals
                    .get(id)
                    .ok_or_else(|| broken("a proposal in the queue is not there"))?;
                if !slots_of(&pending.propose().action).any(|slot| *slot == **name) {
                    return Err(broken("a proposal waits for something else"));
                }
                if last.replace(pending.number) >= Some(pending.number) {
                    return Err(broken("the queue is out of order"));
                }
                if pending.opened.is_some() && place > 0 {
                    return Err(broken("two proposals are open"));
                }
            }
            let Some(ledger) = &slot.ledger else { continue };
            if ledger.name != *name || &**name == NETWORK {
                return Err(broken("holds another ledger"));
            }
            if ledger.frontier.size() == 0 {
                return Err(broken("has no entries"));
            }
            created.insert(ledger.number, name.clone());
            for did in &ledger.participants {
                if !self.members.contains_key(did) {
                    return Err(broken("is shared by somebody unknown"));
                }
                shares.entry(*did).or_default().insert(ledger.number);
            }
        }
        if created != self.created || shares != self.shares {
            return Err(Violation::new(
                "slots",
                "the lists of ledgers differ from the ledgers",
            ));
        }
        if self.next_ledger
            != self
                .created
                .last_key_value()
                .map_or(0, |(number, _)| *number)
            || self.next_ledger != self.created.len() as u64
        {
            return Err(Violation::new(
                "slots",
                "ledgers are not numbered from 1 on",
            ));
        }
        Ok(())
    }

    fn audit_proposals(&self) -> Result<(), Violation> {
        let (mut load, mut total) = (BTreeMap::<_, Load>::new(), Load::default());
        let mut deadlines = BTreeSet::new();
        for (id, pending) in &self.proposals {
            let broken = |what: &str| Violation::new("proposals", format!("{id}: {what}"));
            let propose = pending.propose();
            if pending.entry.id() != *id || pending.number >= self.next_proposal {
                return Err(broken("has another name or number"));
            }
            let queued = slots_of(&propose.action).all(|name| {
                self.slots
                    .get(name)
                    .is_some_and(|slot| slot.queue.contains(id))
            });
            if !queued {
                return Err(broken("is missing in a queue"));
            }
            if !pending.endorsed.contains(&propose.member) {
                return Err(broken("is not endorsed by its proposer"));
            }
            if !pending.endorsed.is_disjoint(&pending.refused) {
                return Err(broken("somebody both endorsed and refused"));
            }
            match &pending.opened {
                None if pending.endorsed.len() > 1 || !pending.refused.is_empty() => {
                    return Err(broken("was decided about before its turn"));
                }
                None => {}
                Some(opened) => {
                    if pending.is_satisfied() || pending.is_hopeless() {
                        return Err(broken("is still open"));
                    }
                    let (states, after) = growth(propose, opened.at, |name| {
                        self.ledger(name)
                            .map_or_else(Frontier::new, |ledger| ledger.frontier.clone())
                    });
                    if *opened.states != states[..]
                        || *opened.after != after[..]
                        || opened.agreed != agreed(&states)
                    {
                        return Err(broken("leads elsewhere than was agreed"));
                    }
                }
            }
            for load in [load.entry(propose.member).or_default(), &mut total] {
                load.proposals += 1;
                load.bytes += pending.bytes;
            }
            deadlines.insert((propose.deadline, pending.number, *id));
        }
        if load != self.load || total != self.total || deadlines != self.deadlines {
            return Err(Violation::new(
                "proposals",
                "their sums or deadlines differ",
            ));
        }
        Ok(())
    }
}
