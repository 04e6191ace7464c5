//! The tracker's commands.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use daybook_ledger::{
    PublicKey,
    tracker::{
        Address, AddressKind, KeyHash, command,
        draft::{self, Version2},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    AddressState, Capabilities, ChannelState, Closed, CoSigned, CommonState, Error, KnownTrackers,
    Opened, PeerKey, TrackerKeys,
    answer::{WireAddress, WireCapabilities, WireChannel, WireCommon, WireOpened},
    link::{Again, Failed, Link, PATH, Signed},
    message,
};
use crate::{Client, ClientBuilder, Endpoint, Token, client::BackOff, socket::open_socket};

/// How long a command may take, unless told otherwise. A version 2 message grows stale after five
/// minutes, so a request must be given up well before that.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest that a command may take: below the five minutes of section 17.2.
const TIMEOUT_MAX: Duration = Duration::from_secs(240);
/// How old the time in a reply to command 65536 may be when it is sent: a node signs that reply once a
/// second.
const CLOCK_KEPT_MS: u64 = 1_000;

/// Which messages are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// As the first trackers know them: they can be replayed.
    V1,
    /// With time, nonce, command and tracker (section 17.2).
    V2,
}

/// What a connection to a tracker is made with.
#[derive(Debug)]
pub struct Builder {
    client: ClientBuilder,
    endpoint: Endpoint,
    key: PeerKey,
    timeout: Duration,
    version: Option<Version>,
    known: Option<KnownTrackers>,
    expected: Option<TrackerKeys>,
}

/// A peer's connection to a tracker. Cheap to clone. It connects again by itself when the connection
/// breaks.
#[derive(Clone)]
pub struct Tracker {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    link: Link,
    key: PeerKey,
    keys: TrackerKeys,
    id: KeyHash,
    version: Version,
    capabilities: Option<Capabilities>,
    /// How far the tracker's clock is ahead of ours, in milliseconds.
    ahead_ms: i64,
    /// Just before the tracker was asked for its capabilities, and so for its time.
    asked: Instant,
    timeout: Duration,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("client", &self.shared.client)
            .field("key", &self.shared.key)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Sends this token with every connection.
    #[must_use]
    pub fn token(mut self, token: Token) -> Builder {
        self.client = self.client.token(token);
        self
    }

    /// Trusts the certificates in this PEM file, and no others.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<std::path::PathBuf>) -> Builder {
        self.client = self.client.ca_file(path);
        self
    }

    /// How long a command may take, broken connections included; at most four minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    /// Signs messages of this version, whatever the tracker can do.
    #[must_use]
    pub fn version(mut self, version: Version) -> Builder {
        self.version = Some(version);
        self
    }

    /// Expects the keys that this file holds of the address, and puts those of a new tracker there.
    #[must_use]
    pub fn known_trackers(mut self, known: KnownTrackers) -> Builder {
        self.known = Some(known);
        self
    }

    /// Expects one of these keys, and messages of version 2 unless [`Builder::version`] says otherwise.
    #[must_use]
    pub fn expect(mut self, keys: TrackerKeys) -> Builder {
        self.expected = Some(keys);
        self
    }

    /// Connects, learns what the tracker can do, and shakes hands.
    ///
    /// # Errors
    /// `Connection`; `Refused` by a tracker that stays busy; `Impostor` when it has none of the expected
    /// keys, or claims to know less than it did.
    pub async fn connect(self) -> Result<Tracker, Error> {
        let client = self.client.build()?;
        let mut speaks_v2 = self.expected.is_some();
        let mut expected = self.expected;
        if expected.is_none()
            && let Some(known) = &self.known
            && let Some((keys, version)) = known.look_up(&self.endpoint)?
        {
            expected = Some(keys);
            speaks_v2 = version == Version::V2;
        }
        let socket = open_socket(&client, PATH).await?;
        let link = Link::new(client.clone(), socket);
        let meeting = Meeting {
            link: &link,
            key: &self.key,
            timeout: self.timeout,
            expected: expected.as_ref(),
        };
        let (capabilities, asked) = meeting.capabilities().await?;
        let version = match (self.version, &capabilities) {
            (Some(Version::V2), None) => {
                let what = "this tracker knows no messages of version 2";
                return Err(Error::Protocol(what.to_owned()));
            }
            (Some(version), _) => version,
            (None, Some(capabilities)) if capabilities.version >= 2 => Version::V2,
            (None, Some(_)) => Version::V1,
            // Nobody signs such an answer, and what is signed in version 1 can be used again for ever.
            (None, None) if speaks_v2 => {
                return Err(impostor("it says that it knows no messages of version 2"));
            }
            (None, None) => Version::V1,
        };
        let now = local_ms();
        let ahead_ms = capabilities.as_ref().map_or(0, |capabilities| {
            i64::try_from(capabilities.now)
                .unwrap_or_default()
                .saturating_sub_unsigned(now)
        });
        let time = now.saturating_add_signed(ahead_ms);
        let (own, keys) = meeting
            .handshake(version, time, capabilities.as_ref())
            .await?;
        if let Some(known) = &self.known {
            let speaks = match &capabilities {
                Some(capabilities) if capabilities.version >= 2 => Version::V2,
                // The caller wanted version 1, and heard what nobody signs.
                None if speaks_v2 => Version::V2,
                _ => Version::V1,
            };
            known.remember(&self.endpoint, &keys, speaks)?;
        }
        Ok(Tracker {
            shared: Arc::new(Shared {
                client,
                link,
                key: self.key,
                id: own,
                keys,
                version,
                capabilities,
                ahead_ms,
                asked,
                timeout: self.timeout,
            }),
        })
    }
}

