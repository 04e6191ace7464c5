//! Frames to the tracker: read or refused, and every refusal can be said in JSON.
#![no_main]

use daybook_wire::tracker::{Envelope, Frame, SignedData, error_reply, read, reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut out = Vec::new();
    match read(text) {
        Ok(Frame::Signed(request)) => {
            let envelope = Envelope {
                command: request.command,
                correlation: &request.correlation,
            };
            let data = SignedData::new(request.payload.message(), b"");
            reply(&mut out, envelope, &data, None);
        }
        Ok(Frame::Capabilities { .. }) => return,
        Err(refused) => {
            let token = refused.correlation.as_deref();
            let code = refused.code.as_str();
            error_reply(
                &mut out,
                refused.command,
                token,
                text,
                code,
                &refused.error,
                None,
            );
        }
    }
    // What was written is JSON again, by the same reader: it has no payload.
    let written = std::str::from_utf8(&out).expect("replies are text");
    let again = read(written).expect_err("a reply is no request");
    assert!(again.correlation.is_some(), "{written}");
});
