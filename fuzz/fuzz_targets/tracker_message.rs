//! Any message under good signatures is refused, or leads to an entry that breaks nothing. The first
//! byte stands for the command.
#![no_main]

use std::{cell::RefCell, sync::LazyLock};

use daybook_fuzz::{NOW, Nothing, Stage, code};
use daybook_ledger::{
    Height,
    tracker::{Decision, Entry, Proven, Prover, Settings, Suites, reply},
};
use libfuzzer_sys::fuzz_target;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::new);

thread_local! {
    static PROVER: RefCell<Prover> = RefCell::new(Prover::new(
        Suites::default(),
        STAGE.book.settings().map(Settings::ids).unwrap_or_default(),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((letter, message)) = bytes.split_first() else {
        return;
    };
    let (Some(code), Ok(message)) = (code(*letter), std::str::from_utf8(message)) else {
        return;
    };
    let request = STAGE.request(code, message.to_owned());
    let proven = PROVER.with_borrow_mut(|prover| prover.restore(request.clone()));
    let Ok(Proven::Command(command)) = proven else {
        return;
    };
    match STAGE.book.decide(&command, NOW, &Nothing) {
        Ok(Decision::Entry(entry)) => {
            assert!(Entry::read(entry.text().clone()).is_ok_and(|read| read == entry));
            let mut book = STAGE.book.clone();
            book.record(&entry, Height(2))
                .expect("it was decided on this book");
            book.audit().expect("what was recorded breaks nothing");
            reply::recorded(&request, &entry, "pk").expect("the entry answers its request");
        }
        Ok(Decision::Repeat(entry)) => {
            reply::recorded(&request, &entry, "pk").expect("the entry answers its request");
        }
        Ok(Decision::Payout(plan)) => assert!(plan.amount() > 0),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
});