/// The first words with a tracker.
struct Meeting<'m> {
    link: &'m Link,
    key: &'m PeerKey,
    timeout: Duration,
    expected: Option<&'m TrackerKeys>,
}

impl Meeting<'_> {
    async fn ask(
        &self,
        command: u64,
        payload: Value,
        correlation: String,
    ) -> Result<Signed, Failed> {
        let frame = json!({ "cmd": command, "corrToken": correlation, "payload": payload });
        let asked = self.link.ask(correlation, frame.to_string(), Again::Anew);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Failed::Broken("the tracker does not answer".to_owned())),
        }
    }

    /// What the tracker can do, and when it was asked; `None` from one that does not know the question
    /// (section 17). A tracker that is busy, or not open yet, is asked again.
    async fn capabilities(&self) -> Result<(Option<Capabilities>, Instant), Error> {
        let begun = Instant::now();
        let mut back_off = BackOff::default();
        let (signed, asked) = loop {
            let asked = Instant::now();
            let payload = json!({ "v": [1, 2] });
            let answer = self.ask(command::CAPABILITIES, payload, message::correlation());
            let error = match answer.await {
                Ok(signed) => break (signed, asked),
                Err(Failed::Refused { code, message }) if is_unknown_command(&code, &message) => {
                    return Ok((None, asked));
                }
                Err(failed) => Error::from(failed),
            };
            let may_pass = error.code().is_some() && error.is_transient();
            if !may_pass || begun.elapsed() >= self.timeout {
                return Err(error);
            }
            tracing::debug!(%error, "asking the tracker again what it can do");
            back_off.pause().await;
        };
        let wire: WireCapabilities = read(&signed.message)?;
        let capabilities = Capabilities::from(wire);
        let own = TrackerKeys::new(capabilities.keys.iter().map(|(_, pem)| pem.clone()))?;
        // The first time its own keys vouch for it, afterwards those of the first time.
        if !self
            .expected
            .unwrap_or(&own)
            .signed(&signed.message, &signed.sign)
        {
            return Err(impostor("its capabilities are signed by another key"));
        }
        Ok((Some(capabilities), asked))
    }

    async fn handshake(
        &self,
        version: Version,
        time_ms: u64,
        capabilities: Option<&Capabilities>,
    ) -> Result<(KeyHash, TrackerKeys), Error> {
        let correlation = message::correlation();
        let listed = match capabilities {
            None => Vec::new(),
            Some(capabilities) => capabilities
                .keys
                .iter()
                .map(|(_, pem)| pem.clone())
                .collect(),
        };
        let named = match (version, listed.first()) {
            (Version::V2, Some(pem)) => Some(TrackerKeys::new([pem.clone()])?.ids()[0]),
            _ => None,
        };
        let unique = named.map(|tracker| message::version2(&correlation, tracker, time_ms));
        let text = draft::bare(command::HANDSHAKE, self.key.pem(), unique.as_ref());
        let payload = json!({
            "sign": self.key.sign(&text),
            "message": text,
            "pk": self.key.pem(),
        });
        let signed = self.ask(command::HANDSHAKE, payload, correlation).await?;
        let own = TrackerKeys::new([signed.message.clone()])?;
        if !own.signed(&signed.message, &signed.sign) {
            return Err(impostor("its handshake is not signed by the key in it"));
        }
        if let Some(expected) = self.expected
            && !expected.has(&signed.message)
        {
            return Err(impostor("its key is another one"));
        }
        let id = own.ids()[0];
        if !listed.is_empty() && !TrackerKeys::new(listed.clone())?.has(&signed.message) {
            return Err(impostor("its handshake has a key that it does not name"));
        }
        let keys = TrackerKeys::new(std::iter::once(signed.message).chain(listed))?;
        Ok((id, keys))
    }
}

