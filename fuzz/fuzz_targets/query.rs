//! Query strings and path segments: every endpoint reads them or refuses them with JSON.
#![no_main]

use daybook_wire::assets::{
    BlockParameters, ListParameters, OutputParameters, Query, Refusal, SearchParameters,
    TransactionParameters, level, mode,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let query = Query::parse(text);
    refused(mode(&query));
    refused(level(&query));
    refused(OutputParameters::from_query(&query));
    refused(BlockParameters::from_query(&query));
    refused(SearchParameters::from_query(&query));
    refused(ListParameters::from_path(text, &query));
    if let Some(parameters) = refused(TransactionParameters::from_query(&query)) {
        assert!(!parameters.assets.is_empty());
        assert!(parameters.assets.windows(2).all(|pair| pair[0] < pair[1]));
    }
});

/// The value, or a refusal whose body must be an error in JSON.
fn refused<T>(result: Result<T, Refusal>) -> Option<T> {
    result
        .inspect_err(|refusal| {
            let body = refusal.body();
            assert!(body.starts_with(b"{\"message\": ") && body.ends_with(b"}"));
            assert!(std::str::from_utf8(&body).is_ok());
        })
        .ok()
}
