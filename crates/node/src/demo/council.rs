//! Three organisations that share the ledger of a container: each proposes, and each agrees to what its
//! own copy of the book says.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use daybook_client::{
    Client,
    consortium::{ConsortiumClient, Outcome, SubmitError},
};
use daybook_ledger::{
    BlockTime, SigningKey,
    consortium::{
        Action, Batch, Body, Book, Card, DEPTH_MAX, Did, Policy, Profile, Propose, Request,
        canon_object, sign_entry,
    },
    json::{Object, Value},
};

use super::story::wrong;
use crate::{
    failure::{Exit, Failure},
    keyfile,
};

/// The organisations: what their files are called, and their names.
const ORGANISATIONS: [(&str, &str); 3] = [
    ("acme", "Acme Shipping"),
    ("borealis", "Borealis Rail"),
    ("customs", "Harbour Customs"),
];
/// The container that they share.
pub(super) const CONTAINER: &str = "CONT-1";
/// How long the others may think about a proposal, in milliseconds: longer than a demo is watched.
const THINK_MS: u64 = 300_000;

/// The organisations, and the book as they see it.
pub(super) struct Council {
    client: ConsortiumClient,
    members: Vec<Member>,
    /// Made of the entries of the log alone: what they endorse does not rest on what the node says.
    book: Book,
    next: daybook_ledger::Position,
}

struct Member {
    name: &'static str,
    key: SigningKey,
}

impl Member {
    fn did(&self) -> Did {
        Did::of(&self.key.public_key())
    }
}

/// Makes keys and cards in the demo's folder, and tells the node of the cards.
pub(super) fn prepare(folder: &Path, node: &Path) -> Result<(), Failure> {
    let system = |path: &Path, error: &std::io::Error| Failure::system(path.display(), error);
    let mut cards = Vec::new();
    for (file, name) in ORGANISATIONS {
        let key = keyfile::generate();
        keyfile::write(&folder.join(format!("{file}.key")), &key, None)?;
        let profile = Profile {
            label: name.to_owned(),
            ..Profile::default()
        };
        let card = Card::first(profile, &key);
        let path = folder.join(format!("{file}.card"));
        std::fs::write(&path, canon_object(&card.to_object())).map_err(|e| system(&path, &e))?;
        cards.push(toml::Value::String(path.display().to_string()));
    }
    let settings = format!(
        "[consortium]\nmembers = {}\ndocuments = \"any\"\n",
        toml::Value::Array(cards)
    );
    std::fs::create_dir_all(node).map_err(|e| system(node, &e))?;
    let path = node.join(crate::settings::FILE_NAME);
    std::fs::write(&path, settings).map_err(|e| system(&path, &e))
}

impl Council {
    pub(super) fn new(client: &Client, folder: &Path) -> Result<Council, Failure> {
        let members = ORGANISATIONS
            .into_iter()
            .map(|(file, name)| {
                let path = folder.join(format!("{file}.key"));
                let key = keyfile::read_with(&path, &crate::passphrase::Source::default())?;
                Ok(Member { name, key })
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Council {
            client: ConsortiumClient::new(client.clone()),
            members,
            book: Book::default(),
            next: ConsortiumClient::BEGINNING,
        })
    }

    pub(super) fn name(&self, member: usize) -> &'static str {
        self.members[member].name
    }

    pub(super) fn size(&self) -> usize {
        self.members.len()
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
            participants: self.members.iter().map(Member::did).collect(),
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
            member: self.members[member].did(),
            request: request.to_owned(),
            deadline: BlockTime(network.now.0.saturating_add(THINK_MS)),
            action,
        });
        self.submit(member, &body).await
    }

    /// Endorses what a proposal comes to in this member's own copy of the book.
    pub(super) async fn endorse(
        &mut self,
        member: usize,
        proposal: &Outcome,
    ) -> Result<Outcome, Failure> {
        self.read().await?;
        let (did, id) = (self.members[member].did(), proposal.entry.id());
        let asked = self.book.asked(&id, did).ok_or_else(|| {
            wrong(&format!(
                "{} is not asked about {id}",
                self.members[member].name
            ))
        })?;
        let body = Body::Endorse {
            member: did,
            proposal: id,
            agreed: asked.agreed,
        };
        self.submit(member, &body).await
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
