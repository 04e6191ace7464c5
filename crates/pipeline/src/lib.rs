//! The way of a transaction from bytes to a durable block to every follower, and the one handle that
//! gateways hold: submit, view, follow.
//!
//! ```text
//! submit ─► queue ─► verify (all cores) ─► feed ─► build ─► commit ─► publish ─► outcomes, followers
//!           bounded  parse, signatures     order   apply    one flush
//! ```

mod clock;
mod commit;
mod consortium;
mod feed;
mod follow;
mod machine;
mod mailbox;
mod meters;
mod node;
mod pool;
mod submission;
mod tracker;
mod verify;

pub use clock::{Clock, SystemClock};
pub use consortium::ConsortiumAnswer;
pub use follow::{FollowError, Follower, Published, STREAMS};
pub use mailbox::{Outcomes, Submitter};
pub use node::{Node, Running, StartOptions, Status, start};
pub use submission::{Acknowledge, Door, Outcome};
pub use tracker::{TrackerAnswer, TrackerCaller, TrackerOptions, Wake};
