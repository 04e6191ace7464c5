//! `daybook ledger`: ledgers that organisations share, from the command line of one of them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueHint};
use daybook_client::consortium::{ConsortiumClient, SubmitError};
use daybook_ledger::{
    BlockTime, Position, PublicKey, SigningKey, TransactionId,
    consortium::{
        Action, Batch, Body, Card, DEPTH_MAX, Did, Effect, Entry, ExportCheck, Keys, Policy,
        Propose, Report, Request, TreeHash, sign_entry, verify_consistency, verify_inclusion,
    },
    json::{Object, Value as LedgerValue},
};
use serde_json::{Value, json};

use crate::{
    cli::{KeyFlag, NodeFlags},
    consortium::read_card,
    failure::{Exit, Failure},
    out::Out,
    remote, tx,
};

/// Bytes of one line of an exported ledger at most: an entry of the log with all that it may hold.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a file with members at most: all that a network may have, with all their keys.
const MEMBERS_BYTES_MAX: u64 = 64 << 20;
/// How long a proposal stays open unless it is said otherwise (consortium ledgers, section 2.3).
const DEADLINE_SECONDS_DEFAULT: u64 = 30;
/// Entries of a ledger that are shown by one page.
const PAGE_ENTRIES: usize = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Propose new ledgers, and wait for what becomes of it
    #[command(after_long_help = "EXAMPLES:
  daybook ledger create CONT-7 --key acme.key --participant DID --participant DID \\
      --entry @waybill.json
  daybook ledger create CONT-7 CONT-8 --key acme.key --participant DID --participant DID \\
      --policy 2 --entry @waybill.json       # both or none; two must agree

The proposer takes part in the ledger, named or not. With the last endorsement that the policy asks
for, the entries are committed; at the deadline an unfinished proposal expires.")]
    Create {
        /// Names of the ledgers; all of them are created or none
        #[arg(required = true)]
        names: Vec<String>,
        /// A member that shares them; may be repeated
        #[arg(long, value_name = "DID", required = true)]
        participant: Vec<Did>,
        /// Who must agree: `unanimous`, or how many
        #[arg(long, default_value = "unanimous", value_parser = policy)]
        policy: Policy,
        #[command(flatten)]
        proposing: Box<Proposing>,
    },
    /// Propose entries for ledgers, and wait for what becomes of it
    #[command(after_long_help = "EXAMPLES:
  daybook ledger append CONT-7 --key acme.key --entry @invoice.json
  daybook ledger append CONT-7 CONT-8 --key acme.key --entry @train.json    # both or none")]
    Append {
        /// Names of the ledgers; all of them get the entries or none
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        proposing: Box<Proposing>,
    },
    /// List the ledgers, newest first
    List {
        /// Only those that this member shares
        #[arg(long, value_name = "DID")]
        member: Option<Did>,
        #[command(flatten)]
        node: NodeFlags,
    },
    /// Show a ledger, its entries and what waits for it
    Show {
        /// Its name
        name: String,
        /// From this sequence number on
        #[arg(long, default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        node: NodeFlags,
    },
    /// List the members of the network, with the keys by which ledgers are verified
    Members {
        #[command(flatten)]
        node: NodeFlags,
    },
    /// Prove that an entry is in a ledger, or that a ledger begins with what it once was
    #[command(after_long_help = "EXAMPLES:
  daybook ledger prove CONT-7 3                 # entry 3 is in it
  daybook ledger prove CONT-7 --since 5         # it begins with the ledger of 5 entries

The proof is checked before it is shown. Compare root_hash with one that another member shows.")]
    Prove {
        /// The ledger's name
        name: String,
        /// The entry's sequence number
        #[arg(required_unless_present = "since", conflicts_with = "since")]
        sequence: Option<u64>,
        /// The size that the ledger had
        #[arg(long, value_name = "SIZE")]
        since: Option<u64>,
        /// In the tree of so many entries instead of all
        #[arg(long, value_name = "SIZE")]
        size: Option<u64>,
        #[command(flatten)]
        node: NodeFlags,
    },
    /// Write a ledger to a file that proves itself
    Export {
        /// The ledger's name
        name: String,
        /// Write it to this new file instead of standard output
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
        #[command(flatten)]
        node: NodeFlags,
    },
    /// Verify an exported ledger, without any node
    #[command(after_long_help = "EXAMPLES:
  daybook ledger export CONT-7 --out cont-7.jsonl
  daybook ledger members --json > members.json       # or the members' own cards
  daybook ledger verify cont-7.jsonl --members members.json
  daybook ledger verify cont-7.jsonl --card acme.card --card bolt.card

