//! A naive ledger as judge of the real one: random transactions, valid and invalid mixed, go through the
//! whole pipeline and a store on disk, and through plain maps; outcomes and state must be equal.
//!
//! Every run prints its seed; `REFERENCE_SEED` repeats one, `REFERENCE_TRANSACTIONS` sets the length.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use daybook_ledger::{
    AssetId, BlockTime, Draft, OutputRef, Parser, Position, PublicKey, RejectionClass, Rules,
    SigningKey, Transaction, TransactionId, Version,
    block::{Genesis, Validator},
    canonical,
    condition::Details,
    json::Value,
};
use daybook_pipeline::{Acknowledge, Door, Node, Outcome, Running, StartOptions, start};
use daybook_store::{Options, disk::RealDisk};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// What the judge knows of an output.
#[derive(Clone)]
struct NaiveOutput {
    asset: AssetId,
    amount: u64,
    owner: Details,
}

/// What a transaction says, as the judge sees it.
#[derive(Clone)]
struct Wish {
    id: TransactionId,
    text: Bytes,
    creates: bool,
    /// Each spent output with the condition that the fulfillment opens.
    inputs: Vec<(OutputRef, Details)>,
    /// What a TRANSFER moves or a COMPOSE consumes.
    named: Vec<AssetId>,
    outputs: Vec<NaiveOutput>,
    proven: bool,
}

/// The rules of section 6.6 in the plainest words there are.
#[derive(Default)]
struct Naive {
    outputs: BTreeMap<OutputRef, NaiveOutput>,
    committed: BTreeMap<TransactionId, usize>,
    spent: BTreeSet<OutputRef>,
    order: Vec<Wish>,
}

impl Naive {
    fn decide(&self, wish: &Wish) -> Result<(), RejectionClass> {
        if wish.creates {
            if self.committed.contains_key(&wish.id) {
                return Err(RejectionClass::DuplicateTransaction);
            }
        } else {
            for (output, _) in &wish.inputs {
                if !self.outputs.contains_key(output) {
                    return Err(RejectionClass::InputDoesNotExist);
                }
                if self.spent.contains(output) {
                    return Err(RejectionClass::DoubleSpend);
                }
            }
            let distinct: BTreeSet<&OutputRef> =
                wish.inputs.iter().map(|(output, _)| output).collect();
            if distinct.len() < wish.inputs.len() {
                return Err(RejectionClass::DoubleSpend);
            }
            let spent: Vec<&NaiveOutput> = wish
                .inputs
                .iter()
                .map(|(output, _)| &self.outputs[output])
                .collect();
            let held: BTreeSet<AssetId> = spent.iter().map(|output| output.asset).collect();
            if held != wish.named.iter().copied().collect() {
                return Err(RejectionClass::AssetIdMismatch);
            }
            let composes = wish.outputs[0].asset == wish.id.as_asset();
            let sum =
                |outputs: &mut dyn Iterator<Item = u64>| outputs.map(u128::from).sum::<u128>();
            if !composes
                && sum(&mut spent.iter().map(|o| o.amount))
                    != sum(&mut wish.outputs.iter().map(|o| o.amount))
            {
                return Err(RejectionClass::AmountError);
            }
            if wish
                .inputs
                .iter()
                .zip(&spent)
                .any(|((_, opened), output)| *opened != output.owner)
            {
                return Err(RejectionClass::InvalidSignature);
            }
        }
        if wish.proven {
            Ok(())
        } else {
            Err(RejectionClass::InvalidSignature)
        }
    }

    fn record(&mut self, wish: &Wish) {
        self.spent
            .extend(wish.inputs.iter().map(|(output, _)| *output));
        for (index, output) in (0..).zip(&wish.outputs) {
            self.outputs.insert(
                OutputRef {
                    transaction: wish.id,
                    index,
                },
                output.clone(),
            );
        }
        self.committed.insert(wish.id, self.order.len());
        self.order.push(wish.clone());
    }

