//! The development faucet of a node: what it gives, and whether there is one at all.
//!
//! Where a tracker runs, the faucet gives its token, from what was not deposited: what is got at one door
//! can then be spent at every other. Without a tracker it has a token of its own.

use daybook_gateway::Faucet;
use daybook_pipeline::Node;

use crate::{
    config::Config, datadir::DataDir, failure::Failure, keyfile, passphrase::Source, tracker,
};

/// The key of the faucet's own token in the data directory. Never encrypted: what it opens is worth
/// nothing.
const KEY_FILE: &str = "faucet.key";

/// The faucet of a development node; `None` for any other.
pub(crate) async fn open(
    config: &Config,
    dir: &DataDir,
    node: &Node,
    tracker: Option<&tracker::Keys>,
) -> Result<Option<Faucet>, Failure> {
    if !config.dev {
        return Ok(None);
    }
    let faucet = match tracker.and_then(|keys| keys.faucet(node)) {
        Some(faucet) => faucet,
        None => own(dir, node).await?,
    };
    tracing::warn!(asset = %faucet.asset(), "development: the faucet gives tokens to everybody");
    Ok(Some(faucet))
}

/// A faucet with a token of its own.
async fn own(dir: &DataDir, node: &Node) -> Result<Faucet, Failure> {
    let path = dir.path().join(KEY_FILE);
    if !path.exists() {
        keyfile::write(&path, &keyfile::generate(), None)?;
    }
    let key = keyfile::read_with(&path, &Source::default())?;
    Faucet::open(node, key)
        .await
        .map_err(|reason| Failure::refused(format!("the faucet: {reason}")))
}