Every signature, every endorsement, every policy and every root is checked. All that is trusted is
the members' keys.")]
    Verify {
        /// The exported ledger
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// What `daybook ledger members --json` wrote
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "card")]
        members: Option<PathBuf>,
        /// A member's card; may be repeated
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        card: Vec<PathBuf>,
    },
}

/// What every proposal needs.
#[derive(Debug, Args)]
pub(crate) struct Proposing {
    #[command(flatten)]
    key: KeyFlag,
    /// The proposing member, if its key is not the first that it had
    #[arg(long = "as", value_name = "DID")]
    member: Option<Did>,
    /// An entry: JSON, or @FILE; may be repeated
    #[arg(long, value_name = "JSON", required = true)]
    entry: Vec<String>,
    /// A name of your own for this request: used again for the same, it changes nothing
    #[arg(long, value_name = "NAME")]
    request: Option<String>,
    /// Seconds for which members may agree
    #[arg(long, value_name = "SECONDS", default_value_t = DEADLINE_SECONDS_DEFAULT)]
    deadline_seconds: u64,
    /// Do not wait for what becomes of it
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    node: NodeFlags,
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "unanimous" => Ok(Policy::Unanimous),
        count => match count.parse() {
            Ok(count) => Ok(Policy::AtLeast(count)),
            Err(_) => Err("`unanimous`, or how many must agree".to_owned()),
        },
    }
}

pub(crate) async fn run(command: Ledger, out: Out) -> Result<(), Failure> {
    match command {
        Ledger::Create {
            names,
            mut participant,
            policy,
            proposing,
        } => {
            let (key, member) = proposing.signer()?;
            if !participant.contains(&member) {
                participant.insert(0, member);
            }
            let action = Action::Create {
                ledgers: names,
                participants: participant,
                policy,
                batch: proposing.batch(&key)?,
            };
            proposing.propose(action, &key, member, out).await
        }
        Ledger::Append { names, proposing } => {
            let (key, member) = proposing.signer()?;
            let action = Action::Append {
                ledgers: names,
                batch: proposing.batch(&key)?,
            };
            proposing.propose(action, &key, member, out).await
        }
        Ledger::List { member, node } => list(&client(&node)?, member, out).await,
        Ledger::Show { name, from, node } => show(&client(&node)?, &name, from, out).await,
        Ledger::Members { node } => members(&client(&node)?, out).await,
        Ledger::Prove {
            name,
            sequence,
            since,
            size,
            node,
        } => {
            let client = client(&node)?;
            match (sequence, since) {
                (Some(sequence), _) => prove_inclusion(&client, &name, sequence, size, out).await,
                (None, Some(first)) => prove_consistency(&client, &name, first, size, out).await,
                (None, None) => Err(Failure::usage("name an entry, or --since")),
            }
        }
        Ledger::Export {
            name,
            out: file,
            node,
        } => {
            let text = client(&node)?.export(&name).await?;
            match file {
                Some(path) => write_new(&path, &text),
                None => {
                    let mut stdout = std::io::stdout().lock();
                    let written = stdout.write_all(&text).and_then(|()| stdout.flush());
                    written.map_err(|e| Failure::system("standard output", &e))
                }
            }
        }
        Ledger::Verify {
            file,
            members,
            card,
        } => verify(&file, members.as_deref(), &card, out),
    }
}

fn client(node: &NodeFlags) -> Result<ConsortiumClient, Failure> {
    Ok(ConsortiumClient::new(remote::client(node)?))
}

impl Proposing {
    fn signer(&self) -> Result<(SigningKey, Did), Failure> {
        let key = self.key.read()?;
        let member = self.member.unwrap_or_else(|| Did::of(&key.public_key()));
        Ok((key, member))
    }

