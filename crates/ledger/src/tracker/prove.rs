//! Proving requests: everything of check G0 that needs no state (wallet tracker, sections 3.4, 8 and
//! 17.2).

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{
    Act, Address, AddressKind, Agreement, Ask, COUNT_MAX, CoSigned, Code, Command, Container,
    Contract, Fresh, Handshake, Key, KeyHash, Listing, PAGE_SIZE, PAGE_SIZE_MAX, Payload, Price,
    Proven, Query, Refusal, Request, Settled, Suites, TOPICS_MAX, Topic, TrackerId, command,
    container_of,
    entry::read_nonce,
    key::{KeyRing, decode_signature},
    text,
};
use crate::{
    AMOUNT_MAX, PublicKey, SignatureChecker,
    block::BlockTime,
    json::{Object, Value},
    signature::can_sign,
};

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};

/// Nesting of a message's JSON. What is known needs three; what is not is passed over.
const DEPTH_MAX: usize = 16;

/// Characters of a cursor's or a subscription's name.
const NAME_BYTES_MAX: usize = 128;

/// Proves requests. Remembers parsed keys; one per thread.
pub struct Prover {
    suites: Suites,
    trackers: Vec<TrackerId>,
    keys: KeyRing,
    checker: SignatureChecker,
}

/// Version 2 members of a message, as far as they were there.
struct Version2 {
    fresh: Option<Fresh>,
}

/// The parsed keys of a container.
enum Signers {
    One(Arc<Key>),
    Two { payer: Arc<Key>, payee: Arc<Key> },
}

impl Prover {
    /// A prover that takes `suites` for the tracker with these ids, which version 2 messages name: one
    /// for each of its keys.
    pub fn new(suites: Suites, trackers: impl Into<Vec<TrackerId>>) -> Prover {
        Prover {
            suites,
            trackers: trackers.into(),
            keys: KeyRing::new(),
            checker: SignatureChecker::new(),
        }
    }

    /// Proves one request.
    ///
    /// # Errors
    /// The first failure in the order of section 8: `bad_command`, `bad_payload`, `bad_key`,
    /// `bad_signature`, then what is wrong with the message, values last.
    pub fn prove(&mut self, request: Request) -> Result<Proven, Refusal> {
        let signers = self.signers(&request)?;
        for (key, signature) in signed_by(&request, &signers) {
            if !key.verify(
                &self.suites,
                request.payload.message().as_bytes(),
                signature,
            ) {
                return Err(bad_signature());
            }
        }
        self.read(request, &signers)
    }

    /// Proves many requests: for each what [`Prover::prove`] gives. Signatures of Ed25519 are checked
    /// in one batch; `random` gives its coefficients, and nobody who makes signatures may be able to
    /// foretell it.
    pub fn prove_batch(
        &mut self,
        requests: Vec<Request>,
        random: &mut impl CryptoRng,
    ) -> Vec<Result<Proven, Refusal>> {
        let signers: Vec<_> = requests
            .iter()
            .map(|request| self.signers(request))
            .collect();
        // Whether every signature of a request is sound, as far as it is known.
        let mut sound = vec![true; requests.len()];
        let mut batch = Vec::new();
        let mut places = Vec::new();
        for (place, (request, signers)) in requests.iter().zip(&signers).enumerate() {
            let Ok(signers) = signers else { continue };
            let message = request.payload.message().as_bytes();
            for (key, signature) in signed_by(request, signers) {
                match key.as_ed25519() {
                    Some(key) => match decode_signature(signature).map(<[u8; 64]>::try_from) {
                        Some(Ok(signature)) => {
                            batch.push((*key, signature, message));
                            places.push(place);
                        }
                        _ => sound[place] = false,
                    },
                    None => {
                        sound[place] = sound[place] && key.verify(&self.suites, message, signature);
                    }
                }
            }
        }
        let verified = self.checker.verify_messages(&batch, random);
        for (place, verified) in places.into_iter().zip(verified) {
            sound[place] &= verified;
        }
        requests
            .into_iter()
            .zip(signers)
            .zip(sound)
            .map(|((request, signers), sound)| {
                let signers = signers?;
                if sound {
                    self.read(request, &signers)
                } else {
                    Err(bad_signature())
                }
            })
            .collect()
    }

