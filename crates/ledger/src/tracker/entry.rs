//! Entries: the tracker's transactions as blocks hold them.
//!
//! The text is canonical JSON, so that there is one text for one entry. It begins with the member
//! `book`, which no transaction of the asset ledger has. Commands keep the signed container exactly as
//! it came: anyone can verify it later, and decide it again.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;

use super::{
    Cause, Channel, Closing, Contract, Fact, KeyHash, Opening, Paid, Payload, Price, Record,
    Request, Settings, Settled,
    text::{Fields, Writer},
};
use crate::{OutputRef, TransactionId, block::BlockTime, canonical, json::Value};

/// Nesting of an entry's JSON.
const DEPTH_MAX: usize = 8;

/// A tracker transaction. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Entry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: TransactionId,
    text: Bytes,
    time: BlockTime,
    body: Body,
    records: Vec<Record>,
}

/// What an entry holds besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// A peer's command.
    Command {
        request: Request,
        mark: Option<Mark>,
        /// For command 524288, which has no record.
        park: Option<Park>,
    },
    /// Locks that passed.
    Expiry,
    /// Tokens that came.
    Deposit {
        transaction: TransactionId,
        /// Output index and units.
        outputs: Vec<(u32, u64)>,
    },
    /// Tokens that left.
    Payout {
        request: Request,
        mark: Option<Mark>,
        spent: Vec<OutputRef>,
        /// Output index and units of what came back.
        change: Option<(u32, u64)>,
    },
    /// The tracker's settings; `revision` counts them from 1.
    Settings { settings: Settings, revision: u64 },
}

/// Who signed alone, and with which nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) signer: KeyHash,
    /// Of version 2 messages.
    pub(super) nonce: Option<[u8; 16]>,
}

/// A deposited receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The channel as it was opened.
    pub channel: Channel,
    /// What is paid at the lock.
    pub settled: Settled,
}

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A peer's command.
    Command,
    /// Locks that passed.
    Expiry,
    /// Tokens that came.
    Deposit,
    /// Tokens that left.
    Payout,
    /// The tracker's settings.
    Settings,
}

/// Names under which an entry is looked up later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexKey<'a> {
    /// An address that tokens move from or to, or could; or a channel id, which cannot be an address.
    Object(&'a str),
    /// SHA-256 of the SubjectPublicKeyInfo of a key that it concerns.
    Owner([u8; 32]),
    /// `tx_type` of a record.
    Type(u8),
    /// The place of a record in the tracker's log.
    Sequence(u64),
    /// An idempotent request: SHA-256 of the signer's key hash and the `corrToken`.
    Request([u8; 32]),
}

/// The text is not an entry: what is missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tracker entry: {0}")]
pub struct MalformedEntry(pub(super) &'static str);

/// The name of an idempotent request.
pub(super) fn request_key(signer: &KeyHash, correlation: &str) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(&signer.0);
    context.update(correlation.as_bytes());
    let digest = context.finish();
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl EntryKind {
    /// The name in the text.
    pub const fn name(self) -> &'static str {
        match self {
            EntryKind::Command => "command",
            EntryKind::Expiry => "expiry",
            EntryKind::Deposit => "deposit",
            EntryKind::Payout => "payout",
            EntryKind::Settings => "settings",
        }
    }
}

impl Entry {
    pub(super) fn new(time: BlockTime, body: Body, records: Vec<Record>) -> Entry {
        let text = write(time, &body, &records);
        Entry(Arc::new(Inner {
            id: TransactionId(canonical::sha3(text.as_bytes())),
            text: Bytes::from(text),
            time,
            body,
            records,
        }))
    }

    /// Reads a stored text.
    ///
    /// # Errors
    /// [`MalformedEntry`] for anything but the one text of an entry.
    pub fn read(text: Bytes) -> Result<Entry, MalformedEntry> {
        let value =
            Value::parse(&text, DEPTH_MAX).map_err(|_| MalformedEntry("JSON without faults"))?;
        let fields = Fields::of(&value)?;
        if fields.string("book")? != "tracker" {
            return Err(MalformedEntry("book"));
        }
        let time = BlockTime(fields.number("time")?);
        let records = match fields.optional("records") {
            None => Vec::new(),
            Some(Value::Array(records)) => records
                .iter()
                .map(|record| read_record(Fields::of(record)?))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(MalformedEntry("records")),
        };
        let body = read_body(fields)?;
        let entry = Entry::new(time, body, records);
        if entry.0.text == text {
            Ok(entry)
        } else {
            Err(MalformedEntry("canonical text"))
        }
    }

