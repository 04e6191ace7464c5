//! What needs no state: whether a request is whole, and signed by whom it says.

use std::collections::BTreeSet;

use super::{
    command::{Action, Batch, Body, Command, Quality, Request, parse, root_of},
    container::{self, Documents},
    limits::DEPTH_MAX,
    refusal::{Code, Refusal},
    signature,
    signed::check_entry,
};
use crate::{
    PublicKey,
    block::{BlockHash, Genesis},
};

/// Proves requests for one network. Whether the signing key is the member's present one is decided
/// later, by the book.
#[derive(Clone, Debug)]
pub struct Prover {
    network: BlockHash,
    founders: BTreeSet<PublicKey>,
}

impl Prover {
    /// A prover for the network that begins with `genesis`.
    pub fn new(genesis: &Genesis) -> Prover {
        Prover {
            network: genesis.hash(),
            founders: genesis
                .validators
                .iter()
                .map(|validator| validator.key)
                .collect(),
        }
    }

    /// The network's name in requests: the hash of its genesis.
    pub fn network(&self) -> BlockHash {
        self.network
    }

    /// Proves a request: its form and bounds, its signature, those of its cards and entries, and the
    /// Merkle root.
    ///
    /// # Errors
    /// Why it can never be taken.
    pub fn prove(&mut self, request: Request) -> Result<Command, Refusal> {
        let mut command = Command::read(&parse(&request.text)?)?;
        if command.network != self.network {
            return Err(Refusal::new(
                Code::WrongNetwork,
                format!("this is network {}", self.network),
            ));
        }
        if !signature::holds(&command.signer, &command.signed_bytes(), &command.signature) {
            return Err(Refusal::new(
                Code::BadSignature,
                "\"signature\" is not the signer's over the canonical text of \"command\"",
            ));
        }
        command.quality = match &command.body {
            Body::Found { members, .. } => {
                self.founder(&command.signer)?;
                members.iter().try_for_each(|card| card.prove())?;
                Quality::BEST
            }
            Body::Admit { card } => {
                self.founder(&command.signer)?;
                card.prove()?;
                Quality::BEST
            }
            Body::Announce { card } => {
                card.prove()?;
                Quality::BEST
            }
            Body::Propose(propose) => match &propose.action {
                Action::Create { ledgers, batch, .. } | Action::Append { ledgers, batch } => {
                    prove_batch(batch, ledgers, &command.signer)?
                }
                Action::Admit { card } => {
                    card.prove()?;
                    Quality::BEST
                }
                Action::Regroup { .. } | Action::Remove { .. } => Quality::BEST,
            },
            Body::Endorse { .. } | Body::Refuse { .. } | Body::Withdraw { .. } => Quality::BEST,
        };
        Ok(command)
    }

    fn founder(&self, signer: &PublicKey) -> Result<(), Refusal> {
        if self.founders.contains(signer) {
            Ok(())
        } else {
            Err(Refusal::new(
                Code::NotAFounder,
                format!("{signer} is none of the genesis's validators"),
            ))
        }
    }
}

fn prove_batch(batch: &Batch, ledgers: &[String], signer: &PublicKey) -> Result<Quality, Refusal> {
    let computed = root_of(&batch.entries);
    if computed != batch.root {
        return Err(Refusal::new(
            Code::WrongRoot,
            format!("the entries have root {computed}, not {}", batch.root),
        ));
    }
    let names: Vec<&str> = ledgers.iter().map(String::as_str).collect();
    let mut quality = Quality::BEST;
    for (place, text) in batch.entries.iter().enumerate() {
        let place = place + 1;
        let bad = |what: String| Refusal::new(Code::BadEntrySignature, what);
        let entry = text.to_object();
        let (by, seconds) = check_entry(&entry, DEPTH_MAX)
            .map_err(|error| bad(format!("entry {place}: {error}")))?;
        if by != *signer {
            return Err(bad(format!(
                "entry {place} is signed by {by}, and the proposal by {signer}"
            )));
        }
        let (earliest, latest) = quality.signed.unwrap_or((seconds, seconds));
        quality.signed = Some((earliest.min(seconds), latest.max(seconds)));
        while let Err(fault) = container::check(&entry, &names, quality.documents) {
            quality.fault = format!("entry {place}: {fault}");
            quality.documents = match quality.documents {
                Documents::Strict => Documents::Compatible,
                _ => Documents::Any,
            };
        }
    }
    Ok(quality)
}
