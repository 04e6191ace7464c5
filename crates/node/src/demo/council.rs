//! Three organisations that share the ledger of a container. The demo's node hosts their members: two
//! agree by themselves to what is sound, and a person decides for the third.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use daybook_client::{
    Client,
    consortium::{ConsortiumClient, Outcome, SubmitError},
};
use daybook_ledger::{
    BlockTime, SigningKey, TransactionId,
    consortium::{Action, Batch, Body, Book, DEPTH_MAX, Did, Policy, Propose, Request, sign_entry},
    json::{Object, Value},
};
use daybook_machine::{Url, Web};
use http::{Method, StatusCode};

use super::{children::Children, story::wrong, text_of, town::ANSWER_WITHIN, until};
use crate::{
    failure::{Exit, Failure},
    keyfile,
};

/// The organisations; a person decides for the last.
const ORGANISATIONS: [&str; 3] = ["Acme Shipping", "Borealis Rail", "Harbour Customs"];
/// The one that people decide for.
pub(super) const ASKS: usize = ORGANISATIONS.len() - 1;
/// Who does, by the name to log in with.
pub(super) const CLERK: &str = "clerk";
/// Random bytes in the clerk's password.
const PASSWORD_BYTES: usize = 6;
/// The container that they share.
pub(super) const CONTAINER: &str = "CONT-1";
/// How long the others may think about a proposal, in milliseconds: longer than a demo is watched.
const THINK_MS: u64 = 300_000;
/// How long a command of the preparation may take, a password's hash included.
const PREPARE_WITHIN: Duration = Duration::from_secs(60);
/// How long a member that runs by itself may take to see a proposal.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// The organisations, and the book as they see it.
pub(super) struct Council {
    client: ConsortiumClient,
    members: Vec<Member>,
    password: String,
    /// Made of the entries of the log alone, to compare with what the node serves.
    book: Book,
    next: daybook_ledger::Position,
}

struct Member {
    name: &'static str,
    did: Did,
    key: SigningKey,
    key_path: PathBuf,
}

/// The members' identities, made before the node starts.
pub(super) struct Prepared {
    members: Vec<Member>,
    password: String,
    /// The setting that names their cards.
    pub(super) cards: String,
}