    /// Its name: SHA3-256 of the text.
    pub fn id(&self) -> TransactionId {
        self.0.id
    }

    /// The text that is stored.
    pub fn text(&self) -> &Bytes {
        &self.0.text
    }

    /// The time of its block.
    pub fn time(&self) -> BlockTime {
        self.0.time
    }

    /// The lines of the tracker's log that it wrote.
    pub fn records(&self) -> &[Record] {
        &self.0.records
    }

    /// The request that it follows from.
    pub fn request(&self) -> Option<&Request> {
        match &self.0.body {
            Body::Command { request, .. } | Body::Payout { request, .. } => Some(request),
            _ => None,
        }
    }

    /// The receipt that it deposited.
    pub fn park(&self) -> Option<&Park> {
        match &self.0.body {
            Body::Command { park, .. } => park.as_ref(),
            _ => None,
        }
    }

    /// The settings that it made.
    pub fn settings(&self) -> Option<&Settings> {
        match &self.0.body {
            Body::Settings { settings, .. } => Some(settings),
            _ => None,
        }
    }

    /// The asset transaction that it goes with: the deposit, or the payout's TRANSFER.
    pub fn transfer(&self) -> Option<TransactionId> {
        match &self.0.body {
            Body::Deposit { transaction, .. } => Some(*transaction),
            Body::Payout { .. } => self.0.records.iter().find_map(|record| match &record.fact {
                Fact::Payout(paid) => Some(paid.transfer),
                _ => None,
            }),
            _ => None,
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> EntryKind {
        match &self.0.body {
            Body::Command { .. } => EntryKind::Command,
            Body::Expiry => EntryKind::Expiry,
            Body::Deposit { .. } => EntryKind::Deposit,
            Body::Payout { .. } => EntryKind::Payout,
            Body::Settings { .. } => EntryKind::Settings,
        }
    }

    pub(super) fn body(&self) -> &Body {
        &self.0.body
    }

    pub(super) fn mark(&self) -> Option<&Mark> {
        match &self.0.body {
            Body::Command { mark, .. } | Body::Payout { mark, .. } => mark.as_ref(),
            _ => None,
        }
    }

    /// Whether its request, sent again, is answered with this entry: the reply has the same bytes then
    /// (section 17.5).
    pub fn is_idempotent(&self) -> bool {
        self.request_key().is_some()
    }

    /// The name under which its request is found again, if that is idempotent.
    pub(super) fn request_key(&self) -> Option<[u8; 32]> {
        let (mark, request) = (self.mark()?, self.request()?);
        (mark.nonce.is_some() || request.idempotent)
            .then(|| request_key(&mark.signer, &request.correlation))
    }

    /// What it says about a channel, opened, parked or closed: all of them repeat the opening.
    pub(super) fn channel(&self, id: &str) -> Option<&Channel> {
        let parked = self.park().map(|park| &park.channel);
        let recorded = self.records().iter().rev().filter_map(Record::channel);
        recorded
            .chain(parked)
            .find(|channel| *channel.contract.channel == *id)
    }

    /// Every name under which it is looked up later, each once.
    pub fn index_keys(&self, each: &mut dyn FnMut(IndexKey<'_>)) {
        let mut keys = Vec::with_capacity(8 * self.0.records.len() + 4);
        for record in &self.0.records {
            keys.push(IndexKey::Sequence(record.seq));
            keys.push(IndexKey::Type(record.record_type().code()));
            for address in [&record.from, &record.to] {
                if !address.is_empty() {
                    keys.push(IndexKey::Object(address));
                }
            }
            match &record.fact {
                Fact::Payout(paid) => keys.push(IndexKey::Object(&paid.address)),
                Fact::OpenTransfer(channel) | Fact::CloseTransfer { channel, .. } => {
                    keys.push(IndexKey::Object(&channel.contract.channel));
                }
                _ => {}
            }
            keys.extend(record.owners().map(|owner| IndexKey::Owner(owner.0)));
        }
        if let Some(park) = self.park() {
            keys.push(IndexKey::Object(&park.channel.contract.channel));
            keys.push(IndexKey::Owner(park.channel.payer.0));
            keys.push(IndexKey::Owner(park.channel.payee.0));
        }
        if let Some(request) = self.request_key() {
            keys.push(IndexKey::Request(request));
        }
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().for_each(each);
    }
}

/// Bytes of most entries beside their records and their request.
const FRAME_BYTES: usize = 256;

/// Bytes of a request beside its texts, of which some are escaped.
const REQUEST_BYTES: usize = 256;

fn write(time: BlockTime, body: &Body, records: &[Record]) -> String {
    let request = match body {
        Body::Command { request, .. } | Body::Payout { request, .. } => {
            Some(write_request(request))
        }
        _ => None,
    };
    let records: Vec<String> = records.iter().map(write_record).collect();
    let bytes = records
        .iter()
        .chain(&request)
        .map(String::len)
        .sum::<usize>();
    let mut out = Writer::with_room(bytes + FRAME_BYTES);
    out.string("book", "tracker");
    let kind = match body {
        Body::Command { .. } => EntryKind::Command,
        Body::Expiry => EntryKind::Expiry,
        Body::Deposit { .. } => EntryKind::Deposit,
        Body::Payout { .. } => EntryKind::Payout,
        Body::Settings { .. } => EntryKind::Settings,
    };
    if let Body::Payout {
        change: Some((index, amount)),
        ..
    } = body
    {
        out.array("change", [(*index, *amount)], write_output);
    }
    out.string("kind", kind.name());
    let mark = match body {
        Body::Command { mark, .. } | Body::Payout { mark, .. } => mark.as_ref(),
        _ => None,
    };
    if let Some(nonce) = mark.and_then(|mark| mark.nonce) {
        out.string("nonce", &URL_SAFE_NO_PAD.encode(nonce));
    }
    if let Body::Deposit { outputs, .. } = body {
        out.array("outputs", outputs.iter().copied(), write_output);
    }
    if let Body::Command {
        park: Some(park), ..
    } = body
    {
        let mut members = Members::new();
        members.channel(&park.channel);
        members.settled(&park.settled);
        members
            .0
            .push(("opened", Member::Number(park.channel.opened)));
        members
            .0
            .push(("parent_tx_id", Member::Text(&park.channel.open_id)));
        members
            .0
            .push(("timelock", Member::Number(park.channel.timelock)));
        members
            .0
            .push(("from", Member::Text(&park.channel.contract.from)));
        members
            .0
            .push(("to", Member::Text(&park.channel.contract.to)));
        out.raw("park", &members.write());
    }
    if !records.is_empty() {
        out.array("records", &records, |out, record| out.push_str(record));
    }
    if let Some(request) = &request {
        out.raw("request", request);
    }
    if let Body::Settings { settings, revision } = body {
        out.number("revision", *revision);
        out.raw("settings", &settings.to_json());
    }
    if let Some(mark) = mark {
        out.string("signer", &mark.signer.to_string());
    }
    if let Body::Payout { spent, .. } = body {
        out.array("spent", spent, |out, output| {
            out.push_str(&format!("[\"{}\",{}]", output.transaction, output.index));
        });
    }
    out.number("time", time.0);
    if let Body::Deposit { transaction, .. } = body {
        out.string("transaction", &transaction.to_string());
    }
    out.finish()
}

fn write_output(out: &mut String, (index, amount): (u32, u64)) {
    out.push_str(&format!("[{index},\"{amount}\"]"));
}

fn write_request(request: &Request) -> String {
    let members: &[(&str, &str)] = match &request.payload {
        Payload::Single { message, pk, sign } => {
            &[("message", message), ("pk", pk), ("sign", sign)]
        }
        Payload::CoSigned {
            message,
            from_pk,
            from_sign,
            to_pk,
            to_sign,
        } => &[
            ("fromPK", from_pk),
            ("fromSign", from_sign),
            ("message", message),
            ("toPK", to_pk),
            ("toSign", to_sign),
        ],
    };
    let texts = members.iter().map(|(_, text)| text.len()).sum::<usize>();
    let mut payload = Writer::with_room(texts + REQUEST_BYTES);
    for (name, text) in members {
        payload.string(name, text);
    }
    let payload = payload.finish();
    let mut out = Writer::with_room(payload.len() + request.correlation.len() + REQUEST_BYTES);
    out.number("cmd", request.command);
    out.string("corrToken", &request.correlation);
    if request.idempotent {
        out.boolean("idem", true);
    }
    out.raw("payload", &payload);
    out.finish()
}

/// Members that are sorted before they are written.
struct Members<'r>(Vec<(&'static str, Member<'r>)>);

enum Member<'r> {
    Text(&'r str),
    Owned(String),
    Number(u64),
    Amount(u64),
}

impl<'r> Members<'r> {
    fn new() -> Members<'r> {
        Members(Vec::with_capacity(20))
    }

    fn price(&mut self, price: &Price) {
        self.0.push(("price_amount", Member::Amount(price.amount)));
        self.0.push((
            "price_quantum_power",
            Member::Number(u64::from(price.power)),
        ));
    }

    fn channel(&mut self, channel: &'r Channel) {
        let contract = &channel.contract;
        self.price(&contract.price);
        self.0
            .push(("contract_id", Member::Text(&contract.channel)));
        self.0
            .push(("planned_quantum_count", Member::Number(contract.planned)));
        self.key("from_owner", &channel.payer);
        self.key("to_owner", &channel.payee);
        if let Some(profit) = channel.profit {
            self.0.push(("profit", Member::Amount(profit)));
        }
    }

    fn settled(&mut self, settled: &Settled) {
        self.0.push(("amount", Member::Amount(settled.tokens)));
        self.0
            .push(("quantum_count", Member::Number(settled.count)));
        self.0.push(("volume", Member::Number(settled.volume)));
    }

    fn key(&mut self, name: &'static str, key: &KeyHash) {
        self.0.push((name, Member::Owned(key.to_string())));
    }

    fn write(mut self) -> String {
        self.0.sort_unstable_by_key(|(name, _)| *name);
        let mut out = Writer::new();
        for (name, member) in &self.0 {
            match member {
                Member::Text(text) => out.string(name, text),
                Member::Owned(text) => out.string(name, text),
                Member::Number(number) => out.number(name, *number),
                Member::Amount(amount) => out.amount(name, *amount),
            }
        }
        out.finish()
    }
}

fn write_record(record: &Record) -> String {
    let mut members = Members::new();
    members.0.extend([
        ("from", Member::Text(&record.from)),
        ("seq", Member::Number(record.seq)),
        ("timestamp", Member::Number(record.timestamp)),
        ("to", Member::Text(&record.to)),
        ("tx_id", Member::Text(&record.id)),
        (
            "tx_type",
            Member::Number(u64::from(record.record_type().code())),
        ),
    ]);
    match &record.fact {
        Fact::Init { amount } => members.0.push(("amount", Member::Amount(*amount))),
        Fact::OpenAddress(opening) => {
            members.price(&opening.price);
            members.key("owner", &opening.owner);
            members.0.extend([
                ("amount", Member::Amount(opening.amount)),
                ("derived", Member::Number(opening.derived)),
                ("timelock", Member::Number(opening.timelock)),
            ]);
        }
        Fact::OpenTransfer(channel) => {
            members.channel(channel);
            members
                .0
                .push(("timelock", Member::Number(channel.timelock)));
        }
        Fact::CloseTransfer {
            channel,
            settled,
            cause,
        } => {
            members.channel(channel);
            members.settled(settled);
            members.0.extend([
                ("cause", Member::Text(cause.name())),
                ("opened", Member::Number(channel.opened)),
                ("parent_tx_id", Member::Text(&channel.open_id)),
                ("timelock", Member::Number(channel.timelock)),
            ]);
        }
        Fact::CloseAddress(closing) => {
            members.key("owner", &closing.owner);
            members.0.extend([
                ("amount", Member::Amount(closing.amount)),
                ("cause", Member::Text(closing.cause.name())),
                ("parent_tx_id", Member::Text(&closing.open_id)),
                ("quantum_volume", Member::Number(closing.quantum_volume)),
                ("volume", Member::Number(closing.volume)),
            ]);
        }
        Fact::Payout(paid) => {
            members.key("owner", &paid.owner);
            members.0.extend([
                ("address", Member::Text(&paid.address)),
                ("amount", Member::Amount(paid.amount)),
                ("fact", Member::Amount(paid.fact)),
                ("pay_to", Member::Owned(paid.pay_to.to_string())),
                ("profit", Member::Amount(paid.profit)),
                ("transfer", Member::Owned(paid.transfer.to_string())),
            ]);
        }
    }
    members.write()
}

fn read_body(fields: Fields<'_>) -> Result<Body, MalformedEntry> {
    let mark = || -> Result<Option<Mark>, MalformedEntry> {
        if fields.optional("signer").is_none() {
            return Ok(None);
        }
        let nonce = match fields.optional("nonce") {
            None => None,
            Some(nonce) => {
                let text = nonce.as_str().ok_or(MalformedEntry("nonce"))?;
                Some(read_nonce(text).ok_or(MalformedEntry("nonce"))?)
            }
        };
        Ok(Some(Mark {
            signer: fields.key("signer")?,
            nonce,
        }))
    };
    Ok(match fields.string("kind")? {
        "command" => Body::Command {
            request: read_request(fields.object("request")?)?,
            mark: mark()?,
            park: match fields.optional("park") {
                None => None,
                Some(park) => {
                    let park = Fields::of(park)?;
                    let opened = park.number("opened")?;
                    Some(Park {
                        channel: read_channel(park, opened, park.shared("parent_tx_id")?)?,
                        settled: read_settled(park)?,
                    })
                }
            },
        },
        "expiry" => Body::Expiry,
        "deposit" => Body::Deposit {
            transaction: TransactionId(fields.hash("transaction")?),
            outputs: read_outputs(fields.array("outputs")?).ok_or(MalformedEntry("outputs"))?,
        },
        "payout" => Body::Payout {
            request: read_request(fields.object("request")?)?,
            mark: mark()?,
            spent: fields
                .array("spent")?
                .iter()
                .map(read_reference)
                .collect::<Option<_>>()
                .ok_or(MalformedEntry("spent"))?,
            change: match fields.optional("change") {
                None => None,
                Some(_) => {
                    let outputs =
                        read_outputs(fields.array("change")?).ok_or(MalformedEntry("change"))?;
                    match outputs[..] {
                        [output] => Some(output),
                        _ => return Err(MalformedEntry("change")),
                    }
                }
            },
        },
        "settings" => Body::Settings {
            settings: Settings::from_json(fields.get("settings")?)?,
            revision: fields.number("revision")?,
        },
        _ => return Err(MalformedEntry("kind")),
    })
}

/// Reads the text of sixteen bytes.
pub(super) fn read_nonce(text: &str) -> Option<[u8; 16]> {
    let mut nonce = [0; 16];
    // Sixteen bytes are 22 characters; the decoder wants room for any text of that length.
    if text.len() != 22 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    nonce.copy_from_slice(bytes.get(..16).filter(|_| bytes.len() == 16)?);
    Some(nonce)
}

fn read_outputs(outputs: &[Value]) -> Option<Vec<(u32, u64)>> {
    let one = |output: &Value| match output.as_array()? {
        [index, amount] => Some((
            u32::try_from(index.as_u64()?).ok()?,
            super::text::amount(amount.as_str()?)?,
        )),
        _ => None,
    };
    outputs.iter().map(one).collect()
}

fn read_reference(reference: &Value) -> Option<OutputRef> {
    match reference.as_array()? {
        [transaction, index] => Some(OutputRef {
            transaction: transaction.as_str()?.parse().ok()?,
            index: u32::try_from(index.as_u64()?).ok()?,
        }),
        _ => None,
    }
}

fn read_request(fields: Fields<'_>) -> Result<Request, MalformedEntry> {
    let payload = fields.object("payload")?;
    let text = |name| payload.string(name).map(str::to_owned);
    let payload = if payload.optional("pk").is_some() {
        Payload::Single {
            message: text("message")?,
            pk: text("pk")?,
            sign: text("sign")?,
        }
    } else {
        Payload::CoSigned {
            message: text("message")?,
            from_pk: text("fromPK")?,
            from_sign: text("fromSign")?,
            to_pk: text("toPK")?,
            to_sign: text("toSign")?,
        }
    };
    Ok(Request {
        command: fields.number("cmd")?,
        correlation: fields.string("corrToken")?.to_owned(),
        idempotent: match fields.optional("idem") {
            None => false,
            Some(_) => fields.boolean("idem")?,
        },
        payload,
    })
}

fn read_price(fields: Fields<'_>) -> Result<Price, MalformedEntry> {
    Ok(Price {
        amount: fields.amount("price_amount")?,
        power: fields.small("price_quantum_power")?,
    })
}

fn read_channel(
    fields: Fields<'_>,
    opened: u64,
    open_id: Arc<str>,
) -> Result<Channel, MalformedEntry> {
    Ok(Channel {
        contract: Contract {
            channel: fields.shared("contract_id")?,
            from: fields.shared("from")?,
            to: fields.shared("to")?,
            price: read_price(fields)?,
            planned: fields.number("planned_quantum_count")?,
        },
        payer: fields.key("from_owner")?,
        payee: fields.key("to_owner")?,
        opened,
        timelock: fields.number("timelock")?,
        open_id,
        profit: match fields.optional("profit") {
            None => None,
            Some(_) => Some(fields.amount("profit")?),
        },
    })
}

fn read_settled(fields: Fields<'_>) -> Result<Settled, MalformedEntry> {
    Ok(Settled {
        count: fields.number("quantum_count")?,
        tokens: fields.amount("amount")?,
        volume: fields.number("volume")?,
    })
}

fn read_cause(fields: Fields<'_>) -> Result<Cause, MalformedEntry> {
    let name = fields.string("cause")?;
    [Cause::Peers, Cause::Expiry, Cause::Parked]
        .into_iter()
        .find(|cause| cause.name() == name)
        .ok_or(MalformedEntry("cause"))
}

fn read_record(fields: Fields<'_>) -> Result<Record, MalformedEntry> {
    let id = fields.shared("tx_id")?;
    let timestamp = fields.number("timestamp")?;
    let fact = match fields.number("tx_type")? {
        1 => Fact::Init {
            amount: fields.amount("amount")?,
        },
        code @ (2 | 4) => Fact::OpenAddress(Opening {
            spend: code == 4,
            amount: fields.amount("amount")?,
            owner: fields.key("owner")?,
            price: read_price(fields)?,
            timelock: fields.number("timelock")?,
            derived: fields.number("derived")?,
        }),
        8 => Fact::OpenTransfer(read_channel(fields, timestamp, id.clone())?),
        16 => Fact::CloseTransfer {
            channel: read_channel(
                fields,
                fields.number("opened")?,
                fields.shared("parent_tx_id")?,
            )?,
            settled: read_settled(fields)?,
            cause: read_cause(fields)?,
        },
        code @ (32 | 64) => Fact::CloseAddress(Closing {
            spend: code == 32,
            amount: fields.amount("amount")?,
            owner: fields.key("owner")?,
            quantum_volume: fields.number("quantum_volume")?,
            volume: fields.number("volume")?,
            open_id: fields.shared("parent_tx_id")?,
            cause: read_cause(fields)?,
        }),
        128 => Fact::Payout(Paid {
            address: fields.shared("address")?,
            owner: fields.key("owner")?,
            pay_to: fields
                .string("pay_to")?
                .parse()
                .map_err(|_| MalformedEntry("pay_to"))?,
            amount: fields.amount("amount")?,
            fact: fields.amount("fact")?,
            profit: fields.amount("profit")?,
            transfer: TransactionId(fields.hash("transfer")?),
        }),
        _ => return Err(MalformedEntry("tx_type")),
    };
    Ok(Record {
        seq: fields.number("seq")?,
        id,
        timestamp,
        from: fields.shared("from")?,
        to: fields.shared("to")?,
        fact,
    })
}

impl PartialEq for Entry {
    /// The id says it all.
    fn eq(&self, other: &Entry) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Entry {}
