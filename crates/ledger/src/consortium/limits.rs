//! Every bound of the book, with its unit and its reason.

/// Members of a network, present and removed: each costs about a kilobyte of memory for ever.
pub const MEMBERS_MAX: usize = 1_024;

/// Members that share one ledger: each sends a transaction for every proposal, so a larger group
/// spends the log on agreeing.
pub const GROUP_MAX: usize = 128;

/// Members that a group has at least: an agreement of one is none (section 8.2, W17).
pub const GROUP_MIN: usize = 2;

/// Keys that one member can have had: a rotation a month for eight years, and one to start with.
pub const KEYS_PER_MEMBER_MAX: usize = 97;

/// Entries of one proposal.
pub const ENTRIES_PER_PROPOSAL_MAX: usize = 256;

/// Bytes of one entry's canonical text: a waybill with hundreds of attachments named in it. The
/// documents themselves stand elsewhere.
pub const ENTRY_BYTES_MAX: usize = 128 * 1_024;

/// Bytes of one request, which is signed as a whole, and so of one proposal.
pub const REQUEST_BYTES_MAX: usize = 1_024 * 1_024;

/// Nesting of a request: its own three levels, and as many for an entry as any document needs.
pub const DEPTH_MAX: usize = 64;

/// Ledgers of one proposal. A train of containers has fewer.
pub const LEDGERS_PER_PROPOSAL_MAX: usize = 128;

/// Entries times ledgers of one proposal: each is one key of the index, written with one block.
pub const SEQUENCES_PER_PROPOSAL_MAX: usize = 4_096;

/// Bytes of entries times ledgers of one proposal: so much is hashed, because an entry has another number
/// in each ledger, and that a few times on its way into a block. 16 MiB are some 20 ms, and as many as the
/// largest entry takes in [`LEDGERS_PER_PROPOSAL_MAX`] ledgers.
pub const SEQUENCE_BYTES_PER_PROPOSAL_MAX: usize = LEDGERS_PER_PROPOSAL_MAX * ENTRY_BYTES_MAX;

/// Proposals for one ledger, the open one and those that wait behind it.
pub const QUEUE_MAX: usize = 64;

/// The share of [`QUEUE_MAX`] that one proposer may take in one queue is one part in so many: in the
/// network's own, whoever filled it would keep his own removal out.
pub const QUEUE_SHARES: usize = 8;

/// Proposals, open and waiting, of all members together. They are in memory.
pub const PENDING_MAX: usize = 65_536;

/// Bytes of all proposals, open and waiting. They are in memory.
pub const PENDING_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// The share of [`PENDING_MAX`] and [`PENDING_BYTES_MAX`] that one member may take is one part in so
/// many, so that nobody keeps the others out.
pub const PENDING_SHARES: usize = 4;

/// Characters of a ledger's name (section 1.2).
pub const LEDGER_NAME_CHARS_MAX: usize = 512;

/// Bytes of the name that a proposer gives a request (`@id`): a UUID needs 36.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// Bytes of the reason of a refusal: a paragraph for the proposer's user.
pub const REASON_BYTES_MAX: usize = 2_048;

/// Bytes of each text of a member's card: a logo or an icon is named, not held.
pub const CARD_TEXT_BYTES_MAX: usize = 1_024;

/// The longest time that a proposal may stay open, in milliseconds, unless the network says
/// otherwise: ten minutes (section 2.3).
pub const DEADLINE_MS_DEFAULT: u64 = 10 * 60 * 1_000;

/// The longest time that a network may let proposals stay open, in milliseconds: 31 days, enough for
/// people who are asked on paper.
pub const DEADLINE_MS_MAX: u64 = 31 * 24 * 60 * 60 * 1_000;

/// How far the time inside a signature may lie ahead of block time, in milliseconds: the clocks of
/// two organisations differ.
pub const CLOCK_AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// How far the time inside a signature may lie behind block time, in milliseconds: a day covers an
/// operator's signing at a desk, and a signature lifted from an old proposal is older.
pub const CLOCK_BEHIND_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
