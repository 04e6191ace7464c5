//! Members, ledgers, proposals, proofs and the log of the consortium's book.

use std::{collections::VecDeque, sync::Arc};

use daybook_ledger::{
    Height, Position, TransactionId,
    consortium::{
        self, Did, Effect, Entry, IndexKey, Ledger, Prover, TreeHash, committed_with,
        consistency_proof, inclusion_proof,
    },
};
use daybook_pipeline::Node;
use daybook_store::{ConsortiumHistory, Order, Store, StoreError};
use daybook_wire::{
    assets::Query,
    consortium::{
        self as wire, Facts, Vote, Wanted, append_entry, append_ledger, append_ledger_entry,
        append_log_tail, append_member, append_member_tail, append_number_tail, append_progress,
        consistency_body, inclusion_body, ledger_name, proposal_body,
    },
    events::append_list,
};
use http::{HeaderValue, StatusCode, header};

use super::Handled;
use crate::{
    assets::listing::{self, Sink},
    connection::Connection,
    reply::{Reply, json, json_within, not_found, refused},
    server::Gateway,
};

/// Bytes of one page of the log: texts may be a megabyte each.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Entries of the largest ledger that proofs are made for on request: its leaves take 32 MiB while one
/// is made. Members hold the ledger themselves.
const PROOF_ENTRIES_MAX: u64 = 1 << 20;

/// Commits of a ledger that are read from the index at once for its export.
const EXPORT_COMMITS: usize = 32;

/// The type of an exported ledger: JSON lines.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

pub(super) fn facts(node: &Node) -> Reply {
    let store = node.store();
    let genesis = store.genesis();
    let tip = store.tip();
    let now = node.now();
    let facts = store.consortium(|book| Facts {
        genesis: genesis.clone(),
        settings: book.settings().cloned(),
        members: book.members().count(),
        ledgers: book.ledger_count(),
        pending: book.pending_count(),
        height: tip.height,
        block_time: tip.time,
        now,
    });
    json(StatusCode::OK, facts.body())
}

pub(super) async fn entries(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    query: &Query<'_>,
) -> Handled {
    let (from, limit) = (wire::from(query)?, wire::limit(query)?);
    query.refuse_unknown(&["from", "limit"])?;
    Ok(listing::answer(gateway, connection, move |store, sink| {
        let tip = store.tip().height;
        // What is committed meanwhile is left for the next page.
        let end = Position {
            height: tip.next(),
            index: 0,
        };
        let (mut next, mut is_last) = (end.max(from), true);
        let (mut count, mut bytes) = (0, 0);
        sink.buffer.extend_from_slice(b"{\"entries\":[");
        store.consortium_log(from, &mut |position, entry| {
            if position >= end {
                return false;
            }
            if count == limit || (count > 0 && bytes + entry.text().len() > PAGE_BYTES_MAX) {
                (next, is_last) = (position, false);
                return false;
            }
            count += 1;
            bytes += entry.text().len();
            append_entry(&mut sink.buffer, position, &entry);
            sink.go_on()
        })?;
        sink.end_elements();
        append_log_tail(&mut sink.buffer, next, is_last);
        Ok(())
    })
    .await)
}

pub(super) fn members(gateway: &Gateway, query: &Query<'_>) -> Handled {
    let (after, limit) = (wire::optional_did(query, "after")?, wire::limit(query)?);
    query.refuse_unknown(&["after", "limit"])?;
    let mut out = b"{\"members\":[".to_vec();
    let next = gateway.node.store().consortium(|book| {
        let behind = |did: Did| after.is_none_or(|after| did > after);
        let mut members = book.members().filter(|member| behind(member.card.did()));
        let mut last = None;
        for (place, member) in members.by_ref().take(limit).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            let did = member.card.did();
            append_member(&mut out, member, book.ledger_count_of(did));
            last = Some(did);
        }
        last.filter(|_| members.next().is_some())
    });
    append_member_tail(&mut out, next);
    Ok(json_within(&gateway.budget, StatusCode::OK, out))
}

pub(super) fn member(gateway: &Gateway, segment: &str) -> Reply {
    let Ok(did) = segment.parse::<Did>() else {
        return not_found();
    };
    let body = gateway.node.store().consortium(|book| {
        let member = book.member(did)?;
        let mut out = Vec::with_capacity(1 << 10);
        append_member(&mut out, member, book.ledger_count_of(did));
        Some(out)
    });
    body.map_or_else(not_found, |body| {
        json_within(&gateway.budget, StatusCode::OK, body)
    })
}