    /// Reads a request that a durable block holds: its signatures were checked before it was stored.
    /// Whoever does not trust that asks [`Prover::prove`].
    ///
    /// # Errors
    /// As [`Prover::prove`], but for signatures.
    pub fn restore(&mut self, request: Request) -> Result<Proven, Refusal> {
        let signers = self.signers(&request)?;
        self.read(request, &signers)
    }

    /// The keys of a container that fits its command.
    fn signers(&mut self, request: &Request) -> Result<Signers, Refusal> {
        let container =
            container_of(request.command).ok_or_else(|| bad_command(request.command))?;
        let mut key = |pem: &str| -> Result<Arc<Key>, Refusal> {
            let key = self.keys.key(pem)?;
            if self.suites.allow(key.suite()) {
                Ok(key)
            } else {
                Err(Refusal::new(
                    Code::BadKey,
                    format!("keys of suite {} are not allowed", key.suite().name()),
                ))
            }
        };
        match (&request.payload, container) {
            (Payload::Single { pk, .. }, Container::Single) => Ok(Signers::One(key(pk)?)),
            (Payload::CoSigned { from_pk, to_pk, .. }, Container::CoSigned) => Ok(Signers::Two {
                payer: key(from_pk)?,
                payee: key(to_pk)?,
            }),
            _ => Err(Refusal::new(
                Code::BadPayload,
                format!("command {} is {container}", request.command),
            )),
        }
    }

    /// Reads the message of a request whose signatures are sound.
    fn read(&self, request: Request, signers: &Signers) -> Result<Proven, Refusal> {
        match (&request.payload, signers) {
            (Payload::Single { message, pk, .. }, Signers::One(signer)) => {
                let bare = matches!(
                    request.command,
                    command::HANDSHAKE | command::OPEN_INCOME | command::OPEN_SPEND
                );
                // The first character tells the versions apart: no PEM begins with a brace.
                if bare && !message.starts_with('{') {
                    if message != pk {
                        return Err(Refusal::new(Code::BadMessage, "invalid message"));
                    }
                    return self.single(request, signer.clone(), None);
                }
                let value = parse(message)?;
                let members = Message::of(&value)?;
                if members.text("pk")? != pk {
                    return Err(key_mismatch());
                }
                let version = self.version(&request, members)?;
                if bare && version.is_none() {
                    return Err(Refusal::new(Code::BadMessage, "invalid message"));
                }
                let fresh = version.and_then(|version| version.fresh);
                self.read_single(request, members, signer.clone(), fresh)
            }
            (
                Payload::CoSigned {
                    message,
                    from_pk,
                    to_pk,
                    ..
                },
                Signers::Two { payer, payee },
            ) => {
                let value = parse(message)?;
                let members = Message::of(&value)?;
                if members.text("fromPK")? != from_pk || members.text("toPK")? != to_pk {
                    return Err(key_mismatch());
                }
                self.version(&request, members)?;
                let act = read_cosigned(request.command, members, payer, payee)?;
                Ok(Proven::Command(Command {
                    request,
                    act,
                    fresh: None,
                }))
            }
            _ => Err(Refusal::new(Code::BadPayload, "another container")),
        }
    }

    /// The version 2 members; `None` for a message of version 1. They bind the message to its command,
    /// its token and its tracker.
    fn version(
        &self,
        request: &Request,
        members: Message<'_>,
    ) -> Result<Option<Version2>, Refusal> {
        if !is_version_2(members)? {
            return Ok(None);
        }
        let signed_for = members.number("cmd")?;
        // A receipt is signed as a close; whoever holds it may deposit it instead.
        let receipt = request.command == command::PARK && signed_for == command::CLOSE_TRANSFER;
        if signed_for != request.command && !receipt {
            return Err(bad_message("the message was signed for another command"));
        }
        // The tracker's id is learnt by the handshake.
        if request.command != command::HANDSHAKE || members.0.get("tracker").is_some() {
            let id = read_tracker(members)?;
            if !self.trackers.iter().any(|tracker| tracker.0[..] == id) {
                return Err(bad_message("the message was signed for another tracker"));
            }
        }
        // The channel id is the nonce of what two keys sign.
        if matches!(request.payload, Payload::CoSigned { .. }) {
            return Ok(Some(Version2 { fresh: None }));
        }
        if members.text("corrToken")? != request.correlation {
            return Err(bad_message("the message was signed for another corrToken"));
        }
        let nonce = read_nonce(members.text("nonce")?.trim_end_matches('='))
            .ok_or_else(|| bad_message("nonce is not 16 bytes in base64url"))?;
        Ok(Some(Version2 {
            fresh: Some(Fresh {
                time: BlockTime(members.number("ts")?),
                nonce,
            }),
        }))
    }

