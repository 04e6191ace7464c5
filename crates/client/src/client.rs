//! The client: submitting and asking.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use daybook_ledger::{
    AssetId, Height, Operation, OutputRef, Position, PublicKey, Transaction, TransactionId,
};
use http::{Method, StatusCode};
use rand::RngExt;
use serde::Deserialize;

use crate::{
    Answer, Block, Endpoint, Error, Fate, Filter, Follow, From, Hit, Mode, Receipt, Refusal,
    Status, Stream, Token, Validator,
    http::{Http, json},
    model::{Id, RawAssetHit, RawBlock, RawMetadataHit, RawOutput},
    transport::Connector,
};

/// How long one request may take, the wait for a block included, unless the builder says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long the fate of a submission is looked for after the connection broke, unless the builder
/// says otherwise: a node that was killed is back within this time.
const SETTLE_DEFAULT: Duration = Duration::from_secs(30);
/// First pause before something is tried again.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause before something is tried again.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// A client of one node. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: Http,
    pub(crate) connector: Connector,
    pub(crate) token: Option<Token>,
    settle: Duration,
}

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    endpoint: Endpoint,
    token: Option<Token>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    settle: Duration,
}

/// A transaction's text on its way to a node, with its id if the text has one.
#[derive(Clone, Debug)]
pub struct Submission {
    pub(crate) text: Bytes,
    pub(crate) id: Option<TransactionId>,
}

impl Submission {
    /// Text as it shall be sent. The id is read from it; text without one can be sent, but its fate
    /// cannot be asked for.
    pub fn from_text(text: impl Into<Bytes>) -> Submission {
        #[derive(Deserialize)]
        struct Named {
            id: Id,
        }
        let text = text.into();
        let id = serde_json::from_slice::<Named>(&text)
            .ok()
            .map(|named| named.id.0);
        Submission { text, id }
    }

    /// The text.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The id, if the text has one.
    pub fn id(&self) -> Option<TransactionId> {
        self.id
    }
}

impl std::convert::From<&Transaction> for Submission {
    fn from(transaction: &Transaction) -> Submission {
        Submission {
            text: transaction.canonical().clone(),
            id: Some(transaction.id()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", self.http.endpoint())
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Sends this token with every request.
    #[must_use]
    pub fn token(mut self, token: Token) -> ClientBuilder {
        self.token = Some(token);
        self
    }

    /// Trusts the certificates in this PEM file, and no others.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> ClientBuilder {
        self.ca_file = Some(path.into());
        self
    }

    /// How long one request may take, the wait for a block included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.timeout = timeout;
        self
    }

    /// How long [`Client::commit`] looks for the fate of a submission after the connection broke.
    #[must_use]
    pub fn settle_within(mut self, settle: Duration) -> ClientBuilder {
        self.settle = settle;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// `Configuration` when the CA file cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        let connector = if self.endpoint.is_secure() {
            Connector::secure(self.ca_file.as_deref())?
        } else {
            Connector::plain()
        };
        let http = Http::new(
            connector.clone(),
            self.endpoint,
            self.token.clone(),
            self.timeout,
        );
        Ok(Client {
            http,
            connector,
            token: self.token,
            settle: self.settle,
        })
    }
}

