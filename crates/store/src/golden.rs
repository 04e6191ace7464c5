//! Files whose bytes are kept beside the tests: a format that changes by accident fails here.

use std::{fmt::Write, path::Path};

/// Compares bytes with a kept dump. With `DAYBOOK_GOLDEN=write` the dump is written instead: for a
/// format that changes on purpose, together with its version.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let dumped = dump(bytes);
    if std::env::var_os("DAYBOOK_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &dumped).expect("the dump can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        dumped,
        kept,
        "{} is not what is written now",
        path.display()
    );
}

/// The bytes of a kept dump.
pub(crate) fn kept(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let text = std::fs::read_to_string(&path).expect("the dump is kept");
    let mut lines = text.lines();
    let length = lines.next().and_then(|line| line.strip_prefix("length "));
    let mut bytes = vec![
        0;
        length
            .and_then(|digits| digits.parse().ok())
            .expect("a length comes first")
    ];
    for line in lines {
        let mut words = line.split_whitespace();
        let offset = words
            .next()
            .and_then(|word| usize::from_str_radix(word, 16).ok());
        let offset = offset.expect("a line begins with its offset");
        for (place, word) in (offset..).zip(words) {
            bytes[place] = u8::from_str_radix(word, 16).expect("bytes are two digits each");
        }
    }
    bytes
}

/// Sixteen bytes a line with their offset; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = format!("length {}\n", bytes.len());
    for (line, bytes) in bytes.chunks(16).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            write!(text, "{:06x} ", line * 16).expect("a string takes all text");
            for byte in bytes {
                write!(text, " {byte:02x}").expect("a string takes all text");
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{path::PathBuf, sync::Arc};

    use daybook_ledger::{
        Block, BlockTime, Draft, Height, OutputRef, Overlay, Rejection, RejectionClass, SigningKey,
        Transaction, TransactionId, Unspent, Verified, View,
        block::{Genesis, Parent, Validator},
        json::Object,
    };

    use crate::{
        Options, Rejected, StoredBlock,
        disk::{Disk, simulated::SimulatedDisk},
        open,
    };

    struct Nothing;

    impl View for Nothing {
        fn unspent(&self, _: &OutputRef) -> Option<Unspent> {
            None
        }
        fn is_committed(&self, _: &TransactionId) -> bool {
            false
        }
        fn transaction(&self, _: &TransactionId) -> Option<Arc<Verified<Transaction>>> {
            None
        }
    }

    pub(crate) fn genesis() -> Genesis {
        let key = SigningKey::from_seed([9; 32]).public_key();
        let validators = vec![Validator { key, power: 10 }];
        Genesis {
            chain: "golden".into(),
            time: BlockTime(1_000),
            validators,
        }
    }

    pub(crate) fn options() -> Options {
        Options {
            segment_bytes: 8_192,
            ..Options::default()
        }
    }

    /// One block: a CREATE, a TRANSFER of it, and a rejection beside them.
    pub(crate) fn block() -> (Arc<StoredBlock>, daybook_ledger::Changes) {
        let (alice, bob) = (
            SigningKey::from_seed([1; 32]),
            SigningKey::from_seed([2; 32]),
        );
        let lamp = Draft::create(Object::from_iter([("kind", "lamp")])).output(3, &alice);
        let lamp = lamp.sign(&[&alice]).unwrap();
        let sale = Draft::transfer(lamp.asset())
            .spend(lamp.output_ref(0), &alice)
            .output(3, &bob);
        let sale = sale.sign(&[&alice]).unwrap();
        let transactions: Vec<_> = [lamp, sale]
            .map(|transaction| Arc::new(Verified::from_stored(transaction)))
            .into();
        let mut overlay = Overlay::new(&Nothing);
        for transaction in &transactions {
            overlay.apply(transaction.clone()).unwrap();
        }
        let changes = overlay.into_changes();
        let entries = transactions.into_iter().map(Into::into).collect();
        let proposer = SigningKey::from_seed([9; 32]);
        let parent = Parent::of_genesis(&genesis());
        let block = Block::seal(&parent, BlockTime(2_000), entries, &proposer);
        let rejection = Rejection::new(RejectionClass::DoubleSpend, "already spent");
        let rejected = vec![Rejected {
            id: TransactionId([0xAB; 32]),
            rejection,
        }];
        (Arc::new(StoredBlock { block, rejected }), changes)
    }

    const KEPT: [(&str, &str); 3] = [
        ("segment", "log/00000001.seg"),
        (
            "checkpoint",
            "checkpoint/0000000000000001-0000000000000001.checkpoint",
        ),
        ("blocks", "index/blocks.table"),
    ];

    #[test]
    fn a_log_a_checkpoint_and_a_table_of_blocks_have_the_bytes_that_the_format_says() {
        let disk = SimulatedDisk::new();
        let dir = PathBuf::from("/data");
        let (_, mut writer, _) = open(&dir, Arc::new(disk.clone()), &genesis(), options()).unwrap();
        let (block, changes) = block();
        writer.append(&block).unwrap();
        writer.publish(&block, &changes).unwrap();
        writer.close().unwrap();
        let files = disk.files();
        for (name, path) in KEPT {
            let (_, bytes) = files
                .iter()
                .find(|(file, _)| *file == dir.join(path))
                .unwrap();
            super::check(name, bytes);
        }
    }

    #[test]
    fn files_of_an_earlier_day_still_open() {
        let disk = SimulatedDisk::new();
        let dir = PathBuf::from("/data");
        for (name, path) in KEPT {
            let path = dir.join(path);
            disk.create_dir(path.parent().unwrap()).unwrap();
            disk.create(&path)
                .unwrap()
                .write_at(&super::kept(name), 0)
                .unwrap();
        }
        let (store, _, recovery) = open(&dir, Arc::new(disk), &genesis(), options()).unwrap();
        assert_eq!(
            (recovery.checkpoint, recovery.replayed_blocks),
            (Height(1), 0)
        );
        let (block, _) = block();
        let stored = store.block(Height(1)).unwrap().unwrap();
        assert_eq!(stored.block.header, block.block.header);
        assert_eq!(stored.rejected, block.rejected);
        for (_, transaction) in block.block.assets() {
            let (_, text) = store.transaction(&transaction.id()).unwrap().unwrap();
            assert_eq!(text, transaction.canonical());
        }
        let bobs = OutputRef {
            transaction: block.block.entries[1].id(),
            index: 0,
        };
        assert_eq!(
            (
                store.unspent_outputs().0,
                store.view().unspent(&bobs).is_some()
            ),
            (1, true)
        );
    }
}
