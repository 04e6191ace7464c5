//! The asset protocol of BigchainDB and Planetmint: parameters, answers, errors, stream frames and
//! the lines of the bulk doors (asset ledger, sections 2.3, 3 and 9).

mod answer;
mod discovery;
mod parameters;
mod query;
mod stream;
mod submit;

pub use answer::{
    METHOD_NOT_ALLOWED, NOT_FOUND, SearchElement, append_exact_matches, append_id, append_output,
    append_search_elements, append_text, block_by_transaction, block_head, block_tail, error_body,
    status_committed, status_pending, status_rejected, validators,
};
pub(crate) use answer::{append_hex, append_number};
pub use discovery::{Discovery, Endpoints};
pub(crate) use parameters::boolean;
pub use parameters::{
    BlockParameters, Dialect, ListParameters, Mode, OutputParameters, SearchParameters,
    TransactionParameters, mode, position,
};
pub(crate) use query::decode;
pub use query::{Query, Refusal};
pub use stream::{
    Filter, From, StreamKind, StreamParameters, block_frame, caught_up_notice, head_notice,
    lagging_notice, rejected_frame, transaction_frame,
};
pub use submit::{
    Label, Level, ResultLine, SocketMessage, TAG_BYTES_MAX, accepted_line, busy_line,
    committed_line, level, rejected_line, socket_message, stopped_line,
};