    fn batch(&self, key: &SigningKey) -> Result<Batch, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs());
        let entries = self.entry.iter().map(|text| {
            let LedgerValue::Object(entry) = tx::value("--entry", text)? else {
                return Err(Failure::usage("--entry: an entry is a JSON object"));
            };
            sign_entry(entry, seconds, key, DEPTH_MAX)
                .map_err(|error| Failure::usage(format!("--entry: {error}")))
        });
        Ok(Batch::new(&entries.collect::<Result<Vec<Object>, _>>()?))
    }

    async fn propose(
        &self,
        action: Action,
        key: &SigningKey,
        member: Did,
        out: Out,
    ) -> Result<(), Failure> {
        let client = client(&self.node)?;
        let network = client.network().await?;
        let deadline = self.deadline_seconds.saturating_mul(1_000);
        let request = match &self.request {
            Some(name) => name.clone(),
            None => format!("cli-{:032x}", rand::random::<u128>()),
        };
        let body = Body::Propose(Propose {
            member,
            request,
            deadline: BlockTime(network.now.0.saturating_add(deadline)),
            action,
        });
        let request = Request::sign(network.network, &body, key);
        let outcome = client.submit(&request).await.map_err(submit_failure)?;
        let id = outcome.entry.id();
        out.say(
            &json!({
                "event": "proposed", "proposal": id.to_string(),
                "position": outcome.position.to_string(), "repeated": outcome.repeated,
            }),
            &format!("proposal {id} at {}", outcome.position),
        );
        if let Some(effect) = outcome.entry.outcome_of(&id) {
            return tell(effect, id, outcome.position, out);
        }
        if self.no_wait {
            return Ok(());
        }
        let patience = self.node.timeout + Duration::from_secs(self.deadline_seconds);
        let wait = wait_for(&client, id, outcome.position, out);
        match tokio::time::timeout(patience, wait).await {
            Ok(done) => done,
            Err(_) => Err(Failure::new(
                Exit::Unknown,
                format!("proposal {id} is neither committed nor expired yet"),
            )),
        }
    }
}

/// Follows the book until a proposal is decided.
async fn wait_for(
    client: &ConsortiumClient,
    proposal: TransactionId,
    from: Position,
    out: Out,
) -> Result<(), Failure> {
    let mut followed = client.follow(from);
    loop {
        let (position, _, entry) = followed.next().await?;
        progress(&entry, proposal, out);
        if let Some(effect) = entry.outcome_of(&proposal) {
            return tell(effect, proposal, position, out);
        }
    }
}

/// Tells what a member said.
fn progress(entry: &Entry, proposal: TransactionId, out: Out) {
    let Some(command) = entry.command() else {
        return;
    };
    match command.body() {
        Body::Endorse {
            member,
            proposal: about,
            ..
        } if *about == proposal => out.say(
            &json!({ "event": "endorsed", "member": member.to_string() }),
            &format!("endorsed by {member}"),
        ),
        Body::Refuse {
            member,
            proposal: about,
            reason,
        } if *about == proposal => out.say(
            &json!({ "event": "refused", "member": member.to_string(), "reason": reason }),
            &format!("refused by {member}: {reason}"),
        ),
        _ => {}
    }
}

fn tell(
    effect: &Effect,
    proposal: TransactionId,
    position: Position,
    out: Out,
) -> Result<(), Failure> {
    let names = |dids: &[Did]| {
        let texts: Vec<String> = dids.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    match effect {
        Effect::Committed { states, .. } => {
            for state in states {
                out.say(
                    &json!({
                        "event": "committed", "ledger": state.name,
                        "position": position.to_string(), "size": state.uncommitted_size,
                        "root_hash": state.uncommitted_root.to_string(),
                    }),
                    &format!(
                        "committed: {} has {} entries, root {}",
                        state.name, state.uncommitted_size, state.uncommitted_root
                    ),
                );
            }
            Ok(())
        }
        Effect::Expired { missing, .. } => Err(Failure::refused(format!(
            "proposal {proposal} expired; missing: {}",
            names(missing)
        ))),
        Effect::Refused { by, .. } => Err(Failure::refused(format!(
            "proposal {proposal} was refused by {}",
            names(by)
        ))),
        Effect::Dropped { detail, .. } => Err(Failure::refused(format!(
            "proposal {proposal} is no longer possible: {detail}"
        ))),
        Effect::Withdrawn { .. } => Err(Failure::refused(format!(
            "proposal {proposal} was withdrawn"
        ))),
        Effect::Queued { .. } | Effect::Opened { .. } => Ok(()),
    }
}

/// How a request that was not taken ends a command.
pub(crate) fn submit_failure(error: SubmitError) -> Failure {
    match error {
        SubmitError::Refused(refusal) => Failure::refused(format!("{}: {refusal}", refusal.code)),
        SubmitError::Unknown(error) => Failure::new(
            Exit::Unknown,
            format!("sent, but the outcome is unknown: {error}"),
        ),
        SubmitError::Failed(error) => error.into(),
    }
}

async fn list(client: &ConsortiumClient, member: Option<Did>, out: Out) -> Result<(), Failure> {
    let mut before = None;
    loop {
        let page = client.ledgers(member, before).await?;
        for ledger in items(&page, "ledgers")? {
            let text = format!(
                "{:<40} {:>8}  {}  {}",
                text_of(ledger, "name"),
                ledger["size"],
                text_of(ledger, "root_hash"),
                policy_text(ledger),
            );
            out.say(ledger, &text);
        }
        before = page["next"].as_u64();
        if before.is_none() {
            return Ok(());
        }
    }
}

async fn show(client: &ConsortiumClient, name: &str, from: u64, out: Out) -> Result<(), Failure> {
    let Some(ledger) = client.ledger(name).await? else {
        return Err(Failure::refused(format!("there is no ledger \"{name}\"")));
    };
    let participants: Vec<&str> = ledger["participants"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    out.say(
        &ledger,
        &format!(
            "{name}: {} entries, root {}\nparticipants {}; {} agree; {} proposals wait",
            ledger["size"],
            text_of(&ledger, "root_hash"),
            participants.join(", "),
            policy_text(&ledger),
            ledger["pending"],
        ),
    );
    let mut next = Some(from);
    while let Some(from) = next {
        let page = client.ledger_entries(name, from, PAGE_ENTRIES).await?;
        for entry in page.entries {
            let shown = json!({
                "seq_no": entry.sequence, "txn": json_of(&entry.text)?, "time": entry.time.0,
                "committed_by": entry.committed_by.to_string(),
            });
            out.say(&shown, &format!("{:>6}  {}", entry.sequence, entry.text));
        }
        next = page.next;
    }
    Ok(())
}

async fn members(client: &ConsortiumClient, out: Out) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = client.members(after).await?;
        for member in items(&page, "members")? {
            let state = if member["active"] == true {
                ""
            } else {
                "  (removed)"
            };
            let text = format!(
                "{}  {}  {}{state}",
                text_of(member, "did"),
                text_of(member, "verkey"),
                member["card"]["label"].as_str().unwrap_or_default(),
            );
            out.say(member, &text);
        }
        after = match page["next"].as_str() {
            Some(did) => Some(did.parse().map_err(|_| unexpected("a DID"))?),
            None => return Ok(()),
        };
    }
}

