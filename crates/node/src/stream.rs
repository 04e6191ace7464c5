//! `daybook stream`.

use daybook_client::{Filter, From, Stream};
use daybook_ledger::Operation;
use tokio::time::timeout;

use crate::{
    cli::{self, OperationName, StreamName},
    failure::{Exit, Failure},
    out::Out,
    remote,
};

pub(crate) async fn run(args: &cli::Stream, out: Out) -> Result<(), Failure> {
    let client = remote::client(&args.node)?;
    let stream = match args.stream {
        StreamName::ValidTransactions => Stream::ValidTransactions,
        StreamName::ValidBlocks => Stream::ValidBlocks,
        StreamName::RejectedTransactions => Stream::RejectedTransactions,
    };
    let filter = Filter {
        public_key: args.public_key,
        asset: args.asset,
        operation: args.operation.map(|operation| match operation {
            OperationName::Create => Operation::Create,
            OperationName::Transfer => Operation::Transfer,
            OperationName::Compose => Operation::Compose,
            OperationName::Decompose => Operation::Decompose,
        }),
    };
    let from = args.from.map_or(From::Now, From::Cursor);
    let mut follow = client.follow(stream, from, filter);
    // The first connection tells whether the address is right; later ones are tried again for ever.
    match timeout(args.node.timeout, follow.ready()).await {
        Ok(ready) => ready?,
        Err(_) => {
            return Err(Failure::new(
                Exit::Unreachable,
                format!("cannot reach {}", args.node.url),
            ));
        }
    }
    let mut events = 0;
    while args.max.is_none_or(|max| events < max) {
        let next = match args.until_idle {
            None => follow.next().await,
            Some(idle) => match timeout(idle, follow.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let event = next?;
        events += 1;
        if args.show_cursor {
            // The event as it came, so that its members keep their order and numbers their text.
            out.line(&format!(
                "{{\"cursor\":\"{}\",\"event\":{}}}",
                event.cursor, event.text
            ));
        } else {
            out.line(&event.text);
        }
    }
    Ok(())
}
