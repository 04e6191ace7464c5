//! A client for a Daybook node: submit transactions, ask, and follow what is committed.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daybook_client::{Client, Fate, Filter, From, Stream, Submission};
//!
//! let client = Client::new("http://127.0.0.1:9984".parse()?)?;
//! let signed = Submission::from_text(std::fs::read("transaction.json")?);
//! match client.commit(&signed).await {
//!     Fate::Committed(receipt) => println!("block {}", receipt.position.height.0),
//!     Fate::Refused(refusal) => println!("refused: {refusal}"),
//!     Fate::Unknown(error) => println!("ask again later: {error}"),
//! }
//!
//! let mut events = client.follow(Stream::ValidTransactions, From::Now, Filter::default());
//! println!("{:?}", events.next().await?.frame);
//! # Ok(())
//! # }
//! ```
//!
//! A write has three outcomes: committed, refused, or unknown because the connection broke. A node
//! takes each transaction at most once, so an unknown outcome is settled by asking for the
//! transaction's id or by sending the same bytes again; [`Client::commit`] does both.

mod answer;
mod bulk;
pub mod bus;
mod client;
pub mod consortium;
mod endpoint;
mod error;
mod events;
mod follow;
mod http;
mod machines;
mod model;
mod place;
mod reader;
mod socket;
mod token;
pub mod tracker;
mod transport;

pub use answer::Numbered;
pub use bulk::{BatchAnswers, BatchSender, SocketAnswers, SocketSender};
pub use client::{Client, ClientBuilder, Submission};
pub use endpoint::{Endpoint, NotAnEndpoint};
pub use error::{Error, Refusal};
pub use events::{BookEvent, EventFilter, Events};
pub use follow::{Event, Filter, Follow};
pub use model::{
    Acknowledge, Answer, Block, Fate, Frame, Hit, Mode, Receipt, Status, Stream, Validator,
    ValidatorKey,
};
pub use place::{Cursor, From, NotACursor};
pub use reader::reader;
pub use token::Token;