async fn prove_inclusion(
    client: &ConsortiumClient,
    name: &str,
    sequence: u64,
    size: Option<u64>,
    out: Out,
) -> Result<(), Failure> {
    let page = client.ledger_entries(name, sequence, 1).await?;
    let entry = page.entries.first();
    let entry = entry.filter(|entry| entry.sequence == sequence);
    let entry =
        entry.ok_or_else(|| Failure::refused(format!("\"{name}\" has no entry {sequence}")))?;
    // The leaf is that of the entry that is shown, not the one that the node names.
    let leaf = TreeHash::leaf(&entry.text);
    let proof = client.inclusion_proof(name, sequence, size).await?;
    let path = hashes(&proof, "audit_path")?;
    let (size, root) = (count_of(&proof, "size")?, hash_of(&proof, "root_hash")?);
    if !verify_inclusion(leaf, sequence, size, &path, root) {
        return Err(Failure::refused(format!(
            "the node's proof is wrong: entry {sequence} of \"{name}\" does not lead to root {root}"
        )));
    }
    out.say(
        &json!({ "txn": json_of(&entry.text)?, "proof": proof, "proven": true }),
        &format!(
            "entry {sequence} of {name} is in the tree of {size} entries with root {root}\n{}",
            entry.text
        ),
    );
    Ok(())
}

async fn prove_consistency(
    client: &ConsortiumClient,
    name: &str,
    first: u64,
    size: Option<u64>,
    out: Out,
) -> Result<(), Failure> {
    let proof = client.consistency_proof(name, first, size).await?;
    let path = hashes(&proof, "consistency_path")?;
    let old = hash_of(&proof, "first_root_hash")?;
    let (size, root) = (count_of(&proof, "size")?, hash_of(&proof, "root_hash")?);
    if !verify_consistency(first, old, size, root, &path) {
        return Err(Failure::refused(format!(
            "the node's proof is wrong: \"{name}\" does not begin with its first {first} entries"
        )));
    }
    out.say(
        &json!({ "proof": proof, "proven": true }),
        &format!(
            "{name} of {size} entries, root {root}, begins with what it was at {first} entries, root {old}"
        ),
    );
    Ok(())
}

