//! Which resource a path names. Every path works with and without a trailing slash and with doubled
//! slashes, but for the streams, whose paths are exact (asset ledger, sections 3.1 and 9).
//!
//! A table of our own in place of a general router: the rules on slashes, 405 and HEAD are the same
//! for all routes, the name of a route labels its metrics, and a request costs no allocation.

use daybook_wire::assets::StreamKind;
use http::{HeaderValue, Method};

/// A resource of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /`.
    Root,
    /// `GET /api/v1`.
    Api,
    /// `POST` and `GET /api/v1/transactions`.
    Transactions,
    /// `GET /api/v1/transactions/<id>`.
    Transaction,
    /// `GET /api/v1/transactions/<id>/status`.
    TransactionStatus,
    /// `POST /api/v1/transactions/batch`.
    Batch,
    /// `GET /api/v1/transactions/submit`, a WebSocket.
    Submit,
    /// `GET /api/v1/outputs`.
    Outputs,
    /// `GET /api/v1/blocks`.
    Blocks,
    /// `GET /api/v1/blocks/latest`.
    LatestBlock,
    /// `GET /api/v1/blocks/<height>`.
    Block,
    /// `GET /api/v1/assets`.
    Assets,
    /// `GET /api/v1/assets/<cid>`.
    AssetsHolding,
    /// `GET /api/v1/metadata`.
    Metadata,
    /// `GET /api/v1/metadata/<cid>`.
    MetadataHolding,
    /// `GET /api/v1/validators`.
    Validators,
    /// `GET /api/v1/openapi.json`.
    OpenApi,
    /// `GET /api/v1/streams/valid_transactions`, a WebSocket.
    ValidTransactions,
    /// `GET /api/v1/streams/valid_blocks`, a WebSocket.
    ValidBlocks,
    /// `GET /api/v1/streams/rejected_transactions`, a WebSocket.
    RejectedTransactions,
    /// `GET /api/v1/streams/events`, a WebSocket or server-sent events.
    Events,
    /// `GET /tracker`, a WebSocket; and `GET /` with an upgrade.
    Tracker,
    /// `GET /ws`, the same WebSocket.
    TrackerSocket,
    /// `GET /api/v1/tracker`.
    TrackerInfo,
    /// `GET /api/v1/consortium`.
    Consortium,
    /// `POST /api/v1/consortium/requests`.
    ConsortiumRequests,
    /// `GET /api/v1/consortium/entries`.
    ConsortiumEntries,
    /// `GET /api/v1/consortium/members`.
    ConsortiumMembers,
    /// `GET /api/v1/consortium/members/<did>`.
    ConsortiumMember,
    /// `GET /api/v1/consortium/ledgers`.
    ConsortiumLedgers,
    /// `GET /api/v1/consortium/ledgers/<name>`.
    ConsortiumLedger,
    /// `GET /api/v1/consortium/ledgers/<name>/entries`.
    ConsortiumLedgerEntries,
    /// `GET /api/v1/consortium/ledgers/<name>/proof`.
    ConsortiumLedgerProof,
    /// `GET /api/v1/consortium/ledgers/<name>/export`.
    ConsortiumLedgerExport,
    /// `GET /api/v1/consortium/proposals/<id>`.
    ConsortiumProposal,
    /// `GET` and `POST /send_tokens`, the development faucet.
    Faucet,
    /// `GET` and `POST /api/v1/machines`, machines that use this node.
    Machines,
    /// `GET /console`, the web console.
    Console,
    /// `GET /console/data/…`, what its pages read.
    ConsoleData,
    /// `GET /console/live`, the WebSocket behind them.
    ConsoleLive,
    /// `GET /console/…`, its files.
    ConsoleFile,
    /// `GET /healthz`.
    Healthz,
    /// `GET /readyz`.
    Readyz,
    /// `GET /metrics`.
    Metrics,
}