impl Client {
    /// A client of the node at `endpoint`, without a token, trusting the public certificate roots.
    ///
    /// # Errors
    /// `Configuration` when TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Client, Error> {
        Client::builder(endpoint).build()
    }

    /// A builder for a client of the node at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            token: None,
            ca_file: None,
            timeout: TIMEOUT_DEFAULT,
            settle: SETTLE_DEFAULT,
        }
    }

    /// A token from a file, for [`ClientBuilder::token`].
    ///
    /// # Errors
    /// `Configuration` when the file cannot be read or holds no token.
    pub fn token_from_file(path: &Path) -> Result<Token, Error> {
        Token::from_file(path)
    }

    /// How long the fate of a submission is looked for.
    pub(crate) fn settle(&self) -> Duration {
        self.settle
    }

    /// The node's address.
    pub fn endpoint(&self) -> &Endpoint {
        self.http.endpoint()
    }

    /// Submits one transaction with one request. With [`Mode::Commit`] the answer is `Committed` with the
    /// transaction's place; of a server that does not tell it, `Accepted` says that the block is on disk,
    /// and [`Client::submit`] asks for the place. A refusal and a full node are answers; errors are what
    /// stood between. After `Broken` the transaction may have been taken or not: see [`Client::commit`].
    ///
    /// # Errors
    /// `Unreachable` before anything was sent, `Broken` after, `Unauthorised`, `Node`, `Protocol`.
    pub async fn post(&self, submission: &Submission, mode: Mode) -> Result<Answer, Error> {
        let path = match mode {
            Mode::Async => "/api/v1/transactions?mode=async",
            Mode::Sync => "/api/v1/transactions?mode=sync",
            Mode::Commit => "/api/v1/transactions?mode=commit",
        };
        let answer = self
            .http
            .send(Method::POST, path, submission.text.clone())
            .await?;
        if answer.status != StatusCode::ACCEPTED {
            return match answer.error(path) {
                Error::Refused(refusal) => Ok(Answer::Refused {
                    id: submission.id,
                    refusal,
                }),
                Error::Busy { message, .. } => Ok(Answer::Busy { message }),
                error => Err(error),
            };
        }
        let position = match mode {
            Mode::Async | Mode::Sync => None,
            Mode::Commit => answer.position()?,
        };
        let id = match submission.id {
            Some(id) => id,
            None => Submission::from_text(answer.body)
                .id
                .ok_or_else(|| Error::protocol("an accepted transaction without an id"))?,
        };
        Ok(match position {
            None => Answer::Accepted { id },
            Some(position) => Answer::Committed(Receipt {
                id,
                position,
                repeated: false,
            }),
        })
    }

    /// Like [`Client::post`]; after a commit by a server that did not tell the transaction's place it
    /// asks for it, so that the answer is `Committed` with a receipt.
    ///
    /// # Errors
    /// As for [`Client::post`].
    pub async fn submit(&self, submission: &Submission, mode: Mode) -> Result<Answer, Error> {
        match (self.post(submission, mode).await?, mode) {
            (Answer::Accepted { id }, Mode::Commit) => match self.status(&id).await? {
                Status::Committed(position) => Ok(Answer::Committed(Receipt {
                    id,
                    position,
                    repeated: false,
                })),
                other => Err(Error::protocol(format!(
                    "committed, yet its status is {other:?}"
                ))),
            },
            (answer, _) => Ok(answer),
        }
    }

    /// Submits one transaction and stays with it until its fate is known: it is sent again when the
    /// node is busy or cannot be reached, and its fate is asked for by its id when the connection
    /// breaks. Sending again is safe, because a node takes each transaction at most once.
    pub async fn commit(&self, submission: &Submission) -> Fate {
        let deadline = Instant::now() + self.settle;
        let mut back_off = BackOff::default();
        let mut sent_before = false;
        loop {
            let trouble = match self.submit(submission, Mode::Commit).await {
                Ok(Answer::Committed(receipt)) => return Fate::Committed(receipt),
                // A transaction that was taken before, by an earlier attempt of this call or by
                // somebody else's, is refused as a duplicate or as a double spend of itself.
                Ok(Answer::Refused { refusal, .. }) => match submission.id {
                    None => return Fate::Refused(refusal),
                    Some(id) => match self.status(&id).await {
                        Ok(Status::Committed(position)) => {
                            return Fate::Committed(Receipt {
                                id,
                                position,
                                repeated: !sent_before,
                            });
                        }
                        // Another copy of it waits for its block, and may get there.
                        Ok(Status::Pending) => {
                            sent_before = true;
                            Error::Busy {
                                message: refusal.message,
                                retry_after: None,
                            }
                        }
                        Ok(Status::Unknown | Status::Rejected { .. }) => {
                            return Fate::Refused(refusal);
                        }
                        Err(error) => error,
                    },
                },
                Ok(Answer::Accepted { .. }) => {
                    return Fate::Unknown(Error::protocol(
                        "mode=commit answered before the commit",
                    ));
                }
                // A stopping node says "busy" as well, and may have taken it before.
                Ok(Answer::Busy { message }) => {
                    sent_before = true;
                    Error::Busy {
                        message,
                        retry_after: None,
                    }
                }
                Ok(Answer::Stopped) => {
                    sent_before = true;
                    self.http.broken("the node is stopping")
                }
                Err(error) => {
                    sent_before |= !matches!(error, Error::Unreachable { .. });
                    error
                }
            };
            if !trouble.is_transient() && !matches!(trouble, Error::Node { .. }) {
                return Fate::Unknown(trouble);
            }
            if Instant::now() >= deadline {
                return match submission.id {
                    Some(id) if sent_before => Fate::Unknown(Error::Unknown {
                        id,
                        reason: trouble.to_string(),
                    }),
                    _ => Fate::Unknown(trouble),
                };
            }
            back_off.pause().await;
            if let (true, Some(id)) = (sent_before, submission.id) {
                match self.status(&id).await {
                    Ok(Status::Committed(position)) => {
                        return Fate::Committed(Receipt {
                            id,
                            position,
                            repeated: false,
                        });
                    }
                    Ok(Status::Rejected { refusal, .. }) => return Fate::Refused(refusal),
                    // Not there, or not yet: sending again waits for it or takes it.
                    Ok(Status::Unknown | Status::Pending) | Err(_) => {}
                }
            }
        }
    }

    /// What the node knows of a transaction.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn status(&self, id: &TransactionId) -> Result<Status, Error> {
        let path = format!("/api/v1/transactions/{id}/status");
        match self.http.find(&path).await? {
            Some(body) => crate::answer::status(&body),
            None => Ok(Status::Unknown),
        }
    }

    /// A committed transaction's text, or `None`.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn transaction(&self, id: &TransactionId) -> Result<Option<Bytes>, Error> {
        self.http.find(&format!("/api/v1/transactions/{id}")).await
    }

    /// The transactions of an asset in commit order: the one that made it and all that move it.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn transactions_of_asset(
        &self,
        asset: &AssetId,
        operation: Option<Operation>,
        last_only: bool,
    ) -> Result<Vec<serde_json::Value>, Error> {
        let mut path = format!("/api/v1/transactions?asset_id={asset}");
        match operation {
            None => {}
            Some(Operation::Create) => path.push_str("&operation=CREATE"),
            Some(Operation::Transfer) => path.push_str("&operation=TRANSFER"),
            Some(Operation::Compose) => path.push_str("&operation=COMPOSE"),
            Some(Operation::Decompose) => path.push_str("&operation=DECOMPOSE"),
        }
        if last_only {
            path.push_str("&last_tx=true");
        }
        self.http.get(&path).await
    }

    /// The outputs whose condition names `key`, in commit order; `spent` filters.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn outputs(
        &self,
        key: &PublicKey,
        spent: Option<bool>,
    ) -> Result<Vec<OutputRef>, Error> {
        let mut path = format!("/api/v1/outputs?public_key={key}");
        if let Some(spent) = spent {
            path.push_str(if spent { "&spent=true" } else { "&spent=false" });
        }
        let outputs: Vec<RawOutput> = self.http.get(&path).await?;
        Ok(outputs.into_iter().map(OutputRef::from).collect())
    }

    /// A block with its transactions, or `None` beyond the newest one.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn block(&self, height: Height) -> Result<Option<Block>, Error> {
        match self
            .http
            .find(&format!("/api/v1/blocks/{}", height.0))
            .await?
        {
            Some(body) => json::<RawBlock>(&body).map(|raw| Some(raw.into())),
            None => Ok(None),
        }
    }

    /// The newest block, with ids only. Height 0 before the first one.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn latest_block(&self) -> Result<Block, Error> {
        match self.http.find("/api/v1/blocks/latest").await? {
            Some(body) => json::<RawBlock>(&body).map(Block::from),
            None => Ok(Block {
                height: Height(0),
                app_hash: String::new(),
                transaction_ids: Vec::new(),
                transactions: Vec::new(),
            }),
        }
    }

    /// The place of a committed transaction, or `None`.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn position(&self, id: &TransactionId) -> Result<Option<Position>, Error> {
        Ok(match self.status(id).await? {
            Status::Committed(position) => Some(position),
            Status::Unknown | Status::Pending | Status::Rejected { .. } => None,
        })
    }

    /// Full-text search over asset data, best match first; `limit` 0 means no limit.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn search_assets(&self, words: &str, limit: usize) -> Result<Vec<Hit>, Error> {
        let path = format!(
            "/api/v1/assets?search={}&limit={limit}",
            percent_encoded(words)
        );
        let hits: Vec<RawAssetHit> = self.http.get(&path).await?;
        Ok(hits
            .into_iter()
            .map(|hit| Hit {
                id: hit.id.0,
                found: hit.data,
            })
            .collect())
    }

    /// Full-text search over metadata, best match first; `limit` 0 means no limit.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn search_metadata(&self, words: &str, limit: usize) -> Result<Vec<Hit>, Error> {
        let path = format!(
            "/api/v1/metadata?search={}&limit={limit}",
            percent_encoded(words)
        );
        let hits: Vec<RawMetadataHit> = self.http.get(&path).await?;
        Ok(hits
            .into_iter()
            .map(|hit| Hit {
                id: hit.id.0,
                found: hit.metadata,
            })
            .collect())
    }

    /// The assets of every transaction whose asset data is, or has as an item, exactly the string `cid`,
    /// in commit order; `limit` 0 means no limit.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn assets_holding(
        &self,
        cid: &str,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, Error> {
        self.holding("assets", cid, limit).await
    }

    /// The metadata of every transaction whose metadata is, or has as an item, exactly the string `cid`,
    /// in commit order; `limit` 0 means no limit.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn metadata_holding(
        &self,
        cid: &str,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, Error> {
        self.holding("metadata", cid, limit).await
    }

    async fn holding(
        &self,
        resource: &str,
        cid: &str,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, Error> {
        // A path without it would name the text search instead.
        if cid.is_empty() {
            return Ok(Vec::new());
        }
        let path = format!("/api/v1/{resource}/{}?limit={limit}", percent_encoded(cid));
        self.http.get(&path).await
    }

    /// The validators.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn validators(&self) -> Result<Vec<Validator>, Error> {
        self.http.get("/api/v1/validators").await
    }

    /// What the node says about itself (`GET /`).
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn info(&self) -> Result<serde_json::Value, Error> {
        self.http.get("/").await
    }

    /// True when the node takes reads and writes.
    ///
    /// # Errors
    /// Anything between client and node other than a node that is there but not ready.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        let answer = self.http.send(Method::GET, "/readyz", Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            _ => Err(answer.error("/readyz")),
        }
    }

    /// Follows a stream from `from` on, resuming by itself.
    pub fn follow(&self, stream: Stream, from: From, filter: Filter) -> Follow {
        Follow::new(self.clone(), stream, from, filter)
    }
}