    fn read_single(
        &self,
        request: Request,
        members: Message<'_>,
        signer: Arc<Key>,
        fresh: Option<Fresh>,
    ) -> Result<Proven, Refusal> {
        let ask = match request.command {
            command::HANDSHAKE | command::OPEN_INCOME | command::OPEN_SPEND => {
                return self.single(request, signer, fresh);
            }
            command::CLOSE_INCOME => {
                let address = Address::parse_as(members.text("address")?, AddressKind::Income)?;
                return Ok(sole(request, Act::CloseIncome(address, signer), fresh));
            }
            command::CLOSE_SPEND => {
                let address = Address::parse_as(members.text("address")?, AddressKind::Spend)?;
                return Ok(sole(request, Act::CloseSpend(address, signer), fresh));
            }
            command::PAY_OUT => {
                let act = read_payout(&request, members, signer, fresh.is_some())?;
                return Ok(sole(request, act, fresh));
            }
            command::INCOME_STATE => Ask::Address(Address::parse_as(
                members.text("address")?,
                AddressKind::Income,
            )?),
            command::SPEND_STATE => Ask::Address(Address::parse_as(
                members.text("address")?,
                AddressKind::Spend,
            )?),
            command::COMMON_STATE => Ask::Common(Address::parse_as(
                members.text("address")?,
                AddressKind::Common,
            )?),
            command::TRANSFER_STATE => Ask::Channel(members.text("channelId")?.to_owned()),
            command::FIRST_TRANSACTIONS => Ask::First(read_listing(members)?),
            command::NEXT_TRANSACTIONS => {
                let page = members.number("page")?;
                if page == 0 {
                    return Err(bad_message("page is at least 1"));
                }
                Ask::Next {
                    cursor: members.name("cursorId")?,
                    page,
                }
            }
            command::UPDATE_CURSOR => Ask::Touch {
                cursor: members.name("cursorId")?,
            },
            command::SUBSCRIBE => read_subscription(members)?,
            command::UNSUBSCRIBE => Ask::Unsubscribe {
                subscription: members.name("subId")?,
            },
            other => return Err(bad_command(other)),
        };
        Ok(Proven::Query(Query {
            command: request.command,
            correlation: request.correlation,
            signer,
            ask,
            fresh,
        }))
    }

    /// Commands 1, 2 and 4.
    fn single(
        &self,
        request: Request,
        signer: Arc<Key>,
        fresh: Option<Fresh>,
    ) -> Result<Proven, Refusal> {
        match request.command {
            command::HANDSHAKE => Ok(Proven::Handshake(Handshake {
                correlation: request.correlation,
                signer,
                fresh,
            })),
            command::OPEN_INCOME => Ok(sole(request, Act::OpenIncome(signer), fresh)),
            command::OPEN_SPEND => Ok(sole(request, Act::OpenSpend(signer), fresh)),
            other => Err(bad_command(other)),
        }
    }
}

fn sole(request: Request, act: Act, fresh: Option<Fresh>) -> Proven {
    Proven::Command(Command {
        request,
        act,
        fresh,
    })
}

