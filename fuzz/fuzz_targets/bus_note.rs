//! The bus's notes on disk: what is read is written the same again, and a broker takes up any of them.
#![no_main]

use daybook_bus::{Bus, Moment, Note, Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut notes = Vec::new();
    let mut rest = bytes;
    // A byte of length before each, so that a few fit into a small input.
    while let Some((length, after)) = rest.split_first() {
        let Some((note, after)) = after.split_at_checked(usize::from(*length)) else {
            break;
        };
        if let Some(read) = Note::read(note) {
            let mut again = Vec::new();
            read.write(&mut again);
            assert_eq!(again, note);
            notes.push(read);
        }
        rest = after;
    }
    let settings = Settings {
        notes: true,
        ..Settings::default()
    };
    let now = Moment(1_767_225_600_000_000);
    let mut bus = Bus::new(settings, now, &[]).expect("nothing is stored");
    let kept = bus.recall(notes);
    // What is written anew is taken up as well, and what is kept does not grow.
    let again = |notes: Vec<Note>| {
        let settings = Settings {
            notes: true,
            ..Settings::default()
        };
        let mut next = Bus::new(settings, now, &[]).expect("nothing is stored");
        next.recall(notes)
    };
    again(bus.notes());
    assert!(again(kept.clone()).len() <= kept.len());
});
