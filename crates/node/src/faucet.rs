//! The development faucet of a node: its key, and whether there is one at all.

use daybook_gateway::Faucet;
use daybook_pipeline::Node;

use crate::{config::Config, datadir::DataDir, failure::Failure, keyfile, passphrase::Source};

/// The faucet's key in the data directory. Never encrypted: what it opens is worth nothing.
const KEY_FILE: &str = "faucet.key";

/// The faucet of a development node; `None` for any other.
pub(crate) async fn open(
    config: &Config,
    dir: &DataDir,
    node: &Node,
) -> Result<Option<Faucet>, Failure> {
    if !config.dev {
        return Ok(None);
    }
    let path = dir.path().join(KEY_FILE);
    if !path.exists() {
        keyfile::write(&path, &keyfile::generate(), None)?;
    }
    let key = keyfile::read_with(&path, &Source::default())?;
    let faucet = Faucet::open(node, key)
        .await
        .map_err(|reason| Failure::refused(format!("the faucet: {reason}")))?;
    tracing::warn!(asset = %faucet.asset(), "development: the faucet gives tokens to everybody");
    Ok(Some(faucet))
}