/// The keys and signatures of a request.
fn signed_by<'r>(
    request: &'r Request,
    signers: &'r Signers,
) -> impl Iterator<Item = (&'r Key, &'r str)> {
    let (first, second): (_, Option<(&Key, &str)>) = match (&request.payload, signers) {
        (Payload::Single { sign, .. }, Signers::One(key)) => (Some((&**key, &**sign)), None),
        (
            Payload::CoSigned {
                from_sign, to_sign, ..
            },
            Signers::Two { payer, payee },
        ) => (Some((&**payer, &**from_sign)), Some((&**payee, &**to_sign))),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

fn bad_command(code: u64) -> Refusal {
    Refusal::new(Code::BadCommand, format!("invalid message command: {code}"))
}

fn bad_signature() -> Refusal {
    Refusal::new(Code::BadSignature, "invalid signature")
}

fn key_mismatch() -> Refusal {
    Refusal::new(Code::KeyMismatch, "invalid message content")
}

fn bad_message(what: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadMessage, what)
}

fn parse(message: &str) -> Result<Value, Refusal> {
    Value::parse(message.as_bytes(), DEPTH_MAX)
        .map_err(|error| bad_message(format!("invalid message: {error}")))
}

/// The members of a signed message.
#[derive(Clone, Copy)]
struct Message<'v>(&'v Object);

impl<'v> Message<'v> {
    fn of(value: &'v Value) -> Result<Message<'v>, Refusal> {
        value
            .as_object()
            .map(Message)
            .ok_or_else(|| bad_message("the message is not a JSON object"))
    }

    fn get(&self, name: &str) -> Result<&'v Value, Refusal> {
        self.0
            .get(name)
            .ok_or_else(|| bad_message(format!("{name} is missing")))
    }

    fn text(&self, name: &str) -> Result<&'v str, Refusal> {
        self.get(name)?
            .as_str()
            .ok_or_else(|| bad_message(format!("{name} is not a string")))
    }

    /// The name of something that this tracker named.
    fn name(&self, name: &str) -> Result<String, Refusal> {
        let text = self.text(name)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(bad_message(format!("{name} is too long")));
        }
        Ok(text.to_owned())
    }

    fn number(&self, name: &str) -> Result<u64, Refusal> {
        self.get(name)?
            .as_u64()
            .ok_or_else(|| bad_message(format!("{name} is not a whole number")))
    }

    /// A count of quanta or bytes.
    fn count(&self, name: &str) -> Result<u64, Refusal> {
        let count = self.number(name)?;
        if count > COUNT_MAX {
            return Err(Refusal::new(
                Code::Overflow,
                format!("{name} exceeds 53 bits"),
            ));
        }
        Ok(count)
    }

    fn amount(&self, name: &str) -> Result<u64, Refusal> {
        text::amount(self.text(name)?)
            .ok_or_else(|| Refusal::new(Code::BadAmount, format!("{name} is not an amount")))
    }
}

/// What a co-signed text says, its addresses read.
struct Said {
    contract: Contract,
    settled: Option<Settled>,
    from: Address,
    to: Address,
}

/// The members of commands 8, 16 and 524288, checked as far as it can be without state: section 8.5,
/// checks 2 and 3, and section 8.6, checks 1 to 5.
fn read_terms(code: u64, members: Message<'_>) -> Result<Said, Refusal> {
    let power = members.number("priceQuantumPower")?;
    let contract = Contract {
        channel: members.text("channelId")?.into(),
        from: members.text("fromAddress")?.into(),
        to: members.text("toAddress")?.into(),
        price: Price {
            amount: members.amount("priceTokens")?,
            power: u8::try_from(power).unwrap_or(u8::MAX),
        },
        planned: members.count("plannedQuantumCount")?,
    };
    let settled = match code {
        command::OPEN_TRANSFER => None,
        _ => Some(Settled {
            count: members.count("quantumCount")?,
            tokens: members.amount("tokens")?,
            volume: members.count("volume")?,
        }),
    };
    contract.check()?;
    if let Some(settled) = &settled {
        contract.check_settled(settled)?;
    }
    let from = Address::parse_as(&contract.from, AddressKind::Spend)?;
    let to = Address::parse(&contract.to)?;
    if to.kind() == AddressKind::Spend {
        return Err(Refusal::new(
            Code::BadAddress,
            "a spend address cannot be paid",
        ));
    }
    Ok(Said {
        contract,
        settled,
        from,
        to,
    })
}

