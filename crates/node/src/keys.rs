//! `daybook keys`.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::{KeyKind, Keys},
    failure::Failure,
    keyfile::{self, Kind, Secret},
    out::Out,
    passphrase::Source,
};

pub(crate) fn run(args: &Keys, out: Out) -> Result<(), Failure> {
    match args {
        Keys::Generate {
            out: file,
            kind,
            encrypt,
            passphrase_file,
            show_secret,
        } => {
            let source = Source::new(passphrase_file.as_deref());
            let made = keyfile::generate_secret(match kind {
                KeyKind::Ed25519 => Kind::Ed25519,
                KeyKind::Rsa => Kind::Rsa,
                KeyKind::P256 => Kind::P256,
            });
            let mut encrypted = false;
            if let Some(path) = file {
                let passphrase = match encrypt {
                    true => Some(source.to_make(path)?),
                    false => source.given()?,
                };
                encrypted = passphrase.is_some();
                keyfile::store_secret(
                    path,
                    made.kind,
                    &made.public,
                    &made.bytes,
                    passphrase.as_ref(),
                )?;
            }
            let secret = show_secret.then_some(&made);
            say(made.kind, &made.public, encrypted, secret, out);
        }
        Keys::Show {
            file,
            passphrase_file,
            show_secret,
        } => {
            let (kind, public, encrypted) = keyfile::look(file)?;
            // A private half that nobody wants to see need not be opened, unless it lies there openly
            // and can tell that the public one is right.
            let secret = match *show_secret || !encrypted {
                true => Some(open(file, passphrase_file.as_deref())?),
                false => None,
            };
            let shown = secret.as_ref().filter(|_| *show_secret);
            say(kind, &public, encrypted, shown, out);
        }
        Keys::Passphrase {
            file,
            passphrase_file,
            new_passphrase_file,
            remove,
        } => {
            let old = Source::new(passphrase_file.as_deref());
            let new = match (remove, new_passphrase_file) {
                (true, _) => None,
                (false, None) => Some(Source::typed(file)?),
                (false, new) => Some(Source::new(new.as_deref()).to_make(file)?),
            };
            keyfile::change_passphrase(file, &old, new.as_ref())?;
            let (kind, public, encrypted) = keyfile::look(file)?;
            say(kind, &public, encrypted, None, out);
        }
    }
    Ok(())
}

fn open(file: &Path, passphrase_file: Option<&Path>) -> Result<Secret, Failure> {
    keyfile::load_secret(file, &Source::new(passphrase_file))
}

fn say(kind: Kind, public: &str, encrypted: bool, secret: Option<&Secret>, out: Out) {
    let mut json = json!({
        "type": kind.name(),
        "public_key": public,
        "encrypted": encrypted,
    });
    let Some(secret) = secret else {
        return out.say(&json, public);
    };
    let private: Zeroizing<String> = keyfile::private_text(kind, &secret.bytes);
    json["private_key"] = private.as_str().into();
    out.say(&json, &format!("public   {public}\nprivate  {}", *private));
}