/// Makes the members in the node's data directory, and a user who decides for the last.
pub(super) async fn prepare(
    children: &Children,
    folder: &Path,
    node: &Path,
) -> Result<Prepared, Failure> {
    let system = |path: &Path, error: &std::io::Error| Failure::system(path.display(), error);
    let data = text_of(node);
    let (mut members, mut cards) = (Vec::new(), Vec::new());
    for name in ORGANISATIONS {
        let args = ["member", "init", "--data-dir", &data, "--label", name];
        let said = children
            .ask("daybook member init", &args, PREPARE_WITHIN)
            .await?;
        let made = said.last().cloned().unwrap_or_default();
        let did = made["did"].as_str().and_then(|text| text.parse().ok());
        let did: Did = did.ok_or_else(|| wrong("a member has no DID"))?;
        let card = made["card"].as_str().unwrap_or_default();
        cards.push(card.to_owned());
        let key_path = Path::new(card).with_file_name("member.key");
        let key = keyfile::read_with(&key_path, &crate::passphrase::Source::default())?;
        members.push(Member {
            name,
            did,
            key,
            key_path,
        });
    }
    let asks = &members[ASKS];
    let conduct = asks.key_path.with_file_name("member.json");
    std::fs::write(&conduct, r#"{"ask":true}"#).map_err(|e| system(&conduct, &e))?;
    let mut password = [0; PASSWORD_BYTES];
    aws_lc_rs::rand::fill(&mut password)
        .map_err(|_| Failure::new(Exit::System, "the system gives no random numbers"))?;
    let password = hex::encode(password);
    let path = folder.join("clerk.password");
    keyfile::write_new(&path, format!("{password}\n").as_bytes(), 0o600)
        .map_err(|e| system(&path, &e))?;
    let (did, file) = (asks.did.to_string(), text_of(&path));
    let args = [
        "user",
        "add",
        CLERK,
        "--admin",
        "--password-file",
        &file,
        "--member",
        &did,
        "--data-dir",
        &data,
    ];
    children
        .ask("daybook user add", &args, PREPARE_WITHIN)
        .await?;
    Ok(Prepared {
        members,
        password,
        cards: cards.join(","),
    })
}

impl Council {
    pub(super) fn new(client: &Client, prepared: Prepared) -> Council {
        Council {
            client: ConsortiumClient::new(client.clone()),
            members: prepared.members,
            password: prepared.password,
            book: Book::default(),
            next: ConsortiumClient::BEGINNING,
        }
    }

    pub(super) fn name(&self, member: usize) -> &'static str {
        self.members[member].name
    }

    pub(super) fn did(&self, member: usize) -> String {
        self.members[member].did.to_string()
    }

    /// Where a member's key is, for who wants to propose something.
    pub(super) fn key_path(&self, member: usize) -> &Path {
        &self.members[member].key_path
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// How many entries the container's ledger has, and the root over them.
    pub(super) fn ledger(&self) -> Option<(u64, String)> {
        let ledger = self.book.ledger(CONTAINER)?;
        Some((ledger.frontier.size(), ledger.frontier.root().to_string()))
    }

    /// Opens the ledger: all must agree, to this and to whatever follows.
    pub(super) async fn open(&mut self, proposer: usize) -> Result<Outcome, Failure> {
        let action = Action::Create {
            ledgers: vec![CONTAINER.to_owned()],
            participants: self.members.iter().map(|member| member.did).collect(),
            policy: Policy::Unanimous,
            batch: self.batch(
                proposer,
                [("no", CONTAINER), ("goods", "headphones and laptops")],
            )?,
        };
        self.propose(proposer, "open", action).await
    }

    /// Proposes another entry of it.
    pub(super) async fn append(&mut self, proposer: usize) -> Result<Outcome, Failure> {
        let action = Action::Append {
            ledgers: vec![CONTAINER.to_owned()],
            batch: self.batch(proposer, [("no", "WB-7"), ("document", "waybill")])?,
        };
        self.propose(proposer, "waybill", action).await
    }

    fn batch(&self, member: usize, entry: [(&str, &str); 2]) -> Result<Batch, Failure> {
        let entry = Object::from_iter(entry.map(|(name, text)| (name, Value::from(text))));
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let signed = sign_entry(entry, seconds, &self.members[member].key, DEPTH_MAX)
            .map_err(|error| wrong(&format!("an entry cannot be signed: {error}")))?;
        Ok(Batch::new(&[signed]))
    }

    async fn propose(
        &mut self,
        member: usize,
        request: &str,
        action: Action,
    ) -> Result<Outcome, Failure> {
        let network = self.client.network().await?;
        let body = Body::Propose(Propose {
            member: self.members[member].did,
            request: request.to_owned(),
            deadline: BlockTime(network.now.0.saturating_add(THINK_MS)),
            action,
        });
        self.submit(member, &body).await
    }

    /// What the clerk does on the console: finds the proposal among those that wait, and agrees.
    pub(super) async fn decide(
        &self,
        web: &Web,
        node: &Url,
        proposal: TransactionId,
    ) -> Result<(), Failure> {
        let login = STANDARD.encode(format!("{CLERK}:{}", self.password));
        let header = format!("Basic {login}");
        let headers = [("authorization", header.as_str())];
        let (wanted, list) = (proposal.to_string(), node.join("/proposals/"));
        until(
            "the proposal at the clerk's desk",
            SEEN_WITHIN,
            async || {
                let asked = web.send(Method::GET, &list, &headers, "", ANSWER_WITHIN);
                let waiting = asked.await.ok()?.json()?;
                let waiting = waiting["results"].as_array()?;
                waiting
                    .iter()
                    .find(|each| each["proposal"] == wanted)
                    .map(drop)
            },
        )
        .await?;
        let url = node.join(&format!("/proposals/{wanted}/endorse"));
        let answer = web
            .send(Method::POST, &url, &headers, "{}", ANSWER_WITHIN)
            .await
            .map_err(|e| Failure::new(Exit::Unreachable, e.to_string()))?;
        match answer.status {
            StatusCode::OK => Ok(()),
            status => Err(wrong(&format!(
                "the clerk's word is answered with {status}"
            ))),
        }
    }

    async fn submit(&self, member: usize, body: &Body) -> Result<Outcome, Failure> {
        let network = self.client.network().await?.network;
        let request = Request::sign(network, body, &self.members[member].key);
        self.client
            .submit(&request)
            .await
            .map_err(|error| match error {
                SubmitError::Refused(refusal) => wrong(&refusal.to_string()),
                SubmitError::Unknown(error) => Failure::new(Exit::Unknown, error.to_string()),
                SubmitError::Failed(error) => error.into(),
            })
    }

    /// Reads what the log has of the book since the last time.
    pub(super) async fn read(&mut self) -> Result<(), Failure> {
        loop {
            let page = self
                .client
                .entries(self.next, daybook_client::consortium::PAGE_ENTRIES_MAX)
                .await?;
            for (position, entry) in &page.entries {
                self.book
                    .record(entry, position.height)
                    .map_err(|error| wrong(&format!("the book does not go on: {error}")))?;
                self.book.forget(position.height);
            }
            self.next = page.next;
            if page.is_last {
                return Ok(());
            }
        }
    }
}
