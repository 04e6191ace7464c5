//! A fulfillment has one encoding, and details read from JSON are written back the same.
#![no_main]

use daybook_ledger::{
    condition::{Details, Fulfillment},
    json::Value,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(fulfillment) = Fulfillment::from_der(bytes, 100) {
        assert!(!fulfillment.signatures.is_empty());
        let uri = fulfillment.condition.uri();
        assert!(uri.starts_with("ni:///sha-256;"));
        // What follows a fulfillment makes it another text, which is refused.
        let longer = [bytes, &[0]].concat();
        assert!(Fulfillment::from_der(&longer, 100).is_err());
        if let [(key, signature)] = fulfillment.signatures[..] {
            // A lone key's fulfillment is written as it was read.
            if !fulfillment.condition.threshold {
                let text = Details::from(key)
                    .fulfill_with(&mut |_| Some(signature))
                    .expect("signed");
                let again = Fulfillment::from_text(text.as_bytes(), 100).expect("just written");
                assert_eq!(again, fulfillment);
            }
        }
    }
    let _ = Fulfillment::from_text(bytes, 100);
    if let Ok(value) = Value::parse(bytes, 256)
        && let Ok(details) = Details::from_value(&value)
    {
        assert_eq!(details.to_value(), value);
        assert_eq!(details.condition(), details.condition());
    }
});
