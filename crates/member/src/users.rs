//! Who may use a member's gateway: people and programs with passwords, tokens for the socket, and
//! sessions of browsers. Passwords are known by their Argon2id hashes only, tokens by their SHA-256.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    disk::{DiskError, OwnFile},
    json::{count, object, own, text, write},
};

/// Bytes of a password at most: hashing is paid for by the gateway.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Characters of a password at least (section 1.7).
const PASSWORD_CHARS_MIN: usize = 5;
/// Characters of a user's name at most (section 1.7).
const NAME_CHARS_MAX: usize = 36;
/// Bytes of the file of users at most: ten thousand of them.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Users of one member at most.
const USERS_MAX: usize = 10_000;
/// Right passwords that are remembered, so that a program that sends one with every request is not
/// hashed every time.
const REMEMBERED_MAX: usize = 4_096;
/// Sessions of browsers at once; beyond it the oldest ends.
const SESSIONS_MAX: usize = 4_096;
/// How long a session lives, in milliseconds: a working day.
const SESSION_MS: u64 = 12 * 60 * 60 * 1_000;
/// Random bytes of a token, a session and a CSRF token (section 1.6).
const TOKEN_BYTES: usize = 16;

/// A user of a member, as the file of users has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// The password's hash (PHC text of Argon2id).
    pub hash: String,
    /// Whether the user may log in.
    pub active: bool,
    /// Whether the user may decide for the member: approve and refuse proposals, make users.
    pub admin: bool,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    users: Vec<User>,
}

/// A file of users cannot be used, or a user cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// What is in the file.
    #[error("{0} is no file of users")]
    Damaged(String),
    /// The name cannot be one, or is taken.
    #[error("{0}")]
    UnfitName(String),
    /// The password cannot be one.
    #[error("{0}")]
    UnfitPassword(String),
}

/// Checks a name and hashes a password, which takes some hundredths of a second by design.
///
/// # Errors
/// [`UsersError::UnfitName`] and [`UsersError::UnfitPassword`].
pub fn new_user(name: &str, password: &str, admin: bool, now_ms: u64) -> Result<User, UsersError> {
    let unfit = |what: String| Err(UsersError::UnfitName(what));
    let characters = name.chars().count();
    if characters == 0 || characters > NAME_CHARS_MAX {
        return unfit(format!(
            "a user's name has 1 to {NAME_CHARS_MAX} characters"
        ));
    }
    if name.chars().any(|c| c == ':' || c.is_control()) {
        return unfit("a user's name has no colon and no control characters".to_owned());
    }
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(UsersError::UnfitPassword(format!(
            "a password has {PASSWORD_CHARS_MIN} characters at least and {PASSWORD_BYTES_MAX} bytes at most"
        )));
    }
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| UsersError::UnfitPassword(error.to_string()))?;
    Ok(User {
        name: name.to_owned(),
        hash: hash.to_string(),
        active: true,
        admin,
        created: now_ms,
    })
}

/// Reads a file of users; one that is not there has none.
///
/// # Errors
/// [`UsersError`].
pub fn read_users(path: &Path) -> Result<Vec<User>, UsersError> {
    let failed = |error| UsersError::File(path.display().to_string(), error);
    let damaged = || UsersError::Damaged(path.display().to_string());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(data) if data.len() > FILE_BYTES_MAX => return Err(damaged()),
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let file: UsersFile = serde_json::from_str(&text).map_err(|_| damaged())?;
    Ok(file.users)
}

/// The text of a file of users.
pub fn users_text(users: Vec<User>) -> String {
    let file = UsersFile { users };
    serde_json::to_string_pretty(&file).expect("texts and numbers make JSON") + "\n"
}

/// Changes a file of users under a lock, and replaces it as a whole: after a crash it is the old one or
/// the new one. Blocks on the disk.
///
/// # Errors
/// What `change` says, or [`UsersError`]; then nothing changes.
pub fn change_users<E: From<UsersError>>(
    path: &Path,
    change: impl FnOnce(&mut Vec<User>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error: io::Error| UsersError::File(path.display().to_string(), error);
    let lock = fs::File::create(path.with_extension("lock")).map_err(failed)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    let mut users = read_users(path)?;
    change(&mut users)?;
    if users.len() > USERS_MAX {
        return Err(UsersError::UnfitName(format!("{USERS_MAX} users are enough")).into());
    }
    let write = || -> io::Result<()> {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            // What a process left behind when it was killed.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(users_text(users).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    Ok(write().map_err(failed)?)
}

/// A user who showed who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) admin: bool,
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The name is unknown, or the password is wrong.
    Wrong,
    /// The user may no longer log in.
    Inactive,
}

/// The users of one member. Whoever asks about one may wait for the disk: the file of users is looked at
/// each time, and read when it changed.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    own: Arc<OwnFile>,
    token_ms: u64,
    known: Mutex<Known>,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
    secret: [u8; 32],
}

#[derive(Debug, Default)]
struct Known {
    users: Arc<HashMap<String, User>>,
    /// What the file was when it was read: its number, time and length.
    file: Option<(u64, SystemTime, u64)>,
    right: HashMap<[u8; 32], String>,
}

