//! What the node itself is and does: its place, what waits, what its books hold in sum.

use std::io::Write as _;

use daybook_wire::assets::append_text;

use super::{Asker, Facts};

impl Asker<'_> {
    pub(super) fn node(&self, facts: &Facts) -> Vec<u8> {
        let store = &self.store;
        let (tip, genesis) = (store.tip(), store.genesis());
        let (waiting, waiting_bytes) = self.node.load();
        let (unspent, unspent_bytes) = store.unspent_outputs();
        let mut out = b"{\"chain\":".to_vec();
        append_text(&mut out, &genesis.chain);
        let _ = write!(
            out,
            ",\"genesis\":\"{}\",\"began\":{},\"version\":\"{}\",\"height\":{},\"hash\":\"{}\",\
             \"time\":{},\"transactions\":\"{}\",\"ready\":{},\"failed\":{},\"token_required\":{},\
             \"pool\":{{\"transactions\":{waiting},\"bytes\":{waiting_bytes}}},\
             \"unspent\":{{\"outputs\":{unspent},\"bytes\":{unspent_bytes}}},\"log_bytes\":{},\
             \"validators\":[",
            genesis.hash(),
            genesis.time.0,
            facts.version,
            tip.height.0,
            tip.hash,
            tip.time.0,
            tip.transactions,
            self.node.is_ready(),
            self.node.failure().is_some(),
            facts.token_required,
            store.log_bytes(),
        );
        for (place, validator) in genesis.validators.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let (key, power) = (validator.key, validator.power);
            let _ = write!(out, "{comma}{{\"key\":\"{key}\",\"power\":{power}}}");
        }
        let _ = write!(
            out,
            "],\"bus\":{},\"consortium\":{},\"tracker\":",
            facts.bus,
            store.consortium(|book| book.settings().is_some()),
        );
        let tracker = store.tracker(|book| {
            let settings = book.settings()?;
            let (addresses, channels) = book.open_counts();
            let mut out = Vec::new();
            let _ = write!(
                out,
                "{{\"token\":\"{}\",\"holder\":\"{}\",\"wallet\":",
                settings.token, settings.holder
            );
            append_text(&mut out, settings.wallet().as_str());
            let _ = write!(
                out,
                ",\"balance\":\"{}\",\"held\":\"{}\",\"records\":\"{}\",\"addresses\":{addresses},\
                 \"channels\":{channels},\"income_price_min\":\"{}\",\"spend_price_max\":\"{}\",\
                 \"quantum_power\":{},\"spend_grant\":\"{}\",\"lifetimes\":{{\"income\":{},\
                 \"spend\":{},\"transfer\":{}}}}}",
                book.wallet(),
                book.held(),
                book.sequence(),
                settings.income_price_min,
                settings.spend_price_max,
                settings.quantum_power,
                settings.spend_grant,
                settings.income_lifetime_ms,
                settings.spend_lifetime_ms,
                settings.transfer_lifetime_ms,
            );
            Some(out)
        });
        out.extend_from_slice(tracker.as_deref().unwrap_or(b"null"));
        out.push(b'}');
        out
    }
}
