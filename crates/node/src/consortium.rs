//! The consortium's book of a node: whether it is served, and who its first members are.

use std::path::PathBuf;

use daybook_ledger::{
    SigningKey,
    consortium::{
        Admission, Body, Card, Code, DEADLINE_MS_MAX, DEPTH_MAX, Documents, MEMBERS_MAX, Prover,
        Request, Settings as NetworkSettings,
    },
    json::Value,
};
use daybook_pipeline::{ConsortiumAnswer, Node};

use crate::{
    failure::{Exit, Failure},
    settings::{Settings, SettingsError},
};

/// Bytes of a card's file at most: a wrong path to a large file is refused, not read. A card has six texts
/// of at most 1,024 bytes.
const CARD_FILE_BYTES_MAX: u64 = 64 << 10;

/// What a node must know to serve the consortium's book.
#[derive(Clone, Debug)]
pub(crate) struct ConsortiumConfig {
    /// Files with the members' cards.
    pub(crate) members: Vec<PathBuf>,
    /// The rules with which the network is founded.
    pub(crate) settings: NetworkSettings,
}

impl ConsortiumConfig {
    /// The settings of the section; `None` where the book is not served.
    ///
    /// # Errors
    /// When a value is out of its bounds.
    pub(crate) fn from_settings(
        settings: &Settings,
    ) -> Result<Option<ConsortiumConfig>, SettingsError> {
        if !settings.switch("consortium.enabled") {
            return Ok(None);
        }
        let members: Vec<PathBuf> = settings
            .list("consortium.members")
            .iter()
            .map(PathBuf::from)
            .collect();
        if members.len() > MEMBERS_MAX {
            let problem = format!("must name at most {MEMBERS_MAX} files");
            return Err(settings.bad("consortium.members", problem));
        }
        let seconds = settings.count("consortium.deadline_seconds");
        let deadline_ms_max = seconds.saturating_mul(1_000);
        if !(1..=DEADLINE_MS_MAX).contains(&deadline_ms_max) {
            let problem = format!("must be 1 to {}", DEADLINE_MS_MAX / 1_000);
            return Err(settings.bad("consortium.deadline_seconds", problem));
        }
        Ok(Some(ConsortiumConfig {
            members,
            settings: NetworkSettings {
                admission: match settings.text("consortium.admission") {
                    "members" => Admission::Members,
                    _ => Admission::Validators,
                },
                deadline_ms_max,
                documents: Documents::from_name(settings.text("consortium.documents"))
                    .unwrap_or(Documents::Strict),
            },
        }))
    }

    /// Founds the network with the members that the settings name, or admits those that are new. Without
    /// named members nothing is written.
    ///
    /// # Errors
    /// When a card cannot be read, or the book refuses it.
    pub(crate) async fn set_up(&self, node: &Node, key: &SigningKey) -> Result<(), Failure> {
        if self.members.is_empty() {
            return Ok(());
        }
        let cards: Vec<Card> = self
            .members
            .iter()
            .map(|path| read_card(path))
            .collect::<Result<_, _>>()?;
        if node.store().consortium(|book| book.settings().is_none()) {
            let count = cards.len();
            let body = Body::Found {
                members: cards,
                settings: self.settings.clone(),
            };
            ask(node, key, &body, "the network of the consortium").await?;
            tracing::info!(members = count, "the consortium's network is founded");
            return Ok(());
        }
        for card in cards {
            let did = card.did();
            if node.store().consortium(|book| book.member(did).is_some()) {
                continue;
            }
            let about = format!("member {did}");
            ask(node, key, &Body::Admit { card }, &about).await?;
            tracing::info!(%did, "a member is admitted to the consortium's network");
        }
        Ok(())
    }
}

/// Asks the book as a validator of the genesis.
async fn ask(node: &Node, key: &SigningKey, body: &Body, about: &str) -> Result<(), Failure> {
    let network = Prover::new(node.store().genesis()).network();
    match node.ask_consortium(Request::sign(network, body, key)).await {
        ConsortiumAnswer::Recorded { .. } => Ok(()),
        ConsortiumAnswer::Refused(refusal) if refusal.code == Code::NotAdmittedSo => {
            // The members decide about it themselves.
            tracing::warn!("{about} is not admitted: {refusal}");
            Ok(())
        }
        ConsortiumAnswer::Refused(refusal) => Err(Failure::usage(format!(
            "consortium.members: {about}: {refusal}"
        ))),
        ConsortiumAnswer::Busy | ConsortiumAnswer::Off | ConsortiumAnswer::Stopped => Err(
            Failure::new(Exit::System, format!("{about} could not be recorded")),
        ),
    }
}

/// Reads a member's card as `daybook member init` wrote it.
pub(crate) fn read_card(path: &std::path::Path) -> Result<Card, Failure> {
    use std::io::Read;
    let about = || format!("the member's card {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Failure::system(about(), &e))?;
    file.take(CARD_FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|e| Failure::system(about(), &e))?;
    if text.len() as u64 > CARD_FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{}: too long for a card", about())));
    }
    let value = Value::parse(&text, DEPTH_MAX)
        .map_err(|error| Failure::usage(format!("{}: {error}", about())))?;
    Card::read(&value).map_err(|refusal| Failure::usage(format!("{}: {refusal}", about())))
}