fn verify(file: &Path, members: Option<&Path>, cards: &[PathBuf], out: Out) -> Result<(), Failure> {
    let mut keys = Keys::default();
    if let Some(path) = members {
        read_members(path, &mut keys)?;
    }
    for path in cards {
        let card: Card = read_card(path)?;
        keys.members
            .entry(card.did())
            .or_default()
            .insert(card.verkey());
    }
    let report = verify_file(file, &keys)?;
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({ "line": finding.line, "code": finding.code, "detail": finding.detail })
        })
        .collect();
    let proposed: serde_json::Map<String, Value> = report
        .proposed
        .iter()
        .map(|(did, count)| (did.to_string(), (*count).into()))
        .collect();
    let mut text = format!(
        "{}: {} entries, {} agreements, root {}",
        report.ledger, report.size, report.agreements, report.root
    );
    for finding in &report.findings {
        text.push_str(&format!("\n  {finding}"));
    }
    out.say(
        &json!({
            "ledger": report.ledger, "network": report.network, "size": report.size,
            "root_hash": report.root, "agreements": report.agreements, "proposed": proposed,
            "sound": report.is_sound(), "findings": findings,
        }),
        &text,
    );
    if report.is_sound() {
        Ok(())
    } else {
        Err(Failure::refused(format!(
            "{} is not sound: {} findings",
            file.display(),
            report.findings.len()
        )))
    }
}

/// Checks a file line by line, however long it is.
fn verify_file(path: &Path, keys: &Keys) -> Result<Report, Failure> {
    let about = path.display();
    let file = File::open(path).map_err(|e| Failure::system(&about, &e))?;
    let mut input = BufReader::new(file);
    let mut check = ExportCheck::new(keys);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|e| Failure::system(&about, &e))?;
        if read == 0 {
            return Ok(check.finish());
        }
        if line.pop() != Some(b'\n') {
            return Err(Failure::refused(format!(
                "{about}: a line is cut short, or longer than any line of an exported ledger"
            )));
        }
        check.line(&line);
    }
}

/// Reads the members that `daybook ledger members --json` wrote, one a line, or the node's own answer.
fn read_members(path: &Path, keys: &mut Keys) -> Result<(), Failure> {
    let about = path.display();
    let bad = |what: &str| Failure::usage(format!("{about}: {what}"));
    let file = File::open(path).map_err(|e| Failure::system(&about, &e))?;
    let mut text = String::new();
    file.take(MEMBERS_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| Failure::system(&about, &e))?;
    if text.len() as u64 > MEMBERS_BYTES_MAX {
        return Err(bad("longer than the members of any network"));
    }
    let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    for value in values {
        let value = value.map_err(|error| bad(&error.to_string()))?;
        match value.get("members").and_then(Value::as_array) {
            Some(page) => page.iter().try_for_each(|member| read_member(member, keys)),
            None => read_member(&value, keys),
        }
        .map_err(|what| bad(&what))?;
    }
    Ok(())
}

fn read_member(member: &Value, keys: &mut Keys) -> Result<(), String> {
    let missing = |name: &str| format!("\"{name}\" of a member is missing or malformed");
    let did: Did = member["did"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| missing("did"))?;
    let list = member["keys"].as_array().ok_or_else(|| missing("keys"))?;
    let known: Option<BTreeSet<PublicKey>> =
        list.iter().map(|key| key.as_str()?.parse().ok()).collect();
    keys.members
        .entry(did)
        .or_default()
        .extend(known.ok_or_else(|| missing("keys"))?);
    if member["active"] == false {
        keys.removed.insert(did);
    }
    Ok(())
}

fn write_new(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let about = path.display();
    let mut file = File::create_new(path).map_err(|e| Failure::system(&about, &e))?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    written.map_err(|e| Failure::system(&about, &e))
}

fn json_of(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|_| unexpected("an entry"))
}

fn items<'v>(page: &'v Value, name: &str) -> Result<&'v Vec<Value>, Failure> {
    page[name].as_array().ok_or_else(|| unexpected(name))
}

fn text_of<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn policy_text(ledger: &Value) -> String {
    match &ledger["policy"] {
        Value::String(word) => word.clone(),
        other => format!("at least {}", other["at_least"]),
    }
}

fn count_of(value: &Value, name: &str) -> Result<u64, Failure> {
    value[name].as_u64().ok_or_else(|| unexpected(name))
}

fn hash_of(value: &Value, name: &str) -> Result<TreeHash, Failure> {
    let text = value[name].as_str().ok_or_else(|| unexpected(name))?;
    text.parse().map_err(|_| unexpected(name))
}

fn hashes(value: &Value, name: &str) -> Result<Vec<TreeHash>, Failure> {
    let list = items(value, name)?.iter();
    list.map(|hash| hash.as_str()?.parse().ok())
        .collect::<Option<_>>()
        .ok_or_else(|| unexpected(name))
}

fn unexpected(what: &str) -> Failure {
    Failure::refused(format!("the node's answer lacks {what}"))
}