#[derive(Clone, Debug)]
struct Session {
    user: String,
    /// The user's password when the session began; with another one it is over.
    hash: String,
    csrf: String,
    until: u64,
}

/// What a browser is given.
#[derive(Clone, Debug)]
pub(crate) struct Cookies {
    pub(crate) session: String,
    pub(crate) csrf: String,
}

impl Users {
    pub(crate) fn new(path: PathBuf, own: Arc<OwnFile>, token_ms: u64) -> Users {
        Users {
            path,
            own,
            token_ms,
            known: Mutex::default(),
            sessions: Mutex::default(),
            secret: random(),
        }
    }

    /// The users, read anew when the file changed. A file that cannot be read lets nobody in.
    fn users(&self) -> Arc<HashMap<String, User>> {
        let file = fs::metadata(&self.path)
            .ok()
            .and_then(|data| Some((data.ino(), data.modified().ok()?, data.len())));
        let mut known = self.known.lock();
        if known.file != file || file.is_none() {
            let users = read_users(&self.path)
                .inspect_err(|error| tracing::error!(%error, "nobody can log in"))
                .unwrap_or_default();
            let users = users.into_iter().map(|user| (user.name.clone(), user));
            *known = Known {
                users: Arc::new(users.collect()),
                file,
                right: HashMap::new(),
            };
        }
        known.users.clone()
    }

    /// Whether the member has this user. Blocks on the disk.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.users().contains_key(name)
    }

    /// Adds a user of a name that is not taken. Blocks, as hashing does.
    pub(crate) fn add(&self, name: &str, password: &str, now_ms: u64) -> Result<(), UsersError> {
        let user = new_user(name, password, false, now_ms)?;
        change_users(&self.path, |users| {
            if users.iter().any(|known| known.name == user.name) {
                return Err(UsersError::UnfitName(
                    "a user has this name already".to_owned(),
                ));
            }
            users.push(user);
            Ok(())
        })
    }

    /// Who it is, if this very password was right before and nothing has changed since: without hashing.
    /// Blocks on the disk.
    pub(crate) fn remembered(&self, name: &str, password: &str) -> Option<Caller> {
        if password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        let users = self.users();
        let user = users.get(name).filter(|user| user.active)?;
        let digest = self.digest(name, password);
        let known = self.known.lock();
        (known.right.get(&digest) == Some(&user.hash)).then(|| caller(user))
    }

    /// Compares a password. Blocks, by design for some hundredths of a second.
    pub(crate) fn check(&self, name: &str, password: &str) -> Result<Caller, Denied> {
        let users = self.users();
        let user = users.get(name);
        let digest = self.digest(name, password);
        let remembered = self.known.lock().right.get(&digest).cloned();
        let right = match user {
            _ if password.len() > PASSWORD_BYTES_MAX => false,
            Some(user) if remembered.as_ref() == Some(&user.hash) => true,
            Some(user) => PasswordHash::new(&user.hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            }),
            None => {
                // A name that does not exist takes as long as a wrong password.
                let _ = Argon2::default().hash_password(password.as_bytes());
                false
            }
        };
        match user {
            Some(user) if right && user.active => {
                let mut known = self.known.lock();
                if known.right.len() >= REMEMBERED_MAX {
                    known.right.clear();
                }
                known.right.insert(digest, user.hash.clone());
                Ok(caller(user))
            }
            Some(_) if right => Err(Denied::Inactive),
            _ => Err(Denied::Wrong),
        }
    }

    fn digest(&self, name: &str, password: &str) -> [u8; 32] {
        // No name has a zero byte.
        sha256(
            &[
                &self.secret[..],
                name.as_bytes(),
                b"\0",
                password.as_bytes(),
            ]
            .concat(),
        )
    }

    /// A new token for the socket (section 2.1). Blocks on the disk.
    pub(crate) fn new_token(&self, name: &str, now_ms: u64) -> Result<Option<String>, DiskError> {
        let users = self.users();
        let Some(user) = users.get(name) else {
            return Ok(None);
        };
        let token = hex::encode(random::<TOKEN_BYTES>());
        let kept = object([
            ("user", name.into()),
            ("password", fingerprint(&user.hash).into()),
            ("until", now_ms.saturating_add(self.token_ms).into()),
        ]);
        let over = |text: &str| count(&own(text), "until") <= now_ms;
        let hash = sha256(token.as_bytes());
        self.own.add_token(&hash, &write(&kept), over)?;
        Ok(Some(token))
    }

    /// Whose token it is. One of a user who was disabled or whose password changed is nobody's. Blocks
    /// on the disk.
    pub(crate) fn token(&self, token: &str, now_ms: u64) -> Result<Option<Caller>, DiskError> {
        let digits = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if token.len() != 2 * TOKEN_BYTES || !token.bytes().all(digits) {
            return Ok(None);
        }
        let Some(kept) = self.own.token(&sha256(token.as_bytes()))? else {
            return Ok(None);
        };
        let kept = own(&kept);
        let users = self.users();
        let user = users.get(text(&kept, "user")).filter(|user| {
            user.active
                && count(&kept, "until") > now_ms
                && fingerprint(&user.hash) == text(&kept, "password")
        });
        Ok(user.map(caller))
    }

    /// Begins a browser's session for a user who was checked. Blocks on the disk.
    pub(crate) fn begin_session(&self, name: &str, now_ms: u64) -> Option<Cookies> {
        let users = self.users();
        let user = users.get(name)?;
        let cookies = Cookies {
            session: hex::encode(random::<TOKEN_BYTES>()),
            csrf: hex::encode(random::<TOKEN_BYTES>()),
        };
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, session| session.until > now_ms);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions
                .iter()
                .min_by_key(|(_, session)| session.until)
                .map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        let session = Session {
            user: name.to_owned(),
            hash: user.hash.clone(),
            csrf: cookies.csrf.clone(),
            until: now_ms.saturating_add(SESSION_MS),
        };
        sessions.insert(sha256(cookies.session.as_bytes()), session);
        Some(cookies)
    }

    /// Whose session it is, and its CSRF token. Blocks on the disk.
    pub(crate) fn session(&self, session: &str, now_ms: u64) -> Option<(Caller, String)> {
        let key = sha256(session.as_bytes());
        let session = self.sessions.lock().get(&key).cloned()?;
        let users = self.users();
        let user = users.get(&session.user)?;
        let valid = user.active && user.hash == session.hash && session.until > now_ms;
        valid.then(|| (caller(user), session.csrf))
    }

    /// Ends a session. In memory alone.
    pub(crate) fn end_session(&self, session: &str) {
        self.sessions.lock().remove(&sha256(session.as_bytes()));
    }
}