impl Route {
    /// All routes.
    pub const ALL: [Route; 44] = [
        Route::Root,
        Route::Api,
        Route::Transactions,
        Route::Transaction,
        Route::TransactionStatus,
        Route::Batch,
        Route::Submit,
        Route::Outputs,
        Route::Blocks,
        Route::LatestBlock,
        Route::Block,
        Route::Assets,
        Route::AssetsHolding,
        Route::Metadata,
        Route::MetadataHolding,
        Route::Validators,
        Route::OpenApi,
        Route::ValidTransactions,
        Route::ValidBlocks,
        Route::RejectedTransactions,
        Route::Events,
        Route::Tracker,
        Route::TrackerSocket,
        Route::TrackerInfo,
        Route::Consortium,
        Route::ConsortiumRequests,
        Route::ConsortiumEntries,
        Route::ConsortiumMembers,
        Route::ConsortiumMember,
        Route::ConsortiumLedgers,
        Route::ConsortiumLedger,
        Route::ConsortiumLedgerEntries,
        Route::ConsortiumLedgerProof,
        Route::ConsortiumLedgerExport,
        Route::ConsortiumProposal,
        Route::Faucet,
        Route::Machines,
        Route::Console,
        Route::ConsoleData,
        Route::ConsoleLive,
        Route::ConsoleFile,
        Route::Healthz,
        Route::Readyz,
        Route::Metrics,
    ];