fn read_cosigned(
    code: u64,
    members: Message<'_>,
    payer: &Arc<Key>,
    payee: &Arc<Key>,
) -> Result<Act, Refusal> {
    let said = read_terms(code, members)?;
    let signed = CoSigned {
        contract: said.contract,
        from: said.from,
        to: said.to,
        payer: payer.clone(),
        payee: payee.clone(),
    };
    Ok(match (code, said.settled) {
        (command::CLOSE_TRANSFER, Some(settled)) => Act::CloseTransfer(signed, settled),
        (command::PARK, Some(settled)) => Act::Park(signed, settled),
        _ => Act::OpenTransfer(signed),
    })
}

/// A co-signed text, read by one of the peers.
pub(super) struct CoSignedText {
    pub(super) contract: Contract,
    pub(super) settled: Option<Settled>,
    from_pk: String,
    to_pk: String,
    tracker: Option<TrackerId>,
}

impl CoSignedText {
    pub(super) fn agreement(&self) -> Agreement {
        Agreement {
            contract: self.contract.clone(),
            from_pk: self.from_pk.clone(),
            to_pk: self.to_pk.clone(),
            tracker: self.tracker,
        }
    }
}

/// Reads an open or close text as the tracker would.
pub(super) fn read_text(text: &str, code: u64) -> Result<CoSignedText, Refusal> {
    let value = parse(text)?;
    let members = Message::of(&value)?;
    let tracker = if is_version_2(members)? {
        if members.number("cmd")? != code {
            return Err(bad_message("the message was signed for another command"));
        }
        let id = read_tracker(members)?.try_into();
        let id = id.map_err(|_| bad_message("tracker is not a hash of 32 bytes"))?;
        Some(KeyHash(id))
    } else {
        None
    };
    let said = read_terms(code, members)?;
    Ok(CoSignedText {
        contract: said.contract,
        settled: said.settled,
        from_pk: members.text("fromPK")?.to_owned(),
        to_pk: members.text("toPK")?.to_owned(),
        tracker,
    })
}

/// The channel that a co-signed request is about.
pub(super) fn channel_of(request: &Request) -> Option<String> {
    let value = parse(request.payload.message()).ok()?;
    let members = Message::of(&value).ok()?;
    Some(members.text("channelId").ok()?.to_owned())
}

fn is_version_2(members: Message<'_>) -> Result<bool, Refusal> {
    match members.0.get("v").map(Value::as_u64) {
        None | Some(Some(1)) => Ok(false),
        Some(Some(2)) => Ok(true),
        Some(_) => Err(bad_message("v is neither 1 nor 2")),
    }
}

fn read_tracker(members: Message<'_>) -> Result<Vec<u8>, Refusal> {
    let named = members.text("tracker")?;
    URL_SAFE_NO_PAD
        .decode(named)
        .or_else(|_| URL_SAFE.decode(named))
        .map_err(|_| bad_message("tracker is not base64url"))
}

/// The message of command 2097152.
fn read_payout(
    request: &Request,
    members: Message<'_>,
    signer: Arc<Key>,
    fresh: bool,
) -> Result<Act, Refusal> {
    if !fresh {
        return Err(bad_message("a payout is asked for by a version 2 message"));
    }
    let address = Address::parse_as(members.text("address")?, AddressKind::Common)?;
    let Payload::Single { pk, .. } = &request.payload else {
        return Err(Refusal::new(Code::BadPayload, "another container"));
    };
    if Address::common(pk).tail() != address.tail() {
        return Err(Refusal::new(
            Code::NotOwner,
            "the address is not derived from the signer's key",
        ));
    }
    let pay_to: PublicKey = members
        .text("payTo")?
        .parse()
        .map_err(|_| bad_message("payTo is not the base58 text of an Ed25519 key"))?;
    if !can_sign(&pay_to) {
        return Err(bad_message("nobody can sign with the key payTo"));
    }
    let amount = members.amount("amount")?;
    if amount == 0 || amount > AMOUNT_MAX {
        return Err(Refusal::new(
            Code::BadAmount,
            format!("a payout is 1 to {AMOUNT_MAX} tokens"),
        ));
    }
    Ok(Act::PayOut {
        address,
        signer,
        pay_to,
        amount,
    })
}