    /// Outputs that name `key`, in commit order.
    fn outputs_of(&self, key: &PublicKey, spent: bool) -> Vec<OutputRef> {
        let mut found = Vec::new();
        for wish in &self.order {
            for (index, output) in (0..).zip(&wish.outputs) {
                let place = OutputRef {
                    transaction: wish.id,
                    index,
                };
                if output.owner.keys().contains(key) && self.spent.contains(&place) == spent {
                    found.push(place);
                }
            }
        }
        found
    }
}

/// Makes wishes: most of them fine, every kind of wrong one among them.
struct Wisher {
    random: StdRng,
    keys: Vec<SigningKey>,
    parser: Parser,
    /// Outputs that are probably unspent, by asset.
    unspent: BTreeMap<AssetId, Vec<OutputRef>>,
    made: u64,
}

impl Wisher {
    fn new(seed: u64) -> Wisher {
        let mut random = StdRng::seed_from_u64(seed);
        let keys = (0..12)
            .map(|_| SigningKey::from_seed(random.random()))
            .collect();
        let parser = Parser::new(Rules::default());
        Wisher {
            random,
            keys,
            parser,
            unspent: BTreeMap::new(),
            made: 0,
        }
    }

    fn key(&mut self) -> PublicKey {
        self.keys.choose(&mut self.random).unwrap().public_key()
    }

    fn owner(&mut self) -> Details {
        match self.random.random_range(0..10) {
            0 => {
                let keys: BTreeSet<PublicKey> = (0..3).map(|_| self.key()).collect();
                let keys: Vec<PublicKey> = keys.into_iter().collect();
                Details::threshold_of_keys(u32::try_from(keys.len().min(2)).unwrap(), &keys)
            }
            _ => Details::Key(self.key()),
        }
    }

    fn next(&mut self, naive: &Naive) -> Wish {
        self.made += 1;
        let kind = self.random.random_range(0..100);
        let wish = match kind {
            0..25 => Some(self.create()),
            25..90 => self.transfer(naive, if kind < 75 { 0 } else { kind - 74 }),
            90..93 => self.compose(naive),
            93..96 => naive.order.choose(&mut self.random).cloned(),
            _ => {
                let wish = self.create();
                Some(self.spoil(wish))
            }
        };
        wish.unwrap_or_else(|| self.create())
    }

