//! Who asks (section 1.1): names and passwords, tokens, browsers' sessions, and users who make users
//! (section 1.7).

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use daybook_ledger::json::{Object, Value};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::{
    Asks, Hosted, Known, Refused, Reply,
    answers::{broken, denial, denied, detail, json, later, unknown},
    attempts::Attempts,
};
use crate::{
    json::{object, text},
    member::{Shared, blocking},
    users::{Caller, Denied, UsersError},
};

/// Passwords that are looked at or made at once: each takes a core and megabytes for some hundredths of
/// a second.
const PASSWORDS_AT_ONCE: usize = 4;
/// Passwords that wait for their turn: some seconds of work.
const PASSWORDS_WAITING_MAX: usize = 64;
/// When to come again when more wait.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What stands between strangers and the users' passwords.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    attempts: Arc<Attempts>,
    turns: Arc<Semaphore>,
    /// Turns and places to wait for one.
    places: Arc<Semaphore>,
}

impl Default for Doorkeeper {
    fn default() -> Doorkeeper {
        Doorkeeper {
            attempts: Arc::default(),
            turns: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            places: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE + PASSWORDS_WAITING_MAX)),
        }
    }
}

/// Why nobody is let in.
enum NotIn {
    /// By this password.
    Denied(Denied),
    /// Too many attempts failed: not before so long.
    TooMany(Duration),
    /// Too many passwords are being looked at.
    Busy,
}

impl NotIn {
    fn refusal(self) -> Refused {
        match self {
            NotIn::Denied(why) => denied(why),
            NotIn::TooMany(wait) => Box::new(too_many(wait)),
            NotIn::Busy => Box::new(busy()),
        }
    }
}

/// The detail is stable: programs may look for it.
fn too_many(wait: Duration) -> Reply {
    let words = "Too many failed log-ins: try again later.";
    later(detail(StatusCode::TOO_MANY_REQUESTS, words), wait)
}

fn busy() -> Reply {
    let words = "Too many passwords are being checked: try again later.";
    later(detail(StatusCode::SERVICE_UNAVAILABLE, words), BUSY_WAIT)
}

impl Doorkeeper {
    /// Runs work on a password, which takes a core for a while, away from the sockets and in its turn.
    /// Nothing when too much waits already.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let turn = self.turns.clone().acquire_owned().await.ok()?;
        // Who gives up waiting does not stop the work, which keeps its turn until it is done.
        let done = blocking(move || {
            let _held = (place, turn);
            work()
        });
        Some(done.await)
    }
}

impl Hosted {
    async fn check(
        &self,
        from: IpAddr,
        name: &str,
        password: &str,
    ) -> Result<(Arc<Shared>, Caller), NotIn> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let members = self.all_shared();
        let asked = {
            let (name, password) = (name.clone(), password.clone());
            blocking(move || {
                // Whoever knows the name, or else the first: a name that nobody knows takes as long.
                let known = members.iter().find(|shared| shared.users.knows(&name));
                let shared = known.or(members.first())?.clone();
                // Those who guess passwords keep nobody waiting whose password is known to be right.
                let remembered = shared.users.remembered(&name, &password);
                Some((shared, remembered))
            })
        };
        let Some((shared, remembered)) = asked.await else {
            return Err(NotIn::Denied(Denied::Wrong));
        };
        if let Some(caller) = remembered {
            return Ok((shared, caller));
        }
        let attempts = self.door.attempts.clone();
        let attempt = attempts
            .begin(from, &name, shared.now_ms())
            .map_err(NotIn::TooMany)?;
        let checking = {
            let attempts = attempts.clone();
            self.door.in_turn(move || {
                let caller = shared.users.check(&name, &password)?;
                attempts.forgive(attempt);
                Ok::<_, Denied>((shared, caller))
            })
        };
        match checking.await {
            Some(checked) => checked.map_err(NotIn::Denied),
            None => {
                attempts.forgive(attempt);
                Err(NotIn::Busy)
            }
        }
    }
}

