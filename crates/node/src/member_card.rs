//! `daybook member card` and `daybook member rotate`: what a network knows of a member, and the key that it knows
//! it by.
//!
//! A rotation has four steps, and whoever is stopped between two of them goes on at the next call, or at the
//! member's next start:
//!
//! 1. the new key is on disk, beside the present one;
//! 2. the network has the card with the new key, signed by it, in a request that the present key signed;
//! 3. the card is in its file, and the old key under another name;
//! 4. the new key is in the place of the old one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueHint};
use daybook_client::consortium::ConsortiumClient;
use daybook_ledger::{
    SigningKey,
    consortium::{Body, Card, DEPTH_MAX, Did, Profile, Request, canon_object},
    json::Value,
};
use serde_json::json;

use crate::{
    cli::NodeFlags,
    failure::Failure,
    keyfile,
    ledger_command::submit_failure,
    member::{CARD, KEY, Where, chosen},
    out::Out,
    passphrase::Source,
    remote,
};

/// The key that is about to become the member's, in its folder.
const NEXT_KEY: &str = "member.next.key";

/// Who speaks, and to which node.
#[derive(Debug, Args)]
struct Speaker {
    /// Which member, when there are several
    #[arg(value_name = "DID")]
    member: Option<Did>,
    /// File whose first line is the passphrase of the key file
    #[arg(long, env = "DAYBOOK_KEY_PASSPHRASE_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    node: NodeFlags,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeCard {
    #[command(flatten)]
    texts: Texts,
    #[command(flatten)]
    speaker: Speaker,
}

/// What a card says, as far as it is to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Texts {
    /// A short name
    #[arg(long)]
    label: Option<String>,
    /// The organisation's full name
    #[arg(long)]
    organization: Option<String>,
    /// Where its gateway is reached
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Its page
    #[arg(long, value_name = "URL")]
    page: Option<String>,
    /// Where its logo is found
    #[arg(long, value_name = "URL")]
    logo: Option<String>,
    /// Where its icon is found
    #[arg(long, value_name = "URL")]
    icon: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    speaker: Speaker,
}

impl Texts {
    fn applied_to(&self, profile: &Profile) -> Profile {
        let text = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        Profile {
            label: text(&self.label, &profile.label),
            organization: text(&self.organization, &profile.organization),
            endpoint: text(&self.endpoint, &profile.endpoint),
            url: text(&self.page, &profile.url),
            logo: text(&self.logo, &profile.logo),
            icon: text(&self.icon, &profile.icon),
        }
    }
}

/// `daybook member card`.
pub(crate) async fn change(args: &ChangeCard, out: Out) -> Result<(), Failure> {
    let speaker = &args.speaker;
    let (did, folder) = chosen(&speaker.place.data_dir, speaker.member)?;
    let client = ConsortiumClient::new(remote::client(&speaker.node)?);
    let present = present_card(&client, did).await?;
    finish(&folder, &present)?;
    let profile = args.texts.applied_to(present.profile());
    let card = match profile == *present.profile() {
        // What an earlier call brought about, perhaps, and could not write down.
        true => present,
        false => {
            let key = present_key(&folder, &present, &speaker.source())?;
            let card = present.next(profile, &key);
            announce(&client, &card, &key).await?;
            card
        }
    };
    write_card(&folder, &card)?;
    tell(&card, &folder, None, out);
    Ok(())
}

/// `daybook member rotate`.
pub(crate) async fn rotate(args: &Rotate, out: Out) -> Result<(), Failure> {
    let speaker = &args.speaker;
    let (did, folder) = chosen(&speaker.place.data_dir, speaker.member)?;
    let client = ConsortiumClient::new(remote::client(&speaker.node)?);
    let present = present_card(&client, did).await?;
    if let Some(retired) = finish(&folder, &present)? {
        tell(&present, &folder, Some(&retired), out);
        return Ok(());
    }
    let source = speaker.source();
    let key = present_key(&folder, &present, &source)?;
    let next = next_key(&folder, &source)?;
    let card = present.next(present.profile().clone(), &next);
    announce(&client, &card, &key).await?;
    let retired = install(&folder, &card)?;
    tell(&card, &folder, Some(&retired), out);
    Ok(())
}

impl Speaker {
    fn source(&self) -> Source {
        Source::new(self.passphrase_file.as_deref())
    }
}

/// The card by which the network knows a member.
async fn present_card(client: &ConsortiumClient, did: Did) -> Result<Card, Failure> {
    let Some(member) = client.member(did).await? else {
        return Err(Failure::refused(format!(
            "the network does not know {did} yet: its card is named to whoever runs the node"
        )));
    };
    let unexpected = |what: &dyn std::fmt::Display| {
        Failure::refused(format!("the node's card of {did}: {what}"))
    };
    let text = member["card"].to_string();
    let card = Value::parse(text.as_bytes(), DEPTH_MAX).map_err(|error| unexpected(&error))?;
    let card = Card::read(&card).map_err(|refusal| unexpected(&refusal))?;
    match card.did() == did {
        true => Ok(card),
        false => Err(unexpected(&"it is another member's")),
    }
}

