//! `daybook check`.

use std::sync::Arc;

use daybook_ledger::block::Genesis;
use daybook_store::{CheckOptions, FINDINGS_MAX, Report, disk::RealDisk};
use serde_json::json;

use crate::{
    cli,
    config::Config,
    datadir::DataDir,
    failure::{Exit, Failure},
    out::{Out, thousands},
};

pub(crate) fn run(args: &cli::Check, config: &Config, out: Out) -> Result<(), Failure> {
    let dir = DataDir::new(&config.data_dir);
    dir.must_exist()?;
    let _lock = dir.lock()?;
    let genesis = dir.genesis()?;
    let report = check(&dir, args.rebuild, args.signatures, out)?;
    let sound = verdict(&report, &genesis);
    say(&report, sound.is_ok(), out);
    sound
}

/// Reads everything that a ledger consists of and applies every rule again.
///
/// # Errors
/// `InUse`, `System`, and `Damaged` where not even the beginning can be read. Other damage is in the
/// report: see [`verdict`].
pub(crate) fn check(
    dir: &DataDir,
    rebuild: bool,
    signatures: bool,
    out: Out,
) -> Result<Report, Failure> {
    let options = CheckOptions {
        rebuild,
        signatures,
        ..CheckOptions::default()
    };
    let mut progress = out.progress("checking");
    let mut heard = |done, total| progress.set(done, total);
    Ok(daybook_store::check(
        &dir.ledger(),
        Arc::new(RealDisk),
        &options,
        &mut heard,
    )?)
}

/// Whether the ledger may be used.
///
/// # Errors
/// `Damaged` when something is wrong that was not put right by a rebuild, or when the ledger is of
/// another chain than the directory.
pub(crate) fn verdict(report: &Report, genesis: &Genesis) -> Result<(), Failure> {
    if report.genesis != *genesis {
        return Err(Failure::new(
            Exit::Damaged,
            "the ledger began otherwise than genesis.json says",
        ));
    }
    if report.is_sound() {
        return Ok(());
    }
    let count = report.findings.len();
    let count = match count {
        FINDINGS_MAX => format!("{count} or more"),
        _ => count.to_string(),
    };
    let advice = if report.findings.iter().all(|finding| finding.derived) {
        "; the log of blocks is sound, so `daybook check --rebuild` puts it right"
    } else {
        ""
    };
    Err(Failure::new(
        Exit::Damaged,
        format!("the ledger is damaged: {count} findings{advice}"),
    ))
}

fn say(report: &Report, sound: bool, out: Out) {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "path": finding.path.display().to_string(),
                "offset": finding.offset,
                "height": finding.height.map(|height| height.0),
                "what": finding.what,
                "derived": finding.derived,
            })
        })
        .collect();
    if !out.json {
        for finding in &report.findings {
            let height = finding
                .height
                .map_or(String::new(), |h| format!(", height {}", h.0));
            out.line(&format!(
                "{} at byte {}{height}: {}{}",
                finding.path.display(),
                finding.offset,
                finding.what,
                if report.rebuilt && finding.derived {
                    " (made anew)"
                } else {
                    ""
                }
            ));
        }
    }
    let tip = &report.tip;
    out.say(
        &json!({
            "event": "checked",
            "ok": sound,
            "chain": report.genesis.chain,
            "height": tip.height.0,
            "hash": hex::encode(tip.hash.0),
            "app_hash": tip.state.0.map(hex::encode),
            "transactions": tip.transactions,
            "bytes": report.bytes,
            "torn_bytes": report.torn_bytes,
            "rebuilt": report.rebuilt,
            "findings": findings,
        }),
        &format!(
            "chain {}: {} transactions in {} blocks, {} bytes read{}{}\n{}",
            report.genesis.chain,
            thousands(tip.transactions),
            thousands(tip.height.0),
            thousands(report.bytes),
            match report.torn_bytes {
                0 => String::new(),
                torn => format!(", {torn} bytes of an unfinished last write (no damage)"),
            },
            if report.rebuilt {
                ", state and indexes made anew"
            } else {
                ""
            },
            if sound {
                "sound"
            } else {
                "NOT SOUND; the figures end at the first damage"
            },
        ),
    );
}
