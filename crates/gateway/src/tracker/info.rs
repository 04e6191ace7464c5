//! `GET /api/v1/tracker`: who the tracker is and how it runs, for people and for programs that want to
//! know before they open a WebSocket. Nothing of it is signed; command 65536 tells the same signed.

use daybook_ledger::tracker::reply;
use http::StatusCode;

use super::Tracker;
use crate::{
    reply::{Reply, json, unavailable},
    server::Gateway,
};
use daybook_wire::assets::append_text;

/// Answers with the tracker's public facts.
pub(crate) fn info(gateway: &Gateway, tracker: &Tracker) -> Reply {
    let store = gateway.node.store();
    let tip = store.tip();
    let read = store.tracker(|book| {
        let settings = book.settings()?.clone();
        let (addresses, channels) = book.open_counts();
        Some((
            settings,
            book.sequence(),
            book.wallet(),
            book.held(),
            addresses,
            channels,
        ))
    });
    let Some((settings, sequence, wallet, held, addresses, channels)) = read else {
        return unavailable("The tracker is not open yet");
    };
    let now = gateway.node.now();
    let frame = super::session::FRAME_BYTES_MAX as u64;
    let mut out = reply::capabilities(&settings, &tracker.suites, frame, now).into_bytes();
    out.pop();
    let mut text = |name: &str, value: &str| {
        out.push(b',');
        append_text(&mut out, name);
        out.push(b':');
        append_text(&mut out, value);
    };
    text("pem", &settings.pem);
    text("id", &tracker.keys.ids()[0].to_string());
    text("address", settings.wallet().as_str());
    text("wallet", &wallet.to_string());
    text("held", &held.to_string());
    out.extend_from_slice(
        format!(
            ",\"publicLog\":{},\"open\":{{\"addresses\":{addresses},\"channels\":{channels}}},\
             \"head\":{{\"height\":{},\"seq\":{sequence}}}}}",
            tracker.public_log, tip.height.0
        )
        .as_bytes(),
    );
    json(StatusCode::OK, out)
}