pub(super) fn ledgers(gateway: &Gateway, query: &Query<'_>) -> Handled {
    let member = wire::optional_did(query, "member")?;
    let before = wire::optional_number(query, "before")?.unwrap_or(u64::MAX);
    let limit = wire::limit(query)?;
    query.refuse_unknown(&["member", "before", "limit"])?;
    // Copied under the book's lock, written without it.
    let (page, more) = gateway.node.store().consortium(|book| {
        let mut ledgers = book.ledgers_before(member, before);
        let page: Vec<(Ledger, usize)> = ledgers
            .by_ref()
            .take(limit)
            .map(|ledger| (ledger.clone(), book.queue_len(&ledger.name)))
            .collect();
        (page, ledgers.next().is_some())
    });
    let mut out = b"{\"ledgers\":[".to_vec();
    for (place, (ledger, pending)) in page.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        append_ledger(&mut out, ledger, *pending);
    }
    let last = page.last().map(|(ledger, _)| ledger.number);
    append_number_tail(&mut out, last.filter(|_| more));
    Ok(json_within(&gateway.budget, StatusCode::OK, out))
}

pub(super) fn ledger(gateway: &Gateway, segment: &str) -> Reply {
    let name = ledger_name(segment);
    let found = gateway.node.store().consortium(|book| {
        let ledger = book.ledger(&name)?.clone();
        Some((ledger, book.queue(&name).collect::<Vec<_>>()))
    });
    let Some((ledger, queue)) = found else {
        return not_found();
    };
    let mut out = Vec::with_capacity(1 << 10);
    append_ledger(&mut out, &ledger, queue.len());
    out.pop();
    out.extend_from_slice(b",\"proposals\":");
    append_list(&mut out, &queue, append_progress);
    out.push(b'}');
    json_within(&gateway.budget, StatusCode::OK, out)
}

pub(super) async fn ledger_entries(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    segment: &str,
    query: &Query<'_>,
) -> Handled {
    let from = wire::optional_number(query, "from")?.unwrap_or(1).max(1);
    let limit = wire::limit(query)?;
    query.refuse_unknown(&["from", "limit"])?;
    let name = ledger_name(segment).into_owned();
    let Some(size) = size_of(gateway.node.store(), &name) else {
        return Ok(not_found());
    };
    Ok(listing::answer(gateway, connection, move |store, sink| {
        let _ = std::io::Write::write_fmt(
            &mut sink.buffer,
            format_args!("{{\"size\":{size},\"entries\":["),
        );
        let end = from
            .saturating_add(limit as u64)
            .min(size.saturating_add(1));
        let mut next = from;
        let history = store.consortium_history();
        'batches: while next < end {
            let (batch, commit) = batch_with(&name, next, &history)?;
            let position = store.consortium_entry(&commit.id())?;
            let position = position.map(|(position, _)| position);
            for (sequence, text) in batch {
                if sequence < next {
                    continue;
                }
                if sequence >= end {
                    break 'batches;
                }
                append_ledger_entry(&mut sink.buffer, sequence, &text, position, &commit);
                next = sequence.saturating_add(1);
                if !sink.go_on() {
                    break 'batches;
                }
            }
        }
        sink.end_elements();
        append_number_tail(&mut sink.buffer, (next <= size).then_some(next));
        Ok(())
    })
    .await)
}

pub(super) async fn proof(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    segment: &str,
    query: &Query<'_>,
) -> Handled {
    let (wanted, size) = wire::wanted(query)?;
    let name = ledger_name(segment).into_owned();
    let Some(whole) = size_of(gateway.node.store(), &name) else {
        return Ok(not_found());
    };
    let size = size.unwrap_or(whole);
    let fits = match wanted {
        Wanted::Inclusion { sequence } => (1..=size).contains(&sequence),
        Wanted::Consistency { first } => (1..=size).contains(&first),
    };
    if !fits || size > whole {
        return Ok(not_found());
    }
    if size > PROOF_ENTRIES_MAX {
        let text = "The ledger is too long for proofs on request: export it";
        return Ok(refused(StatusCode::BAD_REQUEST, text));
    }
    Ok(listing::answer(gateway, connection, move |store, sink| {
        let leaves = leaves(store, &name, size)?;
        let count = |number: u64| usize::try_from(number).expect("at most PROOF_ENTRIES_MAX");
        let tree = |size: usize| {
            let mut frontier = consortium::Frontier::new();
            leaves
                .iter()
                .take(size)
                .for_each(|leaf| frontier.push(*leaf));
            frontier.root()
        };
        let root = tree(leaves.len());
        sink.buffer = match wanted {
            Wanted::Inclusion { sequence } => {
                let place = count(sequence - 1);
                let path = inclusion_proof(&leaves, place).unwrap_or_default();
                inclusion_body(&name, sequence, leaves[place], size, root, &path)
            }
            Wanted::Consistency { first } => {
                let path = consistency_proof(&leaves, count(first)).unwrap_or_default();
                let smaller = (first, tree(count(first)));
                consistency_body(&name, smaller, (size, root), &path)
            }
        };
        Ok(())
    })
    .await)
}

/// The leaves of a ledger's first entries.
fn leaves(store: &Store, name: &str, size: u64) -> Result<Vec<TreeHash>, StoreError> {
    let history = store.consortium_history();
    let mut leaves = Vec::new();
    while (leaves.len() as u64) < size {
        let next = leaves.len() as u64 + 1;
        let (batch, _) = batch_with(name, next, &history)?;
        let fresh = batch
            .iter()
            .filter(|(sequence, _)| (next..=size).contains(sequence));
        leaves.extend(fresh.map(|(_, text)| TreeHash::leaf(text)));
    }
    Ok(leaves)
}

