//! What a node says about itself (asset ledger, section 3.4).

use serde::Serialize;

/// What goes into the two discovery documents.
#[derive(Clone, Debug)]
pub struct Discovery<'a> {
    /// The name of the software; suites of the drivers compare it.
    pub software: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Where its documentation is.
    pub docs: &'a str,
    /// `ws://HOST:PORT` of the event streams, without a path.
    pub streams: &'a str,
    /// Bytes of the largest transaction that is taken.
    pub max_transaction_size: usize,
}

/// The addresses of the API, each beginning with a common root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    assets: String,
    blocks: String,
    docs: String,
    max_transaction_size: usize,
    metadata: String,
    openapi: String,
    outputs: String,
    streamedblocks: String,
    streamedrejections: String,
    streams: String,
    transactions: String,
    validators: String,
}

#[derive(Serialize)]
struct Root<'a> {
    api: Versions,
    docs: &'a str,
    software: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Versions {
    v1: Endpoints,
}

impl Discovery<'_> {
    /// The answer to `GET /`.
    pub fn root(&self) -> Vec<u8> {
        serialise(&Root {
            api: Versions {
                v1: self.endpoints("/api/v1"),
            },
            docs: self.docs,
            software: self.software,
            version: self.version,
        })
    }

    /// The answer to `GET /api/v1`.
    pub fn v1(&self) -> Vec<u8> {
        serialise(&self.endpoints(""))
    }

    fn endpoints(&self, root: &str) -> Endpoints {
        let stream = |name: &str| format!("{}/api/v1/streams/{name}", self.streams);
        Endpoints {
            assets: format!("{root}/assets/"),
            blocks: format!("{root}/blocks/"),
            docs: self.docs.to_owned(),
            max_transaction_size: self.max_transaction_size,
            metadata: format!("{root}/metadata/"),
            openapi: format!("{root}/openapi.json"),
            outputs: format!("{root}/outputs/"),
            streamedblocks: stream("valid_blocks"),
            streamedrejections: stream("rejected_transactions"),
            streams: stream("valid_transactions"),
            transactions: format!("{root}/transactions/"),
            validators: format!("{root}/validators"),
        }
    }
}

fn serialise(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers always serialise into memory")
}