impl Tracker {
    /// The beginnings of a connection to the tracker of the node at `endpoint`, as the peer with `key`.
    pub fn builder(endpoint: Endpoint, key: PeerKey) -> Builder {
        Builder {
            client: Client::builder(endpoint.clone()),
            endpoint,
            key,
            timeout: TIMEOUT_DEFAULT,
            version: None,
            known: None,
            expected: None,
        }
    }

    /// The key of this peer.
    pub fn key(&self) -> &PeerKey {
        &self.shared.key
    }

    /// The keys that the tracker's answers are checked against.
    pub fn keys(&self) -> &TrackerKeys {
        &self.shared.keys
    }

    /// Which messages are signed.
    pub fn version(&self) -> Version {
        self.shared.version
    }

    /// What the tracker said that it can do; `None` from one without extensions.
    pub fn capabilities(&self) -> Option<&Capabilities> {
        self.shared.capabilities.as_ref()
    }

    /// The time by the tracker's clock, in milliseconds since 1970, as far as it is known here.
    pub fn now_ms(&self) -> u64 {
        local_ms().saturating_add_signed(self.shared.ahead_ms)
    }

    /// How long it is at least until the tracker's clock says `time_ms`, in milliseconds since 1970: its
    /// clock as it was told when this connection was made, and as late as it can have been then. Steps of
    /// this machine's clock do not count, but with a tracker of version 1, which does not tell its time.
    pub fn time_left(&self, time_ms: u64) -> Duration {
        let now = match &self.shared.capabilities {
            None => local_ms(),
            Some(capabilities) => latest_ms(capabilities.now, self.shared.asked.elapsed()),
        };
        Duration::from_millis(time_ms.saturating_sub(now))
    }

    /// The tracker that version 2 messages name; `None` in version 1.
    pub(super) fn name(&self) -> Option<&KeyHash> {
        match self.shared.version {
            Version::V2 => Some(&self.shared.id),
            Version::V1 => None,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Opens an income address (command 2).
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn open_income(&self) -> Result<AddressState, Error> {
        let state: WireAddress = self
            .act_alone(command::OPEN_INCOME, |pk, version| {
                draft::bare(command::OPEN_INCOME, pk, version)
            })
            .await?;
        Ok(state.into())
    }

    /// Opens a spend address (command 4). It may hold less than the tracker's usual grant.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn open_spend(&self) -> Result<AddressState, Error> {
        let state: WireAddress = self
            .act_alone(command::OPEN_SPEND, |pk, version| {
                draft::bare(command::OPEN_SPEND, pk, version)
            })
            .await?;
        Ok(state.into())
    }

    /// Opens a transfer channel (command 8). The same contract may be sent again.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn open_transfer(&self, contract: &CoSigned) -> Result<Opened, Error> {
        let opened: WireOpened = self.act_together(command::OPEN_TRANSFER, contract).await?;
        Ok(opened.into())
    }

