//! A machine says to its node that it is there, so that the node's console shows it.

use std::time::Duration;

use daybook_client::Client;
use tokio::time::{MissedTickBehavior, interval};

/// Between two times: the node forgets a machine after three of them.
const EVERY: Duration = Duration::from_secs(10);

/// Says so for ever. That the node cannot be told is no reason to stop: it may be another kind of node,
/// or one that wants a token.
pub(crate) async fn run(node: Client, name: String, role: String, url: String) {
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = true;
    loop {
        turns.tick().await;
        match node.announce_machine(&name, &role, &url).await {
            Ok(()) => told = true,
            // Once is enough for the log.
            Err(error) if told => {
                told = false;
                tracing::debug!(%error, "the node's console does not show this machine");
            }
            Err(_) => {}
        }
    }
}