    fn create(&mut self) -> Wish {
        let data = Value::parse(format!(r#"{{"lot":{}}}"#, self.made).as_bytes(), 8).unwrap();
        let mut draft = Draft::create(data);
        let mut outputs = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let (amount, owner) = (self.random.random_range(1..1_000), self.owner());
            draft = draft.output(amount, owner.clone());
            outputs.push((amount, owner));
        }
        let issuer = self.keys.choose(&mut self.random).unwrap().clone();
        let transaction = draft.sign_with(&mut self.parser, &[&issuer]).unwrap();
        let asset = transaction.asset();
        self.wish(
            &transaction,
            true,
            vec![],
            vec![],
            with_asset(outputs, asset),
        )
    }

    /// A TRANSFER; `fault` 0 is none.
    fn transfer(&mut self, naive: &Naive, fault: u32) -> Option<Wish> {
        let asset = *self
            .unspent
            .keys()
            .nth(self.random.random_range(0..self.unspent.len().max(1)))?;
        let count = self.random.random_range(1..4);
        let mut spent: Vec<OutputRef> = Vec::new();
        for _ in 0..count {
            let there = self.unspent.get_mut(&asset)?;
            if there.is_empty() {
                break;
            }
            let place = self.random.random_range(0..there.len());
            // A wrong TRANSFER leaves its outputs to others.
            spent.push(if fault == 0 {
                there.swap_remove(place)
            } else {
                there[place]
            });
        }
        if self.unspent[&asset].is_empty() {
            self.unspent.remove(&asset);
        }
        let mut named = asset;
        let mut stranger = None;
        match fault {
            1 | 2 => {
                spent = vec![
                    *naive
                        .spent
                        .iter()
                        .nth(self.made as usize % naive.spent.len().max(1))?,
                ]
            }
            3 => spent.push(*spent.first()?),
            4 => {
                spent = vec![OutputRef {
                    transaction: TransactionId(self.random.random()),
                    index: 0,
                }]
            }
            5 => spent.first_mut()?.index += 60,
            6 => named = *self.unspent.keys().next()?,
            7 => spent.push(*self.unspent.values().next()?.first()?),
            8 => stranger = Some(self.key()),
            _ => {}
        }
        if spent.is_empty() {
            return None;
        }
        let known = |output: &OutputRef| naive.outputs.get(output);
        let units: u64 = spent
            .iter()
            .filter_map(known)
            .map(|output| output.amount)
            .sum::<u64>()
            .max(1);
        let mut left = if fault == 9 { units + 1 } else { units };
        let mut outputs = Vec::new();
        while left > 0 {
            let amount = if outputs.len() == 3 {
                left
            } else {
                self.random.random_range(1..=left)
            };
            outputs.push((amount, self.owner()));
            left -= amount;
        }
        let mut draft = Draft::transfer(named);
        let mut inputs = Vec::new();
        for output in &spent {
            let owner = match (stranger, known(output)) {
                (None, Some(output)) => output.owner.clone(),
                (stranger, _) => Details::Key(stranger.unwrap_or(self.keys[0].public_key())),
            };
            draft = draft.spend(*output, owner.clone());
            inputs.push((*output, owner));
        }
        for (amount, owner) in &outputs {
            draft = draft.output(*amount, owner.clone());
        }
        let keys: Vec<SigningKey> = self.keys.clone();
        let keys: Vec<&SigningKey> = keys.iter().collect();
        let transaction = draft.sign_with(&mut self.parser, &keys).unwrap();
        let wish = self.wish(
            &transaction,
            false,
            inputs,
            vec![named],
            with_asset(outputs, named),
        );
        Some(if fault == 10 { self.spoil(wish) } else { wish })
    }

    fn compose(&mut self, naive: &Naive) -> Option<Wish> {
        let assets: Vec<AssetId> = self.unspent.keys().copied().take(2).collect();
        let mut draft = Draft::compose("bafkreicomposed", assets.clone()).version(Version::V3);
        let mut inputs = Vec::new();
        for asset in &assets {
            let output = self.unspent.get_mut(asset)?.pop()?;
            if self.unspent[asset].is_empty() {
                self.unspent.remove(asset);
            }
            let owner = naive.outputs.get(&output)?.owner.clone();
            draft = draft.spend(output, owner.clone());
            inputs.push((output, owner));
        }
        if inputs.is_empty() {
            return None;
        }
        let owner = self.owner();
        let draft = draft.output(self.made, owner.clone());
        let keys: Vec<SigningKey> = self.keys.clone();
        let keys: Vec<&SigningKey> = keys.iter().collect();
        let transaction = draft.sign_with(&mut self.parser, &keys).unwrap();
        let outputs = with_asset(vec![(self.made, owner)], transaction.asset());
        Some(self.wish(&transaction, false, inputs, assets, outputs))
    }

    fn wish(
        &mut self,
        transaction: &Transaction,
        creates: bool,
        inputs: Vec<(OutputRef, Details)>,
        named: Vec<AssetId>,
        outputs: Vec<NaiveOutput>,
    ) -> Wish {
        let (id, text) = (transaction.id(), transaction.canonical().clone());
        Wish {
            id,
            text,
            creates,
            inputs,
            named,
            outputs,
            proven: true,
        }
    }

    /// One bit of the first signature flipped, and the id that belongs to the result.
    fn spoil(&mut self, wish: Wish) -> Wish {
        let mut text = wish.text.to_vec();
        let mark = b"\"fulfillment\":\"";
        let start = text
            .windows(mark.len())
            .position(|window| window == mark)
            .unwrap()
            + mark.len();
        let at = start + 100;
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        let value = Value::parse(&text, 512).unwrap();
        let unnamed = canonical::text_for_id(value.as_object().unwrap());
        let id = TransactionId(canonical::sha3(unnamed.as_bytes()));
        let text = String::from_utf8(text)
            .unwrap()
            .replace(&wish.id.to_string(), &id.to_string());
        Wish {
            id,
            text: text.into(),
            proven: false,
            ..wish
        }
    }

    /// Outputs of what was committed can be spent from now on.
    fn hear(&mut self, wish: &Wish) {
        for (index, output) in (0..).zip(&wish.outputs) {
            let place = OutputRef {
                transaction: wish.id,
                index,
            };
            self.unspent.entry(output.asset).or_default().push(place);
        }
    }
}

fn with_asset(outputs: Vec<(u64, Details)>, asset: AssetId) -> Vec<NaiveOutput> {
    outputs
        .into_iter()
        .map(|(amount, owner)| NaiveOutput {
            asset,
            amount,
            owner,
        })
        .collect()
}

fn node(folder: &Path) -> (Node, Running) {
    let proposer = SigningKey::from_seed([9; 32]);
    let genesis = Genesis {
        chain: "reference".into(),
        time: BlockTime(1),
        validators: vec![Validator {
            key: proposer.public_key(),
            power: 10,
        }],
    };
    // Small bounds, so that segments rotate, checkpoints are written and runs merge in this test.
    let options = Options {
        segment_bytes: 4 << 20,
        checkpoint_bytes: 8 << 20,
        run_entries: 20_000,
    };
    let (store, writer, _) =
        daybook_store::open(folder, Arc::new(RealDisk), &genesis, options).unwrap();
    start(store, writer, StartOptions::new(proposer)).unwrap()
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a whole number"))
}

fn compare_state(node: &Node, naive: &Naive, keys: &[SigningKey]) {
    let store = node.store();
    assert_eq!(store.tip().transactions, naive.order.len() as u64);
    for key in keys {
        for spent in [false, true] {
            let mut found = Vec::new();
            let each = &mut |output| {
                found.push(output);
                true
            };
            store
                .outputs_of_key(&key.public_key(), Some(spent), each)
                .unwrap();
            assert_eq!(
                found,
                naive.outputs_of(&key.public_key(), spent),
                "spent: {spent}"
            );
        }
    }
    let mut order = naive.order.iter();
    for height in 1..=store.tip().height.0 {
        let block = store
            .block(daybook_ledger::Height(height))
            .unwrap()
            .unwrap();
        for (_, transaction) in block.block.assets() {
            let wish = order.next().unwrap();
            assert_eq!(transaction.id(), wish.id);
            assert_eq!(*transaction.canonical(), wish.text);
        }
    }
    assert!(order.next().is_none());
    // No unit is made or lost but by creation and composition.
    let mut units: BTreeMap<AssetId, i128> = BTreeMap::new();
    for wish in &naive.order {
        if wish.outputs[0].asset == wish.id.as_asset() {
            *units.entry(wish.id.as_asset()).or_default() += wish
                .outputs
                .iter()
                .map(|output| i128::from(output.amount))
                .sum::<i128>();
            for (output, _) in &wish.inputs {
                let consumed = &naive.outputs[output];
                *units.entry(consumed.asset).or_default() -= i128::from(consumed.amount);
            }
        }
    }
    let mut held: BTreeMap<AssetId, i128> = units.keys().map(|asset| (*asset, 0)).collect();
    for (place, output) in &naive.outputs {
        let there = daybook_ledger::View::unspent(&store.view(), place);
        assert_eq!(there.is_some(), !naive.spent.contains(place));
        if let Some(unspent) = there {
            assert_eq!(unspent.amount.units(), output.amount);
            *held.entry(output.asset).or_default() += i128::from(unspent.amount.units());
        }
    }
    assert_eq!(held, units);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_and_its_naive_judge_agree_on_every_transaction_in_bulk() {
    let seed = from_environment("REFERENCE_SEED", rand::random());
    let count = from_environment("REFERENCE_TRANSACTIONS", 200_000);
    println!("REFERENCE_SEED={seed} REFERENCE_TRANSACTIONS={count}");
    let folder = tempfile::tempdir().unwrap();
    let (node, running) = node(folder.path());
    let (submitter, mut outcomes) = node.submitter(4_096);

    let maker = tokio::task::spawn_blocking(move || {
        let handle = tokio::runtime::Handle::current();
        let mut wisher = Wisher::new(seed);
        let mut naive = Naive::default();
        let mut expected: Vec<(TransactionId, Result<bool, RejectionClass>, bool)> = Vec::new();
        for tag in 0..count {
            let wish = wisher.next(&naive);
            let repeated = naive.committed.contains_key(&wish.id);
            let verdict = if repeated {
                Ok(true)
            } else {
                naive.decide(&wish).map(|()| false)
            };
            if verdict == Ok(false) {
                naive.record(&wish);
                wisher.hear(&wish);
            }
            expected.push((wish.id, verdict, wish.proven));
            assert!(handle.block_on(submitter.submit(tag, wish.text, Acknowledge::Durable)));
        }
        (naive, expected, wisher.keys)
    });
    let mut heard: Vec<Option<Outcome>> = vec![None; usize::try_from(count).unwrap()];
    let mut letters = Vec::new();
    while outcomes.next(&mut letters).await {
        for (tag, outcome) in letters.drain(..) {
            assert!(
                heard[usize::try_from(tag).unwrap()]
                    .replace(outcome)
                    .is_none(),
                "answered once"
            );
        }
    }
    let (naive, expected, keys) = maker.await.unwrap();

    let mut last = Position::default();
    let mut places: BTreeMap<TransactionId, Position> = BTreeMap::new();
    let (mut committed, mut refused) = (0, 0);
    for (tag, (outcome, (id, verdict, proven))) in heard.into_iter().zip(expected).enumerate() {
        match (outcome.unwrap(), verdict) {
            (
                Outcome::Committed {
                    id: told,
                    position,
                    repeated: false,
                },
                Ok(false),
            ) => {
                assert_eq!(told, id);
                assert!(position > last, "#{tag}: {position} follows {last}");
                last = position;
                places.insert(id, position);
                committed += 1;
            }
            (
                Outcome::Committed {
                    id: told,
                    position,
                    repeated: true,
                },
                Ok(true),
            ) => {
                assert_eq!((told, Some(&position)), (id, places.get(&id)), "#{tag}");
            }
            (
                Outcome::Rejected {
                    id: told,
                    rejection,
                },
                Err(class),
            ) => {
                assert_eq!(told, Some(id), "#{tag}");
                // Without proof a transaction never reaches the order; its error is named by what was
                // committed when it arrived.
                assert!(
                    rejection.class == class || !proven,
                    "#{tag}: {rejection} is not {class:?}"
                );
                refused += 1;
            }
            (outcome, verdict) => panic!("#{tag}: {outcome:?}, but the judge says {verdict:?}"),
        }
    }
    println!("{committed} committed, {refused} refused");
    assert!(
        committed > count / 2 && refused > count / 20,
        "the mix has become one-sided"
    );
    compare_state(&node, &naive, &keys);

    tokio::task::spawn_blocking(move || running.stop())
        .await
        .unwrap()
        .unwrap();
    drop(node);
    let (node, running) = self::node(folder.path());
    compare_state(&node, &naive, &keys);
    tokio::task::spawn_blocking(move || running.stop())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_even_the_class_of_each_refusal_is_the_judges() {
    let seed = from_environment("REFERENCE_SEED", rand::random());
    println!("REFERENCE_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let (node, running) = node(folder.path());
    let mut wisher = Wisher::new(seed);
    let mut naive = Naive::default();
    for number in 0..1_500 {
        let wish = wisher.next(&naive);
        let verdict = naive.decide(&wish);
        match (
            node.submit(wish.text.clone(), Acknowledge::Durable, Door::Classic)
                .await,
            verdict,
        ) {
            (
                Outcome::Committed {
                    id,
                    repeated: false,
                    ..
                },
                Ok(()),
            ) => {
                assert_eq!(id, wish.id);
                naive.record(&wish);
                wisher.hear(&wish);
            }
            (Outcome::Rejected { id, rejection }, Err(class)) => {
                assert_eq!(
                    (id, rejection.class),
                    (Some(wish.id), class),
                    "#{number}: {rejection}"
                );
            }
            (outcome, verdict) => panic!("#{number}: {outcome:?}, but the judge says {verdict:?}"),
        }
    }
    compare_state(&node, &naive, &wisher.keys);
    tokio::task::spawn_blocking(move || running.stop())
        .await
        .unwrap()
        .unwrap();
}