fn caller(user: &User) -> Caller {
    Caller {
        name: user.name.clone(),
        admin: user.admin,
    }
}

/// Tells whether a password is still the same, and nothing about it: a hash of its salted hash.
fn fingerprint(hash: &str) -> String {
    hex::encode(sha256(hash.as_bytes()))
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn users(dir: &Path, list: Vec<User>) -> Users {
        let path = dir.join("users.json");
        fs::write(&path, users_text(list)).unwrap();
        let own = OwnFile::open(&dir.join("own.redb")).unwrap();
        Users::new(path, Arc::new(own), 1_000)
    }

    #[test]
    fn a_password_opens_its_own_name_only_and_not_that_of_a_disabled_user() {
        let dir = tempfile::tempdir().unwrap();
        let alice = new_user("alice", "correct horse", false, 1).unwrap();
        assert!(alice.hash.starts_with("$argon2id$"));
        let mut bob = new_user("bob", "battery staple", true, 1).unwrap();
        bob.active = false;
        let users = users(dir.path(), vec![alice, bob]);
        for _ in 0..2 {
            assert_eq!(users.check("alice", "correct horse").unwrap().name, "alice");
            assert_eq!(users.check("alice", "battery staple"), Err(Denied::Wrong));
        }
        assert_eq!(users.check("bob", "battery staple"), Err(Denied::Inactive));
        assert_eq!(users.check("bob", "wrong one"), Err(Denied::Wrong));
        assert_eq!(users.check("carol", "correct horse"), Err(Denied::Wrong));
    }

    #[test]
    fn a_token_lives_its_time_and_ends_with_its_password() {
        let dir = tempfile::tempdir().unwrap();
        let alice = new_user("alice", "correct horse", false, 1).unwrap();
        let users = users(dir.path(), vec![alice]);
        let token = users.new_token("alice", 10).unwrap().unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(users.token(&token, 1_009).unwrap().unwrap().name, "alice");
        assert_eq!(users.token(&token, 1_010).unwrap(), None);
        for wrong in ["", "x", "00000000000000000000000000000000", "=="] {
            assert_eq!(users.token(wrong, 10).unwrap(), None);
        }
        let changed = new_user("alice", "another horse, longer", false, 1).unwrap();
        fs::write(dir.path().join("users.json"), users_text(vec![changed])).unwrap();
        users.known.lock().file = None;
        assert_eq!(users.token(&token, 10).unwrap(), None);
        assert_eq!(users.new_token("nobody", 10).unwrap(), None);
    }

    #[test]
    fn a_session_ends_with_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let alice = new_user("alice", "correct horse", false, 1).unwrap();
        let users = users(dir.path(), vec![alice]);
        let cookies = users.begin_session("alice", 0).unwrap();
        let (caller, csrf) = users.session(&cookies.session, 1).unwrap();
        assert_eq!((caller.name.as_str(), csrf), ("alice", cookies.csrf));
        assert!(users.session("other", 1).is_none());
        assert!(users.session(&cookies.session, SESSION_MS).is_none());
        fs::write(dir.path().join("users.json"), users_text(Vec::new())).unwrap();
        assert!(users.session(&cookies.session, 1).is_none());
    }

    #[test]
    fn names_and_passwords_have_bounds() {
        for (name, password) in [
            ("", "longer"),
            ("a:b", "longer"),
            ("a", "four"),
            (&"a".repeat(37), "longer"),
        ] {
            assert!(new_user(name, password, false, 0).is_err(), "{name}");
        }
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert!(new_user("a", &long, false, 0).is_err());
    }
}
