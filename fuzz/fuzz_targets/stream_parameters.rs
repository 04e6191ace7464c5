//! What a subscriber asks for: read or refused, and a cursor means what it says.
#![no_main]

use daybook_wire::assets::{From, Query, StreamKind, StreamParameters};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let query = Query::parse(text);
    for kind in StreamKind::ALL {
        let Ok(parameters) = StreamParameters::from_query(kind, &query) else {
            continue;
        };
        if kind != StreamKind::ValidTransactions {
            assert!(parameters.filter.is_empty());
        }
        let From::Position(start) = parameters.from else {
            continue;
        };
        // Written out again it is the same place, whatever zeros stood in front.
        let text = match kind {
            StreamKind::ValidTransactions => format!("from={}.{}", start.height.0, start.index),
            _ => format!("from={}", start.height.0),
        };
        let again = StreamParameters::from_query(kind, &Query::parse(&text));
        assert_eq!(again.map(|again| again.from), Ok(parameters.from));
    }
});
