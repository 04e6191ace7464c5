//! `daybook user`: who may use a member's gateway.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueHint};
use daybook_ledger::consortium::Did;
use daybook_member::{UsersError, change_users, new_user, read_users, users_file};
use serde_json::json;

use crate::{
    bus,
    failure::{Exit, Failure},
    member::{Where, chosen, folders},
    out::Out,
    passphrase,
};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user, or give one another password
    #[command(after_long_help = "EXAMPLES:
  daybook user add warehouse                            # asks for the password
  daybook user add warehouse --password-file -  < secret
  daybook user add alice --admin --member DID

A password is never an argument: every process of the machine could read it. A running member takes
the change at once; with another password, tokens and sessions of the user end.")]
    Add(AddUser),
    /// List the users
    List(Of),
    /// Take a user away; its tokens and sessions end at once
    Revoke {
        /// The user's name
        name: String,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddUser {
    /// The name to log in with
    name: String,
    /// May decide for the member: endorse and refuse proposals
    #[arg(long)]
    admin: bool,
    /// Take the password from this file, or from standard input for -, instead of asking
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    of: Of,
}

/// Whose users.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Which member, when there are several
    #[arg(long, value_name = "DID")]
    member: Option<Did>,
    #[command(flatten)]
    place: Where,
}

pub(crate) fn run(command: &UserCommand, out: Out) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(args, out),
        UserCommand::List(of) => {
            let (_, folder) = chosen(&of.place.data_dir, of.member)?;
            for user in read_users(&users_file(&folder))? {
                // Without the hash, which is worth a guess to who gets hold of it.
                out.say(
                    &json!({
                        "name": user.name,
                        "active": user.active,
                        "admin": user.admin,
                        "created": user.created,
                    }),
                    &format!("{}{}", user.name, if user.admin { "  (admin)" } else { "" }),
                );
            }
            Ok(())
        }
        UserCommand::Revoke { name, of } => {
            let (did, folder) = chosen(&of.place.data_dir, of.member)?;
            change_users(&users_file(&folder), |users| {
                let before = users.len();
                users.retain(|user| user.name != *name);
                match users.len() < before {
                    true => Ok(()),
                    false => Err(Failure::refused(format!("{did} has no user {name}"))),
                }
            })?;
            out.say(&json!({"revoked": name}), "revoked");
            Ok(())
        }
    }
}

fn add(args: &AddUser, out: Out) -> Result<(), Failure> {
    let data_dir = &args.of.place.data_dir;
    let (did, folder) = chosen(data_dir, args.of.member)?;
    // A node that hosts several members knows by the name alone whose user somebody is.
    for (other, other_folder) in folders(data_dir)? {
        let known = read_users(&users_file(&other_folder))?;
        if other != did && known.iter().any(|user| user.name == args.name) {
            return Err(Failure::refused(format!(
                "{} is a user of {other} already",
                args.name
            )));
        }
    }
    let password = match &args.password_file {
        Some(file) => bus::read_key(file)?,
        None => passphrase::new_password(&args.name)?,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let user = new_user(&args.name, &password, args.admin, now)?;
    change_users(&users_file(&folder), |users| {
        users.retain(|known| known.name != user.name);
        users.push(user);
        Ok::<(), Failure>(())
    })?;
    out.say(
        &json!({"user": args.name, "member": did.to_string(), "admin": args.admin}),
        &format!("{} is a user of {did}", args.name),
    );
    Ok(())
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Failure {
        let exit = match &error {
            UsersError::File(..) => Exit::System,
            UsersError::Damaged(_) => Exit::Damaged,
            UsersError::UnfitName(_) | UsersError::UnfitPassword(_) => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    }
}