    /// Closes a transfer channel, which moves the tokens (command 16). The same receipt may be sent
    /// again; another one is refused.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn close_transfer(&self, receipt: &CoSigned) -> Result<(), Error> {
        self.act_together::<serde::de::IgnoredAny>(command::CLOSE_TRANSFER, receipt)
            .await?;
        Ok(())
    }

    /// Deposits a receipt that is executed at the lock, should the channel not be closed before
    /// (command 524288). The highest one counts.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn park(&self, receipt: &CoSigned) -> Result<(), Error> {
        self.act_together::<serde::de::IgnoredAny>(command::PARK, receipt)
            .await?;
        Ok(())
    }

    /// Closes a spend or income address (commands 64 and 32): what is on it goes back to the tracker.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`; `Usage` for an address of another kind.
    pub async fn close_address(&self, address: &Address) -> Result<Closed, Error> {
        let code = match address.kind() {
            AddressKind::Income => command::CLOSE_INCOME,
            AddressKind::Spend => command::CLOSE_SPEND,
            AddressKind::Common => {
                return Err(Error::Usage("a common address is never closed".to_owned()));
            }
        };
        self.act_alone(code, |pk, version| {
            draft::about_address(code, address, pk, version)
        })
        .await
    }

    /// Pays `amount` tokens of a common address to an Ed25519 key, by an ordinary TRANSFER of the token
    /// (command 2097152). The address must be this peer's own. Answers the transfer's id, if the
    /// tracker names it.
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Unknown`.
    pub async fn pay_out(
        &self,
        address: &Address,
        pay_to: &PublicKey,
        amount: u64,
    ) -> Result<Value, Error> {
        if self.version() == Version::V1 {
            return Err(Error::Usage("this tracker knows no payouts".to_owned()));
        }
        self.act_alone(command::PAY_OUT, |pk, version| {
            let text = version.map(|version| draft::pay_out(address, pay_to, amount, pk, version));
            text.expect("a connection of version 2 makes messages of version 2")
        })
        .await
    }

    /// The state of a spend or income address (commands 256 and 128).
    ///
    /// # Errors
    /// `Refused`, `Connection`; `Usage` for an address of another kind.
    pub async fn address_state(&self, address: &Address) -> Result<AddressState, Error> {
        let code = match address.kind() {
            AddressKind::Income => command::INCOME_STATE,
            AddressKind::Spend => command::SPEND_STATE,
            AddressKind::Common => {
                return Err(Error::Usage(
                    "a common address has another state".to_owned(),
                ));
            }
        };
        let state: WireAddress = self
            .question(code, |pk, version| {
                draft::about_address(code, address, pk, version)
            })
            .await?;
        if state.address != address.as_str() {
            return Err(Error::Protocol("the state of another address".to_owned()));
        }
        Ok(state.into())
    }

    /// Where a transfer channel stands (command 512).
    ///
    /// # Errors
    /// `Refused`, `Connection`, `Protocol`.
    pub async fn channel_state(&self, channel: &str) -> Result<ChannelState, Error> {
        let state: WireChannel = self
            .question(command::TRANSFER_STATE, |pk, version| {
                draft::channel_state(channel, pk, version)
            })
            .await?;
        match state.state {
            1 => Ok(ChannelState::Unknown),
            2 => Ok(ChannelState::Open),
            4 => Ok(ChannelState::Closed),
            other => Err(Error::Protocol(format!("channel state {other}"))),
        }
    }

    /// What a wallet has earned (command 8192).
    ///
    /// # Errors
    /// `Refused`, `Connection`.
    pub async fn common_state(&self, address: &Address) -> Result<CommonState, Error> {
        let code = command::COMMON_STATE;
        let answer: WireCommon = self
            .question(code, |pk, version| {
                draft::about_address(code, address, pk, version)
            })
            .await?;
        Ok(answer.state)
    }

    /// Asks something that changes nothing. Each attempt is a new message, because a nonce is good for
    /// one only.
    pub(super) async fn question<T: DeserializeOwned>(
        &self,
        code: u64,
        text: impl Fn(&str, Option<&Version2<'_>>) -> String,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut back_off = BackOff::default();
        loop {
            let (correlation, frame) = self.single(code, &text);
            let left = self.shared.timeout.saturating_sub(begun.elapsed());
            let asked = self.shared.link.ask(correlation, frame, Again::Anew);
            let reason = match tokio::time::timeout(left, asked).await {
                Ok(Ok(signed)) => return self.read(&signed),
                Ok(Err(Failed::Broken(reason))) if begun.elapsed() < self.shared.timeout => {
                    tracing::debug!(reason, "asking the tracker again");
                    back_off.pause().await;
                    continue;
                }
                Ok(Err(Failed::Broken(reason))) => reason,
                Ok(Err(failed)) => return Err(failed.into()),
                Err(_) => self.shared.link.trouble().unwrap_or_else(no_answer),
            };
            // Nothing can have changed, so the outcome is not in doubt.
            return Err(Error::Connection(self.shared.client.http.broken(reason)));
        }
    }

    /// Does something that one key signs. The same bytes are sent until they are answered: their token
    /// makes sure that it happens once (section 17.5).
    async fn act_alone<T: DeserializeOwned>(
        &self,
        code: u64,
        text: impl Fn(&str, Option<&Version2<'_>>) -> String,
    ) -> Result<T, Error> {
        let (correlation, frame) = self.single(code, text);
        // A tracker that does not know such tokens might do it twice.
        let again = match self.shared.capabilities {
            Some(_) => Again::SameBytes,
            None => Again::Anew,
        };
        self.act(correlation, frame, again).await
    }

    /// Does something that two keys sign, which may always be repeated.
    async fn act_together<T: DeserializeOwned>(
        &self,
        code: u64,
        signed: &CoSigned,
    ) -> Result<T, Error> {
        let correlation = message::correlation();
        let frame = json!({ "cmd": code, "corrToken": correlation, "payload": signed });
        self.act(correlation, frame.to_string(), Again::SameBytes)
            .await
    }

    async fn act<T: DeserializeOwned>(
        &self,
        correlation: String,
        frame: String,
        again: Again,
    ) -> Result<T, Error> {
        let asked = self.shared.link.ask(correlation, frame, again);
        match tokio::time::timeout(self.shared.timeout, asked).await {
            Ok(Ok(signed)) => self.read(&signed),
            Ok(Err(failed)) => Err(failed.into()),
            Err(_) => Err(Error::Unknown(
                self.shared.link.trouble().unwrap_or_else(no_answer),
            )),
        }
    }

    /// Token and frame of a request with one signature, over what `text` makes of this peer's key.
    pub(super) fn single(
        &self,
        code: u64,
        text: impl Fn(&str, Option<&Version2<'_>>) -> String,
    ) -> (String, String) {
        let key = &self.shared.key;
        let correlation = message::correlation();
        let tracker = self.name().copied();
        let unique = tracker.map(|id| message::version2(&correlation, id, self.now_ms()));
        let text = text(key.pem(), unique.as_ref());
        let frame = json!({
            "cmd": code,
            "corrToken": correlation,
            "idem": true,
            "payload": { "sign": key.sign(&text), "message": text, "pk": key.pem() },
        });
        (correlation, frame.to_string())
    }

    /// Checks and reads an answer.
    pub(super) fn read<T: DeserializeOwned>(&self, signed: &Signed) -> Result<T, Error> {
        #[derive(serde::Deserialize)]
        struct Named {
            pk: Option<String>,
        }
        if !self.shared.keys.signed(&signed.message, &signed.sign) {
            return Err(impostor("an answer is signed by another key"));
        }
        let named: Named = read(&signed.message)?;
        if named.pk.is_some_and(|pem| !self.shared.keys.has(&pem)) {
            return Err(impostor("an answer names another key"));
        }
        read(&signed.message)
    }
}

fn read<T: DeserializeOwned>(message: &str) -> Result<T, Error> {
    serde_json::from_str(message).map_err(|error| Error::Protocol(error.to_string()))
}

/// Whether a refusal says that the tracker does not know the command (section 14; the first trackers have
/// no codes). Any other one says nothing about what it knows.
fn is_unknown_command(code: &str, message: &str) -> bool {
    code == "bad_command" || code.is_empty() && message.starts_with("invalid message")
}

/// What a clock says at the latest that said `told_ms` in the reply to a question of so long ago.
fn latest_ms(told_ms: u64, since_asked: Duration) -> u64 {
    let since = u64::try_from(since_asked.as_millis()).unwrap_or(u64::MAX);
    told_ms.saturating_add(CLOCK_KEPT_MS).saturating_add(since)
}

fn impostor(what: &str) -> Error {
    Error::Impostor(what.to_owned())
}

fn no_answer() -> String {
    "no answer in time".to_owned()
}

fn local_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use daybook_ledger::tracker::Suite;
    use futures_util::{SinkExt, StreamExt};
    use tokio::{net::TcpListener, sync::mpsc};
    use tokio_tungstenite::{accept_async, tungstenite::Message};

    use super::*;

    /// What a made-up tracker answers.
    enum Said {
        /// Its capabilities, signed.
        Capabilities,
        /// Its key, signed.
        Key,
        /// An error, which nobody signs.
        Error(&'static str, &'static str),
    }

    /// A tracker that answers its questions in this order, and tells what it was asked.
    async fn tracker(
        key: &PeerKey,
        answers: Vec<Said>,
    ) -> (Endpoint, mpsc::UnboundedReceiver<Value>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = mpsc::unbounded_channel();
        let key = key.clone();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            let mut answers = answers.into_iter();
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else {
                    continue;
                };
                let question: Value = serde_json::from_str(&text).unwrap();
                let signed = |message: String| {
                    let sign = key.sign(&message);
                    json!({ "data": { "message": message, "sign": sign } })
                };
                let mut answer = match answers.next().unwrap() {
                    Said::Key => signed(key.pem().to_owned()),
                    Said::Capabilities => {
                        let keys = json!([{ "suite": "ed25519", "pk": key.pem() }]);
                        signed(json!({ "v": 2, "keys": keys, "now": local_ms() }).to_string())
                    }
                    Said::Error("", error) => json!({ "error": error }),
                    Said::Error(code, error) => json!({ "error": error, "code": code }),
                };
                answer["corrToken"] = question["corrToken"].clone();
                tell.send(question).unwrap();
                socket
                    .send(Message::text(answer.to_string()))
                    .await
                    .unwrap();
            }
        });
        (endpoint.parse().unwrap(), told)
    }

    fn asked(mut told: mpsc::UnboundedReceiver<Value>) -> Vec<u64> {
        std::iter::from_fn(|| told.try_recv().ok())
            .map(|question| question["cmd"].as_u64().unwrap())
            .collect()
    }

    const UNKNOWN: Said = Said::Error("bad_command", "invalid message command: 65536");

    #[tokio::test]
    async fn a_tracker_that_is_busy_or_not_open_yet_is_asked_again_and_not_taken_for_an_old_one() {
        let key = PeerKey::generate(Suite::Ed25519);
        let answers = vec![
            Said::Error("rate_limited", "too many frames: slow down"),
            Said::Error("internal", "the tracker is not open yet"),
            Said::Capabilities,
            Said::Key,
        ];
        let (endpoint, _told) = tracker(&key, answers).await;
        let peer = PeerKey::generate(Suite::Ed25519);
        let met = Tracker::builder(endpoint, peer).connect().await.unwrap();
        assert_eq!(met.version(), Version::V2);
    }

    #[tokio::test]
    async fn a_tracker_that_stays_busy_is_not_spoken_to_in_version_1() {
        let key = PeerKey::generate(Suite::Ed25519);
        let busy = || Said::Error("rate_limited", "too many frames: slow down");
        let answers = std::iter::repeat_with(busy).take(1_000).collect();
        let (endpoint, told) = tracker(&key, answers).await;
        let peer = PeerKey::generate(Suite::Ed25519);
        let builder = Tracker::builder(endpoint, peer).timeout(Duration::from_millis(100));
        assert!(builder.connect().await.is_err());
        assert!(
            asked(told)
                .iter()
                .all(|&code| code == command::CAPABILITIES)
        );
    }

    #[tokio::test]
    async fn nobody_talks_a_peer_into_version_1_with_a_tracker_whose_keys_it_knows() {
        let key = PeerKey::generate(Suite::Ed25519);
        let folder = tempfile::tempdir().unwrap();
        for by_file in [false, true] {
            let (endpoint, told) = tracker(&key, vec![UNKNOWN]).await;
            let keys = TrackerKeys::new([key.pem().to_owned()]).unwrap();
            let peer = PeerKey::generate(Suite::Ed25519);
            let builder = Tracker::builder(endpoint.clone(), peer);
            let builder = if by_file {
                let known = KnownTrackers::new(folder.path().join("trackers.json"));
                known.remember(&endpoint, &keys, Version::V2).unwrap();
                builder.known_trackers(known)
            } else {
                builder.expect(keys)
            };
            let refused = builder.connect().await.unwrap_err();
            assert!(matches!(refused, Error::Impostor(_)), "{refused}");
            assert_eq!(asked(told), [command::CAPABILITIES], "nothing was signed");
        }
    }

    #[tokio::test]
    async fn version_2_is_not_given_up_where_it_is_wanted() {
        let key = PeerKey::generate(Suite::Ed25519);
        let (endpoint, told) = tracker(&key, vec![UNKNOWN]).await;
        let peer = PeerKey::generate(Suite::Ed25519);
        let builder = Tracker::builder(endpoint, peer).version(Version::V2);
        let refused = builder.connect().await.unwrap_err();
        assert!(matches!(refused, Error::Protocol(_)), "{refused}");
        assert_eq!(asked(told), [command::CAPABILITIES]);
    }

    #[tokio::test]
    async fn a_tracker_of_the_first_generation_is_met_again_in_version_1() {
        let key = PeerKey::generate(Suite::Ed25519);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trackers.json");
        let legacy = || Said::Error("", "invalid message command: 65536");
        let (endpoint, _told) = tracker(&key, vec![legacy(), Said::Key]).await;
        let peer = PeerKey::generate(Suite::Ed25519);
        let known = KnownTrackers::new(&path);
        let builder = Tracker::builder(endpoint.clone(), peer.clone());
        let met = builder.known_trackers(known.clone()).connect().await;
        assert_eq!(met.unwrap().version(), Version::V1);
        let (_, version) = known.look_up(&endpoint).unwrap().unwrap();
        assert_eq!(version, Version::V1);
        // Another day, another port.
        let (endpoint, _told) = tracker(&key, vec![legacy(), Said::Key]).await;
        let keys = TrackerKeys::new([key.pem().to_owned()]).unwrap();
        known.remember(&endpoint, &keys, Version::V1).unwrap();
        let met = Tracker::builder(endpoint, peer).known_trackers(known);
        assert_eq!(met.connect().await.unwrap().version(), Version::V1);
    }

    #[test]
    fn a_trackers_clock_is_taken_to_be_as_late_as_it_can_be() {
        // An answer that took twelve seconds, and stood ready for one before.
        let late = latest_ms(1_000_000, Duration::from_secs(12));
        assert_eq!(late, 1_013_000);
        assert_eq!(latest_ms(u64::MAX, Duration::MAX), u64::MAX);
    }
}
