//! Whoever tells where things stand in the log: the node's general event stream, followed from its
//! beginning. Nothing is said to be committed that was not seen there.

use std::time::Duration;

use daybook_client::{BookEvent, Client, EventFilter, From};
use daybook_ledger::{Height, TransactionId};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::failure::{Exit, Failure};

/// Events that wait to be looked at; the stream waits with them.
const EVENTS_MAX: usize = 1024;
/// How long the stream may take to tell what was acknowledged already.
const WITHIN: Duration = Duration::from_secs(60);

/// A follower of every book.
pub(super) struct Witness {
    coming: mpsc::Receiver<Result<BookEvent, daybook_client::Error>>,
    seen: Vec<BookEvent>,
    following: JoinHandle<()>,
}

impl Witness {
    /// Follows from the first block on.
    pub(super) async fn new(client: &Client) -> Result<Witness, Failure> {
        let mut events = client
            .events(From::Height(Height(1)), EventFilter::default())
            .give_up_after(WITHIN);
        events.ready().await?;
        let (tell, coming) = mpsc::channel(EVENTS_MAX);
        let following = tokio::spawn(async move {
            loop {
                let event = events.next().await;
                let broken = event.is_err();
                if tell.send(event).await.is_err() || broken {
                    return;
                }
            }
        });
        Ok(Witness {
            coming,
            seen: Vec::new(),
            following,
        })
    }

    /// Everything that was looked at until now.
    pub(super) fn seen(&self) -> &[BookEvent] {
        &self.seen
    }

    /// The first event of the log that is `wanted`; waits for it.
    pub(super) async fn find(
        &mut self,
        what: &str,
        wanted: impl Fn(&BookEvent) -> bool,
    ) -> Result<BookEvent, Failure> {
        if let Some(event) = self.seen.iter().find(|event| wanted(event)) {
            return Ok(event.clone());
        }
        let looking = async {
            loop {
                let event = match self.coming.recv().await {
                    Some(event) => event?,
                    None => return Err(Failure::refused("the event stream has ended")),
                };
                self.seen.push(event.clone());
                if wanted(&event) {
                    return Ok(event);
                }
            }
        };
        timeout(WITHIN, looking).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::Refused,
                format!("the event stream does not tell of {what}"),
            ))
        })
    }

    pub(super) async fn id(&mut self, id: &TransactionId) -> Result<BookEvent, Failure> {
        self.find(&format!("transaction {id}"), |event| event.id == *id)
            .await
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.following.abort();
    }
}
