//! The wallet tracker's protocol: one JSON object per text frame, both ways (wallet tracker, sections 2,
//! 3 and 14).

mod page;
mod reply;
mod request;

pub use page::{Page, PageMeta};
pub use reply::{
    Envelope, SignedData, Timings, UNPARSED_BYTES_MAX, error_reply, event, lagged_event, reply,
};
pub use request::{Frame, Malformed, read};