/// Pauses that grow: doubled each time up to a bound, with chance in them so that many clients do not
/// come back at the same instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff(BACK_OFF_MIN)
    }
}

impl BackOff {
    pub(crate) async fn pause(&mut self) {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(BACK_OFF_MAX);
        tokio::time::sleep(pause).await;
    }
}

/// Text as the value of a query parameter or as a segment of a path.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A refusal by its parts, for answers that carry them apart.
pub(crate) fn refusal(status: u16, class: Option<String>, message: String) -> Refusal {
    let class = class.or_else(|| crate::http::class_of(&message));
    Refusal {
        status,
        class,
        message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread::{self, JoinHandle},
    };

    use daybook_ledger::{Draft, Height, Position, SigningKey, json::Object};

    use super::*;

    /// A node that answers with these statuses and bodies, one request after the other; it tells what it
    /// was asked.
    fn node(answers: Vec<(u16, &'static str)>) -> (Client, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let mut lines = BufReader::new(listener.accept().unwrap().0);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    lines.read_line(&mut head).unwrap();
                }
                let length = head.to_lowercase().lines().find_map(|line| {
                    let length = line.strip_prefix("content-length:")?;
                    length.trim().parse().ok()
                });
                lines
                    .read_exact(&mut vec![0; length.unwrap_or_default()])
                    .unwrap();
                asked.push(head.split(['/', ' ']).next().unwrap().to_owned());
                write!(
                    lines.into_inner(),
                    "HTTP/1.1 {status} Told\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len(),
                )
                .unwrap();
            }
            asked
        });
        (Client::new(endpoint.parse().unwrap()).unwrap(), serving)
    }

    #[tokio::test]
    async fn a_refused_copy_of_what_waits_for_its_block_is_not_given_up() {
        let refused =
            r#"{"message": "Invalid transaction (DuplicateTransaction): it waits already"}"#;
        let key = SigningKey::from_seed([1; 32]);
        let lamp = Draft::create(Object::from_iter([("name", "lamp")]))
            .output(1, &key)
            .sign(&[&key])
            .unwrap();
        let (client, serving) = node(vec![
            (400, refused),
            (200, r#"{"status": "pending"}"#),
            (200, r#"{"status": "pending"}"#),
            (400, refused),
            (200, r#"{"status": "committed", "height": 7, "index": 3}"#),
        ]);
        let Fate::Committed(receipt) = client.commit(&Submission::from(&lamp)).await else {
            panic!("given up");
        };
        let place = Position {
            height: Height(7),
            index: 3,
        };
        assert_eq!((receipt.id, receipt.position), (lamp.id(), place));
        let asked = serving.join().unwrap();
        assert_eq!(asked, ["POST", "GET", "GET", "POST", "GET"]);

        let (client, serving) = node(vec![(400, refused), (404, "{}")]);
        let fate = client.commit(&Submission::from(&lamp)).await;
        assert!(matches!(fate, Fate::Refused(_)), "{fate:?}");
        serving.join().unwrap();
    }
}
