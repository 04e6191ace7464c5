//! `daybook events`.

use daybook_client::{EventFilter, From};
use tokio::time::timeout;

use crate::{
    cli,
    failure::{Exit, Failure},
    out::Out,
    remote,
};

pub(crate) async fn run(args: &cli::Events, out: Out) -> Result<(), Failure> {
    let client = remote::client(&args.node)?;
    let filter = EventFilter {
        kinds: args.kind.clone(),
        keys: args.key.clone(),
    };
    let from = args.from.map_or(From::Now, From::Cursor);
    let mut events = client.events(from, filter);
    // The first connection tells whether the address is right; later ones are tried again for ever.
    match timeout(args.node.timeout, events.ready()).await {
        Ok(ready) => ready?,
        Err(_) => {
            return Err(Failure::new(
                Exit::Unreachable,
                format!("cannot reach {}", args.node.url),
            ));
        }
    }
    let mut seen = 0;
    while args.max.is_none_or(|max| seen < max) {
        let next = match args.until_idle {
            None => events.next().await,
            Some(idle) => match timeout(idle, events.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        seen += 1;
        // The event as it came, so that its members keep their order and numbers their text.
        out.line(&next?.text);
    }
    Ok(())
}
