//! What the pipeline's meters tell.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Gives the meters their lines of help. The recorder must be there.
pub(crate) fn describe() {
    describe_gauge!("daybook_height", "Height of the newest block");
    describe_counter!(
        "daybook_blocks_total",
        "Blocks made durable since the start"
    );
    describe_histogram!("daybook_block_transactions", "Entries of a block");
    describe_histogram!(
        "daybook_flush_seconds",
        Unit::Seconds,
        "Time to write a block and flush it to disk"
    );
    describe_counter!(
        "daybook_transactions_committed_total",
        "Entries of all books that are in durable blocks"
    );
    describe_counter!(
        "daybook_transactions_rejected_total",
        "Transactions of the asset ledger that were refused, by class"
    );
    describe_counter!(
        "daybook_transactions_put_off_total",
        "Transactions whose senders were asked to try again"
    );
    describe_counter!(
        "daybook_consortium_requests_total",
        "Requests to the consortium's book that were recorded, by kind"
    );
    describe_counter!(
        "daybook_consortium_refusals_total",
        "Requests to the consortium's book that were refused, by code"
    );
}