impl Asks<'_> {
    /// Who asks: by name and password, by token, or by session.
    pub(super) async fn known(&self) -> Result<Known, Refused> {
        let headers = &self.parts.headers;
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let shown = shown.to_str().unwrap_or("");
            let (scheme, rest) = shown.split_once(' ').unwrap_or((shown, ""));
            if scheme.eq_ignore_ascii_case("basic") {
                let pair = STANDARD
                    .decode(rest.trim())
                    .ok()
                    .and_then(|pair| String::from_utf8(pair).ok());
                let (name, password) = pair
                    .as_deref()
                    .and_then(|pair| pair.split_once(':'))
                    .ok_or_else(|| denied(Denied::Wrong))?;
                let checked = self.hosted.check(self.from(), name, password);
                let (shared, caller) = checked.await.map_err(NotIn::refusal)?;
                return Ok(Known {
                    shared,
                    caller,
                    csrf: None,
                    by_token: false,
                });
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                let found = self.hosted.token(rest.trim()).await.map_err(broken)?;
                let (shared, caller) = found.ok_or_else(|| denied(Denied::Wrong))?;
                return Ok(Known {
                    shared,
                    caller,
                    csrf: None,
                    by_token: true,
                });
            }
        }
        if let Some(session) = cookie(headers, "sessionid") {
            let members = self.hosted.all_shared();
            let known = blocking(move || {
                members.into_iter().find_map(|shared| {
                    let (caller, csrf) = shared.users.session(&session, shared.now_ms())?;
                    Some(Known {
                        shared,
                        caller,
                        csrf: Some(csrf),
                        by_token: false,
                    })
                })
            });
            if let Some(known) = known.await {
                return Ok(known);
            }
        }
        Err(unknown("Authentication credentials were not provided."))
    }

    /// The address that attempts are counted under. Behind a proxy that is believed, the one that the
    /// proxy saw, which it adds at the end of what it was told.
    fn from(&self) -> IpAddr {
        let members = self.hosted.members();
        let proxied = members
            .iter()
            .all(|member| member.shared().settings.trust_forwarded);
        let mut told = self.parts.headers.get_all("x-forwarded-for").iter();
        let last = told.next_back().filter(|_| proxied);
        last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok())
            .unwrap_or(self.peer.address)
    }

    /// A session's unsafe methods need its token, which no other page knows.
    pub(super) fn guard(&self, known: &Known) -> Result<(), Refused> {
        let safe = matches!(self.parts.method, Method::GET | Method::HEAD);
        let Some(csrf) = known.csrf.as_ref().filter(|_| !safe) else {
            return Ok(());
        };
        let shown = self.parts.headers.get("x-csrftoken");
        let same = |shown: &HeaderValue| verify_slices_are_equal(shown.as_bytes(), csrf.as_bytes());
        if shown.is_some_and(|shown| same(shown).is_ok()) {
            return Ok(());
        }
        let words = match shown {
            None => "CSRF Failed: CSRF token missing or incorrect.",
            Some(_) => "CSRF Failed: CSRF token incorrect.",
        };
        Err(Box::new(detail(StatusCode::FORBIDDEN, words)))
    }

    pub(super) async fn new_token(&self, known: Known) -> Result<Reply, Refused> {
        let made = blocking(move || {
            let shared = &known.shared;
            shared.users.new_token(&known.caller.name, shared.now_ms())
        });
        match made.await.map_err(broken)? {
            Some(token) => Ok(json(StatusCode::OK, &object([("token", token.into())]))),
            None => Err(denied(Denied::Inactive)),
        }
    }

    pub(super) async fn log_in(&self, body: Incoming) -> Result<Reply, Refused> {
        // A page of another site may not log its visitor in as somebody else.
        if let Some(origin) = self.parts.headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or("");
            let host = self.parts.headers.get(header::HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or("");
            let own = origin
                .split_once("://")
                .is_some_and(|(_, from)| from == host);
            let members = self.hosted.members().iter();
            let mut origins = members.map(|member| member.shared().settings.origin.as_str());
            if !own && !origins.any(|known| known == origin) {
                return Err(Box::new(detail(
                    StatusCode::FORBIDDEN,
                    "Pages of this origin may not log in.",
                )));
            }
        }
        let (fields, mut errors) = self.fields(body, &["login", "password"]).await?;
        let field = |name: &str| text(&fields, name).to_owned();
        let failed = |errors: Object| {
            let answer = object([("success", false.into()), ("errors", Value::Object(errors))]);
            json(StatusCode::BAD_REQUEST, &answer)
        };
        if !errors.is_empty() {
            return Err(Box::new(failed(errors)));
        }
        let (login, password) = (field("login"), field("password"));
        let checked = self.hosted.check(self.from(), &login, &password).await;
        let (shared, caller) = checked.map_err(|not_in| match not_in {
            NotIn::Denied(why) => {
                errors.insert("password", denial(why).into());
                Box::new(failed(errors.clone()))
            }
            other => other.refusal(),
        })?;
        let begun = {
            let shared = shared.clone();
            blocking(move || shared.users.begin_session(&caller.name, shared.now_ms())).await
        };
        let cookies = begun.ok_or_else(|| denied(Denied::Inactive))?;
        let secure = match self.peer.secure || shared.settings.origin.starts_with("https://") {
            true => "; Secure",
            false => "",
        };
        let answer = object([("success", true.into()), ("errors", Value::Null)]);
        let mut reply = json(StatusCode::OK, &answer);
        for text in [
            format!(
                "sessionid={}; Path=/; HttpOnly; SameSite=Lax{secure}",
                cookies.session
            ),
            format!("csrftoken={}; Path=/; SameSite=Lax{secure}", cookies.csrf),
        ] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                reply.headers_mut().append(header::SET_COOKIE, value);
            }
        }
        Ok(reply)
    }

    pub(super) fn log_out(&self, known: &Known) -> Reply {
        if let Some(session) = cookie(&self.parts.headers, "sessionid") {
            known.shared.users.end_session(&session);
        }
        let mut reply = json(StatusCode::OK, &object([("success", true.into())]));
        for text in [
            "sessionid=; Path=/; Max-Age=0",
            "csrftoken=; Path=/; Max-Age=0",
        ] {
            reply
                .headers_mut()
                .append(header::SET_COOKIE, HeaderValue::from_static(text));
        }
        reply
    }

    /// Makes a user (section 1.7).
    pub(super) async fn create_user(&self, known: Known, body: Incoming) -> Result<Reply, Refused> {
        /// Characters of a first or a last name.
        const CHARS_MAX: usize = 36;
        if !known.caller.admin {
            return Err(Box::new(detail(
                StatusCode::FORBIDDEN,
                "You do not have permission to perform this action.",
            )));
        }
        let (fields, mut errors) = self
            .fields(body, &["username", "password", "first_name"])
            .await?;
        let field = |name: &str| text(&fields, name).to_owned();
        for name in ["first_name", "last_name"] {
            if field(name).chars().count() > CHARS_MAX {
                let words = format!("Ensure this value has at most {CHARS_MAX} characters.");
                errors.insert(name, words.into());
            }
        }
        let name = field("username");
        let taken = {
            let (members, name) = (self.hosted.all_shared(), name.clone());
            blocking(move || members.iter().any(|shared| shared.users.knows(&name))).await
        };
        if taken {
            errors.insert("username", "a user has this name already".into());
        }
        if errors.is_empty() {
            let (shared, name, password) = (known.shared, name.clone(), field("password"));
            let making = self
                .hosted
                .door
                .in_turn(move || shared.users.add(&name, &password, shared.now_ms()));
            let made = making.await.ok_or_else(|| Box::new(busy()))?;
            if let Err(error) = made {
                let about = match error {
                    UsersError::UnfitPassword(_) => "password",
                    _ => "username",
                };
                errors.insert(about, error.to_string().into());
            }
        }
        let account = object([
            ("username", name.into()),
            ("first_name", field("first_name").into()),
            ("last_name", field("last_name").into()),
        ]);
        let answer = match errors.is_empty() {
            true => object([
                ("errors", Value::Null),
                ("success", true.into()),
                ("account", account),
            ]),
            false => object([
                ("errors", Value::Object(errors)),
                ("success", false.into()),
                ("account", Value::Null),
            ]),
        };
        Ok(json(StatusCode::OK, &answer))
    }
}

pub(super) fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::{Condvar, Mutex};

    use super::*;

    #[tokio::test]
    async fn few_passwords_are_looked_at_at_once_and_not_many_wait() {
        let door = Arc::new(Doorkeeper::default());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let mut working = Vec::new();
        for _ in 0..PASSWORDS_AT_ONCE + PASSWORDS_WAITING_MAX {
            let (door, now, most) = (door.clone(), now.clone(), most.clone());
            let gate = gate.clone();
            working.push(tokio::spawn(async move {
                let work = move || {
                    let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(at_once, Ordering::SeqCst);
                    let mut open = gate.0.lock();
                    while !*open {
                        gate.1.wait(&mut open);
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                };
                door.in_turn(work).await
            }));
        }
        while door.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.in_turn(|| ()).await, None);
        *gate.0.lock() = true;
        gate.1.notify_all();
        for work in working {
            assert_eq!(work.await.unwrap(), Some(()));
        }
        assert!(most.load(Ordering::SeqCst) <= PASSWORDS_AT_ONCE);
        assert_eq!(door.in_turn(|| 7).await, Some(7));
    }
}