fn read_listing(members: Message<'_>) -> Result<Listing, Refusal> {
    let mut listing = Listing {
        page: 1,
        page_size: PAGE_SIZE,
        ascending: false,
        tx_type: None,
        channel: None,
        from: None,
        to: None,
        status: None,
    };
    if let Some(limits) = present(members, "limits") {
        let limits = Message::of(limits).map_err(|_| bad_message("limits is not an object"))?;
        if let Some(page) = present(limits, "page") {
            let page = page
                .as_u64()
                .ok_or_else(|| bad_message("page is not a whole number"))?;
            listing.page = page.max(1);
        }
        match present(limits, "pageSize") {
            None => {}
            Some(Value::Integer(size)) if size.is_negative() => listing.page_size = PAGE_SIZE_MAX,
            Some(Value::Integer(size)) => {
                listing.page_size = match size.as_u64() {
                    Some(0) => PAGE_SIZE,
                    Some(size) => size.min(PAGE_SIZE_MAX),
                    None => PAGE_SIZE_MAX,
                };
            }
            Some(_) => return Err(bad_message("pageSize is not a whole number")),
        }
    }
    if let Some(order) = present(members, "order") {
        listing.ascending = order.as_u64() == Some(1);
    }
    if let Some(fields) = present(members, "fields") {
        let fields = Message::of(fields).map_err(|_| bad_message("fields is not an object"))?;
        let value = |name: &str| -> Result<Option<&Value>, Refusal> {
            match present(fields, name) {
                None => Ok(None),
                Some(field) => Message::of(field)
                    .and_then(|field| field.get("value"))
                    .map(Some)
                    .map_err(|_| bad_message(format!("fields.{name} has no value"))),
            }
        };
        let number = |name: &str| -> Result<Option<u64>, Refusal> {
            let wrong = || bad_message(format!("fields.{name} is not a whole number"));
            value(name)?
                .map(|v| v.as_u64().ok_or_else(wrong))
                .transpose()
        };
        let text = |name: &str| -> Result<Option<String>, Refusal> {
            let wrong = || bad_message(format!("fields.{name} is not a string"));
            let text = value(name)?
                .map(|v| v.as_str().ok_or_else(wrong))
                .transpose()?;
            Ok(text.map(str::to_owned))
        };
        listing.tx_type = number("tx_type")?;
        listing.status = number("status")?;
        listing.channel = text("channel_id")?;
        listing.from = text("from")?;
        listing.to = text("to")?;
    }
    Ok(listing)
}

/// A member that is there and not null.
fn present<'v>(members: Message<'v>, name: &str) -> Option<&'v Value> {
    members.0.get(name).filter(|value| !value.is_null())
}

fn read_subscription(members: Message<'_>) -> Result<Ask, Refusal> {
    let topics = members
        .get("topics")?
        .as_array()
        .ok_or_else(|| bad_message("topics is not a list"))?;
    if topics.is_empty() || topics.len() > TOPICS_MAX {
        return Err(bad_message(format!(
            "a subscription has 1 to {TOPICS_MAX} topics"
        )));
    }
    let one = |topic: &Value| -> Result<Topic, Refusal> {
        let topic = Message::of(topic).map_err(|_| bad_message("a topic is not an object"))?;
        if topic.0.len() != 1 {
            return Err(bad_message("a topic has one member"));
        }
        if topic.0.get("address").is_some() {
            let address = Address::parse(topic.text("address")?)?;
            Ok(Topic::Address(address.as_str().to_owned()))
        } else if topic.0.get("channelId").is_some() {
            Ok(Topic::Channel(topic.name("channelId")?))
        } else {
            Ok(Topic::Owner(Key::read(topic.text("pk")?)?.hash()))
        }
    };
    Ok(Ask::Subscribe {
        topics: topics.iter().map(one).collect::<Result<_, _>>()?,
        from: match present(members, "fromSeq") {
            None => None,
            Some(_) => Some(members.number("fromSeq")?),
        },
    })
}
