//! `daybook keys`.

use daybook_ledger::SigningKey;
use serde_json::json;

use crate::{cli::Keys, failure::Failure, keyfile, out::Out};

pub(crate) fn run(args: &Keys, out: Out) -> Result<(), Failure> {
    match args {
        Keys::Generate {
            out: file,
            show_secret,
        } => {
            let key = keyfile::generate();
            if let Some(path) = file {
                keyfile::write(path, &key)?;
            }
            show(&key, *show_secret, out);
        }
        Keys::Show { file, show_secret } => show(&keyfile::read(file)?, *show_secret, out),
    }
    Ok(())
}

fn show(key: &SigningKey, secret: bool, out: Out) {
    let public = key.public_key().to_string();
    if secret {
        let private = zeroize::Zeroizing::new(key.to_base58());
        out.say(
            &json!({"public_key": public, "private_key": &*private}),
            &format!("public   {public}\nprivate  {}", *private),
        );
    } else {
        out.say(&json!({"public_key": public}), &public);
    }
}