/// The entries that were committed together with one that must be there.
fn batch_with(
    name: &str,
    sequence: u64,
    history: &ConsortiumHistory<'_>,
) -> Result<(Vec<(u64, String)>, Entry), StoreError> {
    match committed_with(name, sequence, history) {
        Some(found) => Ok(found),
        None => Err(history.missing(name, sequence)),
    }
}

fn size_of(store: &Store, name: &str) -> Option<u64> {
    store.consortium(|book| book.ledger(name).map(|ledger| ledger.frontier.size()))
}

pub(super) async fn export(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    segment: &str,
) -> Reply {
    let name = ledger_name(segment).into_owned();
    let network = Prover::new(gateway.node.store().genesis()).network();
    // The ledger, and the height at which it was so.
    let found = gateway.node.store().consortium_at(|book, height| {
        let ledger = book.ledger(&name)?.clone();
        Some((ledger, height))
    });
    let Some((ledger, height)) = found else {
        return not_found();
    };
    let mut reply = listing::answer(gateway, connection, move |store, sink| {
        let history = store.consortium_history();
        let mut commits = Commits {
            store,
            name: &ledger.name,
            through: height,
            after: Position::default(),
            read: VecDeque::new(),
            failure: None,
            ended: false,
        };
        let exported =
            consortium::export(network, &ledger, commits.by_ref(), &history, &mut |line| {
                write_line(sink, &line)
            });
        match (commits.failure, history.failure(), exported) {
            (Some(error), _, _) | (None, Some(error), _) => Err(error),
            (None, None, Err(incomplete)) => {
                tracing::error!(%incomplete, "a ledger could not be exported");
                Err(history.missing(&ledger.name, 0))
            }
            (None, None, Ok(())) => Ok(()),
        }
    })
    .await;
    if reply.status() == StatusCode::OK {
        reply.headers_mut().insert(header::CONTENT_TYPE, LINES);
    }
    reply
}

fn write_line(sink: &mut Sink, line: &str) {
    sink.buffer.extend_from_slice(line.as_bytes());
    // Whether anybody reads is asked before every read of the store.
    let _ = sink.go_on();
}

/// The entries about a ledger up to a height, oldest first, read some at a time.
struct Commits<'s> {
    store: &'s Store,
    name: &'s str,
    through: Height,
    after: Position,
    read: VecDeque<Entry>,
    failure: Option<StoreError>,
    ended: bool,
}

impl Iterator for Commits<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.read.is_empty() && !self.ended {
            let (read, through) = (&mut self.read, self.through);
            let mut last = self.after;
            let walked = self.store.consortium_entries_after(
                IndexKey::Ledger(self.name),
                self.after,
                &mut |position, entry| {
                    if position.height > through {
                        return false;
                    }
                    last = position;
                    read.push_back(entry);
                    read.len() < EXPORT_COMMITS
                },
            );
            self.after = last;
            self.ended = self.read.len() < EXPORT_COMMITS;
            if let Err(error) = walked {
                self.failure = Some(error);
                self.ended = true;
                self.read.clear();
            }
        }
        self.read.pop_front()
    }
}

pub(super) async fn proposal(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    segment: &str,
) -> Reply {
    let Ok(id) = segment.parse::<TransactionId>() else {
        return not_found();
    };
    listing::one(gateway, connection, move |store| {
        let entry = store.consortium_entry(&id)?;
        let Some((position, proposed)) = entry.filter(|(_, entry)| entry.propose().is_some())
        else {
            return Ok(None);
        };
        let history = store.consortium_history();
        let missing = || history.missing("", 0);
        // What is decided is found on disk, and that without the book's lock.
        let pending = store.consortium(|book| book.progress(&id));
        let outcome = match pending {
            Some(progress) => consortium::Outcome::Pending(progress),
            None => {
                let newest = consortium::History::newest(&history, IndexKey::Proposal(id));
                let entry = newest.ok_or_else(missing)?;
                consortium::Outcome::Decided(Entry::clone(&entry))
            }
        };
        let (mut votes, mut agreed) = (Vec::new(), None);
        let key = IndexKey::Proposal(id);
        store.consortium_entries(key, Order::OldestFirst, &mut |_, entry| {
            votes.extend(Vote::of(&entry).filter(|vote| vote.proposal == id));
            agreed = agreed.or_else(|| agreed_on(&entry, id));
            true
        })?;
        let body = proposal_body(&proposed, position, &outcome, agreed, &votes);
        Ok(Some(body))
    })
    .await
}

/// What endorsements of a proposal must name, if it was opened by this entry.
fn agreed_on(entry: &Entry, id: TransactionId) -> Option<TreeHash> {
    entry.effects().iter().find_map(|effect| match effect {
        Effect::Opened { proposal, agreed } if proposal.unwrap_or(entry.id()) == id => {
            Some(*agreed)
        }
        _ => None,
    })
}
