//! Measures what durability and publishing cost: blocks of 1,000 transfers appended and published, next
//! to a probe that writes and flushes as many bytes to a plain file.
//!
//! ```text
//! cargo run --release -p daybook-store --example commit_rate -- [folder] [blocks]
//! ```

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use daybook_ledger::{
    Block, BlockTime, Changes, Draft, Overlay, Parser, Rules, SigningKey, Verified,
    block::{Genesis, Parent, Validator},
    json::Object,
};
use daybook_store::{
    Options, StoredBlock,
    disk::{Disk, File, RealDisk},
    open,
};

const TRANSACTIONS: usize = 1_000;
/// Owners that take turns, so that look-ups by owner have something to list.
const OWNERS: u8 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "commit-rate-data".into()),
    );
    let blocks: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let proposer = SigningKey::from_seed([200; 32]);
    let validators = vec![Validator {
        key: proposer.public_key(),
        power: 10,
    }];
    let genesis = Genesis {
        chain: "commit-rate".into(),
        time: BlockTime(1_000),
        validators,
    };
    let (store, mut writer, _) = open(&dir, Arc::new(RealDisk), &genesis, Options::default())?;

    let owners: Vec<_> = (0..OWNERS)
        .map(|number| SigningKey::from_seed([number; 32]))
        .collect();
    let mut parser = Parser::new(Rules::default());
    let mut parent = Parent::of_genesis(&genesis);
    let mut heads = Vec::new();
    let (mut appending, mut publishing) = (Vec::new(), Vec::new());
    let (mut committed, mut bytes) = (0_u64, 0_u64);
    let started = Instant::now();
    let mut working = Duration::ZERO;
    for number in 0..=blocks {
        // The first block makes the assets, the others move them on; signing is not measured.
        let mut made = Vec::with_capacity(TRANSACTIONS);
        for at in 0..TRANSACTIONS {
            let owner = &owners[(at + number) % owners.len()];
            let next = &owners[(at + number + 1) % owners.len()];
            let transaction = match heads.get(at) {
                None => Draft::create(Object::from_iter([("serial", format!("item {at}"))]))
                    .output(1, next)
                    .sign_with(&mut parser, &[owner])?,
                Some((asset, output)) => Draft::transfer(*asset)
                    .spend(*output, owner)
                    .output(1, next)
                    .sign_with(&mut parser, &[owner])?,
            };
            bytes += transaction.canonical().len() as u64;
            made.push(Arc::new(Verified::from_stored(transaction)));
        }
        heads = made
            .iter()
            .map(|made| (made.asset(), made.output_ref(0)))
            .collect();
        let changes = {
            let view = store.view();
            let mut overlay = Overlay::resume(&view, Changes::default());
            for transaction in &made {
                overlay.apply(transaction.clone())?;
            }
            overlay.into_changes()
        };
        let entries = made.into_iter().map(Into::into).collect();
        let block = Block::seal(&parent, BlockTime(parent.time.0 + 1), entries, &proposer);
        parent = block.as_parent();
        let stored = Arc::new(StoredBlock {
            block,
            rejected: Vec::new(),
        });
        let begun = Instant::now();
        writer.append(&stored)?;
        let appended = begun.elapsed();
        writer.publish(&stored, &changes)?;
        let published = begun.elapsed() - appended;
        if number > 0 {
            working += appended + published;
            appending.push(appended);
            publishing.push(published);
            committed += TRANSACTIONS as u64;
        }
    }
    let block_bytes = bytes / (blocks as u64 + 1);
    println!(
        "{committed} transfers of {} bytes in blocks of {TRANSACTIONS}",
        block_bytes / 1_000
    );
    println!(
        "append + publish: {:.0} transactions/s",
        committed as f64 / working.as_secs_f64()
    );
    report("append a block", &mut appending);
    report("publish a block", &mut publishing);
    println!("everything, signing included: {:.1?}", started.elapsed());
    let (outputs, memory) = store.unspent_outputs();
    println!("{outputs} unspent outputs in {memory} bytes of memory");

    probe(
        &dir,
        block_bytes as usize,
        "probe: overwrite as many bytes and flush",
    )?;
    probe(&dir, 4_096, "probe: overwrite 4 KiB and flush")?;
    // As after a kill: everything since the last checkpoint is replayed.
    drop(writer);
    let begun = Instant::now();
    let (_, writer, recovery) = open(&dir, Arc::new(RealDisk), &genesis, Options::default())?;
    println!("open after a kill: {:.1?}, {recovery:?}", begun.elapsed());
    let begun = Instant::now();
    writer.close()?;
    println!("close: {:.1?}", begun.elapsed());
    let begun = Instant::now();
    let (_, _, recovery) = open(&dir, Arc::new(RealDisk), &genesis, Options::default())?;
    println!(
        "open after a clean stop: {:.1?}, {recovery:?}",
        begun.elapsed()
    );
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{what}: p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        at(50),
        at(99),
        at(100)
    );
}

/// What the disk takes for the same flush without a store: the denominator.
fn probe(dir: &std::path::Path, bytes: usize, what: &str) -> Result<(), Box<dyn Error>> {
    const ROUNDS: usize = 50;
    let path = dir.join("probe.tmp");
    let file: Arc<dyn File> = RealDisk.create(&path)?;
    let piece = vec![7; bytes];
    for round in 0..ROUNDS {
        file.write_at(&piece, (round * bytes) as u64)?;
    }
    file.sync_data()?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        file.write_at(&piece, (round * bytes) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    RealDisk.remove(&path)?;
    report(what, &mut times);
    Ok(())
}