/// The key that the network knows the member by.
fn present_key(folder: &Path, present: &Card, source: &Source) -> Result<SigningKey, Failure> {
    let path = folder.join(KEY);
    let key = keyfile::read_with(&path, source)?;
    match key.public_key() == present.verkey() {
        true => Ok(key),
        false => Err(Failure::refused(format!(
            "the network knows {} by {}, and {} holds another key",
            present.did(),
            present.verkey(),
            path.display()
        ))),
    }
}

/// The new key: the one of an attempt that did not come to its end, or one that is made and on disk, encrypted
/// if the present one is.
fn next_key(folder: &Path, source: &Source) -> Result<SigningKey, Failure> {
    let path = folder.join(NEXT_KEY);
    if path.exists() {
        return keyfile::read_with(&path, source);
    }
    let (_, _, encrypted) = keyfile::look(&folder.join(KEY))?;
    let passphrase = match encrypted {
        true => Some(source.to_make(&path)?),
        false => None,
    };
    let key = keyfile::generate();
    keyfile::write(&path, &key, passphrase.as_ref())?;
    Ok(key)
}

async fn announce(client: &ConsortiumClient, card: &Card, key: &SigningKey) -> Result<(), Failure> {
    // What the network would refuse is not sent.
    Card::read(&card.to_object().into()).map_err(|refusal| Failure::usage(refusal.detail))?;
    let network = client.network().await?.network;
    let body = Body::Announce { card: card.clone() };
    match client.submit(&Request::sign(network, &body, key)).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // It may have been taken when only its answer was lost: what the network knows now tells.
            match present_card(client, card.did()).await {
                Ok(known) if known == *card => Ok(()),
                _ => Err(submit_failure(error)),
            }
        }
    }
}

/// Puts the new key in its place if the network knows the member by it; gives where the old one is kept then.
pub(crate) fn finish(folder: &Path, present: &Card) -> Result<Option<PathBuf>, Failure> {
    let next = folder.join(NEXT_KEY);
    if !next.exists() {
        return Ok(None);
    }
    let (_, public, _) = keyfile::look(&next)?;
    match public == present.verkey().to_string() {
        true => install(folder, present).map(Some),
        false => Ok(None),
    }
}

/// As [`finish`], when the node can be asked; otherwise the member goes on with the key that it has, and stops
/// when it reads that the network knows another.
pub(crate) async fn finish_if_known(
    client: &ConsortiumClient,
    did: Did,
    folder: &Path,
) -> Result<(), Failure> {
    if !folder.join(NEXT_KEY).exists() {
        return Ok(());
    }
    match present_card(client, did).await {
        Ok(present) => finish(folder, &present).map(drop),
        Err(error) => {
            tracing::warn!(%error, "whether the member's key was replaced is not known yet");
            Ok(())
        }
    }
}

/// Writes the card down, and puts the new key in the place of the old one, which is kept under its own name: a
/// node that was restored from an old backup knows the member by it.
fn install(folder: &Path, card: &Card) -> Result<PathBuf, Failure> {
    let (next, present) = (folder.join(NEXT_KEY), folder.join(KEY));
    write_card(folder, card)?;
    let (_, old, _) = keyfile::look(&present)?;
    let retired = folder.join(format!("retired-{old}.key"));
    let system = |error: io::Error| Failure::system(folder.display(), &error);
    match fs::hard_link(&present, &retired) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(system(error)),
        _ => {}
    }
    fs::rename(&next, &present).map_err(system)?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(system)?;
    Ok(retired)
}

fn write_card(folder: &Path, card: &Card) -> Result<(), Failure> {
    let path = folder.join(CARD);
    let text = canon_object(&card.to_object()) + "\n";
    keyfile::replace(&path, text.as_bytes(), 0o644)
        .map_err(|error| Failure::system(path.display(), &error))
}

fn tell(card: &Card, folder: &Path, retired: Option<&Path>, out: Out) {
    let mut text = format!(
        "did       {}\nverkey    {}\nlabel     {}\nrevision  {}",
        card.did(),
        card.verkey(),
        card.profile().label,
        card.revision()
    );
    if let Some(retired) = retired {
        text.push_str(&format!(
            "\nretired   {}\nStart the member again: it signs with the new key from then on.",
            retired.display()
        ));
    }
    out.say(
        &json!({
            "did": card.did().to_string(),
            "verkey": card.verkey().to_string(),
            "label": card.profile().label,
            "revision": card.revision(),
            "card": folder.join(CARD),
            "retired": retired,
        }),
        &text,
    );
}