    /// Its path, with its parameters in braces.
    pub const fn template(self) -> &'static str {
        match self {
            Route::Root => "/",
            Route::Api => "/api/v1",
            Route::Transactions => "/api/v1/transactions",
            Route::Transaction => "/api/v1/transactions/{id}",
            Route::TransactionStatus => "/api/v1/transactions/{id}/status",
            Route::Batch => "/api/v1/transactions/batch",
            Route::Submit => "/api/v1/transactions/submit",
            Route::Outputs => "/api/v1/outputs",
            Route::Blocks => "/api/v1/blocks",
            Route::LatestBlock => "/api/v1/blocks/latest",
            Route::Block => "/api/v1/blocks/{height}",
            Route::Assets => "/api/v1/assets",
            Route::AssetsHolding => "/api/v1/assets/{cid}",
            Route::Metadata => "/api/v1/metadata",
            Route::MetadataHolding => "/api/v1/metadata/{cid}",
            Route::Validators => "/api/v1/validators",
            Route::OpenApi => "/api/v1/openapi.json",
            Route::ValidTransactions => "/api/v1/streams/valid_transactions",
            Route::ValidBlocks => "/api/v1/streams/valid_blocks",
            Route::RejectedTransactions => "/api/v1/streams/rejected_transactions",
            Route::Events => "/api/v1/streams/events",
            Route::Tracker => "/tracker",
            Route::TrackerSocket => "/ws",
            Route::TrackerInfo => "/api/v1/tracker",
            Route::Consortium => "/api/v1/consortium",
            Route::ConsortiumRequests => "/api/v1/consortium/requests",
            Route::ConsortiumEntries => "/api/v1/consortium/entries",
            Route::ConsortiumMembers => "/api/v1/consortium/members",
            Route::ConsortiumMember => "/api/v1/consortium/members/{did}",
            Route::ConsortiumLedgers => "/api/v1/consortium/ledgers",
            Route::ConsortiumLedger => "/api/v1/consortium/ledgers/{name}",
            Route::ConsortiumLedgerEntries => "/api/v1/consortium/ledgers/{name}/entries",
            Route::ConsortiumLedgerProof => "/api/v1/consortium/ledgers/{name}/proof",
            Route::ConsortiumLedgerExport => "/api/v1/consortium/ledgers/{name}/export",
            Route::ConsortiumProposal => "/api/v1/consortium/proposals/{proposal}",
            Route::Faucet => "/send_tokens",
            Route::Machines => "/api/v1/machines",
            Route::Console => "/console",
            Route::ConsoleData => "/console/data/{question}",
            Route::ConsoleLive => "/console/live",
            Route::ConsoleFile => "/console/{file}",
            Route::Healthz => "/healthz",
            Route::Readyz => "/readyz",
            Route::Metrics => "/metrics",
        }
    }

    /// Whether it takes GET, and with it HEAD.
    pub const fn reads(self) -> bool {
        !matches!(self, Route::Batch | Route::ConsortiumRequests)
    }

    /// Whether it takes POST.
    pub const fn writes(self) -> bool {
        matches!(
            self,
            Route::Transactions
                | Route::Batch
                | Route::ConsortiumRequests
                | Route::Faucet
                | Route::Machines
        )
    }

    /// The stream it is.
    pub const fn stream(self) -> Option<StreamKind> {
        match self {
            Route::ValidTransactions => Some(StreamKind::ValidTransactions),
            Route::ValidBlocks => Some(StreamKind::ValidBlocks),
            Route::RejectedTransactions => Some(StreamKind::RejectedTransactions),
            _ => None,
        }
    }

    /// Whether it is a stream of any kind.
    pub(crate) const fn streams(self) -> bool {
        self.stream().is_some() || matches!(self, Route::Events)
    }

    /// Whether it is a WebSocket through which the ledger is changed.
    pub(crate) const fn submits(self) -> bool {
        matches!(self, Route::Submit | Route::Tracker | Route::TrackerSocket)
    }

    /// Whether it belongs to the web console: for that alone, and no part of any protocol.
    pub const fn is_console(self) -> bool {
        matches!(
            self,
            Route::Console | Route::ConsoleData | Route::ConsoleLive | Route::ConsoleFile
        )
    }

    /// Whether it is one of the consortium's book.
    pub(crate) const fn is_consortium(self) -> bool {
        matches!(
            self,
            Route::Consortium
                | Route::ConsortiumRequests
                | Route::ConsortiumEntries
                | Route::ConsortiumMembers
                | Route::ConsortiumMember
                | Route::ConsortiumLedgers
                | Route::ConsortiumLedger
                | Route::ConsortiumLedgerEntries
                | Route::ConsortiumLedgerProof
                | Route::ConsortiumLedgerExport
                | Route::ConsortiumProposal
        )
    }

    /// Whether it tells how the node runs rather than what the ledger holds.
    pub(crate) const fn is_operational(self) -> bool {
        matches!(
            self,
            Route::Healthz | Route::Readyz | Route::Metrics | Route::Machines
        )
    }

    pub(crate) fn takes(self, method: &Method) -> bool {
        match *method {
            Method::GET | Method::HEAD => self.reads(),
            Method::POST => self.writes(),
            Method::OPTIONS => true,
            _ => false,
        }
    }

    /// The methods it takes, as `Allow` lists them.
    pub(crate) const fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match (self.reads(), self.writes()) {
            (true, true) => "HEAD, GET, OPTIONS, POST",
            (true, false) => "HEAD, GET, OPTIONS",
            (false, true) => "OPTIONS, POST",
            (false, false) => "OPTIONS",
        })
    }

    /// The route of `path` and its variable segment, empty where it has none.
    pub(crate) fn find(path: &str) -> Option<(Route, &str)> {
        /// Segments of the longest path.
        const SEGMENTS_MAX: usize = 6;
        let mut segments = [""; SEGMENTS_MAX];
        let mut count = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            *segments.get_mut(count)? = segment;
            count += 1;
        }
        let found = match segments[..count] {
            [] => (Route::Root, ""),
            ["tracker"] => (Route::Tracker, ""),
            ["ws"] => (Route::TrackerSocket, ""),
            ["api", "v1", "tracker"] => (Route::TrackerInfo, ""),
            ["api", "v1", "consortium"] => (Route::Consortium, ""),
            ["api", "v1", "consortium", "requests"] => (Route::ConsortiumRequests, ""),
            ["api", "v1", "consortium", "entries"] => (Route::ConsortiumEntries, ""),
            ["api", "v1", "consortium", "members"] => (Route::ConsortiumMembers, ""),
            ["api", "v1", "consortium", "members", did] => (Route::ConsortiumMember, did),
            ["api", "v1", "consortium", "ledgers"] => (Route::ConsortiumLedgers, ""),
            ["api", "v1", "consortium", "ledgers", name] => (Route::ConsortiumLedger, name),
            ["api", "v1", "consortium", "ledgers", name, "entries"] => {
                (Route::ConsortiumLedgerEntries, name)
            }
            ["api", "v1", "consortium", "ledgers", name, "proof"] => {
                (Route::ConsortiumLedgerProof, name)
            }
            ["api", "v1", "consortium", "ledgers", name, "export"] => {
                (Route::ConsortiumLedgerExport, name)
            }
            ["api", "v1", "consortium", "proposals", id] => (Route::ConsortiumProposal, id),
            ["console"] => (Route::Console, ""),
            ["console", "live"] => (Route::ConsoleLive, ""),
            ["console", "data", ..] => (Route::ConsoleData, ""),
            ["console", ..] => (Route::ConsoleFile, ""),
            ["healthz"] => (Route::Healthz, ""),
            ["readyz"] => (Route::Readyz, ""),
            ["send_tokens"] => (Route::Faucet, ""),
            ["metrics"] => (Route::Metrics, ""),
            ["api", "v1"] => (Route::Api, ""),
            ["api", "v1", "transactions"] => (Route::Transactions, ""),
            ["api", "v1", "transactions", "batch"] => (Route::Batch, ""),
            ["api", "v1", "transactions", "submit"] => (Route::Submit, ""),
            ["api", "v1", "transactions", id] => (Route::Transaction, id),
            ["api", "v1", "transactions", id, "status"] => (Route::TransactionStatus, id),
            ["api", "v1", "machines"] => (Route::Machines, ""),
            ["api", "v1", "outputs"] => (Route::Outputs, ""),
            ["api", "v1", "blocks"] => (Route::Blocks, ""),
            ["api", "v1", "blocks", "latest"] => (Route::LatestBlock, ""),
            ["api", "v1", "blocks", height] => (Route::Block, height),
            ["api", "v1", "assets"] => (Route::Assets, ""),
            ["api", "v1", "assets", cid] => (Route::AssetsHolding, cid),
            ["api", "v1", "metadata"] => (Route::Metadata, ""),
            ["api", "v1", "metadata", cid] => (Route::MetadataHolding, cid),
            ["api", "v1", "validators"] => (Route::Validators, ""),
            ["api", "v1", "openapi.json"] => (Route::OpenApi, ""),
            ["api", "v1", "streams", "events"] => (Route::Events, ""),
            ["api", "v1", "streams", name] => {
                let route = match StreamKind::from_name(name)? {
                    StreamKind::ValidTransactions => Route::ValidTransactions,
                    StreamKind::ValidBlocks => Route::ValidBlocks,
                    StreamKind::RejectedTransactions => Route::RejectedTransactions,
                };
                return (route.template() == path).then_some((route, ""));
            }
            _ => return None,
        };
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_template_with_any_slashes() {
        for route in Route::ALL {
            let path = route.template();
            assert_eq!(
                Route::find(path).map(|found| found.0),
                Some(route),
                "{path}"
            );
            for variant in [
                format!("{path}/"),
                format!("/{path}"),
                path.replace("v1/", "v1//"),
            ] {
                let exact = route.stream().is_some() && variant != path;
                let expected = (!exact).then_some(route);
                assert_eq!(
                    Route::find(&variant).map(|found| found.0),
                    expected,
                    "{variant}"
                );
            }
        }
    }

    #[test]
    fn other_paths_are_unknown() {
        for path in [
            "/api",
            "/api/v2",
            "/api/v1/nope",
            "/a/b/c/d/e/f/g",
            "/api/v1/blocks/1/2",
            "x",
        ] {
            assert_eq!(Route::find(path), None, "{path}");
        }
    }
}
