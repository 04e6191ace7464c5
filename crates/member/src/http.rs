//! The gateway over HTTP (section 1): who asks, what for, and the answer.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daybook_ledger::{
    TransactionId,
    json::{Object, Value},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use tokio::{
    sync::{Semaphore, mpsc},
    time,
};

use crate::{
    disk::{DiskError, PlanKind},
    documents::{Document, DocumentError},
    endorser::{self, Choice, NotAsked},
    fetch, health,
    json::{object, own, text, write},
    member::{Member, Shared, blocking},
    message,
    multipart::{Multipart, Piece, percent_decoded},
    network::NoticeCursor,
    notice::NOTICE_BYTES_MAX,
    operation,
    page::parameters,
    relay::Relay,
    socket,
    users::{Caller, Denied, UsersError},
    view::{self, NotShown},
};

/// A body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Reply = Response<Body>;

/// Bytes of a small request's body: a log-in, a reason.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// How long the next piece of a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Passwords that are compared at once: each takes a core and megabytes for some hundredths of a second.
const PASSWORDS_AT_ONCE: usize = 4;
/// Documents that are fetched from other members at once.
const FETCHES_AT_ONCE: usize = 8;
/// Sockets at once.
const SOCKETS_MAX: usize = 1_024;
/// Pieces of an answer that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 4;
/// Where the relay is.
const RELAY: &str = "/api/v1/consortium/notices";

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// The members that one process serves, and the relay, where there is one.
#[derive(Debug)]
pub struct Hosted {
    members: Vec<Member>,
    relay: Option<Arc<Relay>>,
    passwords: Semaphore,
    fetches: Semaphore,
    sockets: Arc<Semaphore>,
}

/// Who asks.
#[derive(Clone, Debug)]
struct Known {
    shared: Arc<Shared>,
    caller: Caller,
    /// The CSRF token of the session, if the caller came by one.
    csrf: Option<String>,
    /// Whether a token is all that it showed.
    by_token: bool,
}

/// An answer that refuses.
type Refused = Box<Reply>;

impl Hosted {
    /// Serves these members; a user belongs to the first that knows its name.
    pub fn new(members: Vec<Member>, relay: Option<Arc<Relay>>) -> Hosted {
        Hosted {
            members,
            relay,
            passwords: Semaphore::new(PASSWORDS_AT_ONCE),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
        }
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Stops all members.
    pub async fn stop(&self) {
        for member in &self.members {
            member.stop().await;
        }
    }

    /// Whether a path is one of this gateway's.
    pub fn takes(&self, path: &str) -> bool {
        if path == RELAY || path.strip_suffix('/') == Some(RELAY) {
            return self.relay.is_some();
        }
        let first = path.trim_start_matches('/').split('/').next();
        !self.members.is_empty()
            && matches!(
                first,
                Some(
                    "ledgers"
                        | "ledgers.json"
                        | "gu-11"
                        | "gu-12"
                        | "upload"
                        | "content"
                        | "maintenance"
                        | "auth"
                        | "operations"
                        | "proposals"
                        | "members"
                        | "transactions"
                        | "create-gu11"
                        | "create-gu12"
                        | "user-create"
                )
            )
    }

    /// Answers one request.
    pub async fn answer(self: &Arc<Hosted>, request: Request<Incoming>, peer: Peer) -> Reply {
        let path = request.uri().path().to_owned();
        if path == "/transactions" && request.method() == Method::GET {
            return socket::open(self, request, peer).await;
        }
        let (parts, body) = request.into_parts();
        let bare = path.strip_suffix('/').unwrap_or(&path);
        let segments: Vec<&str> = bare.split('/').skip(1).collect();
        let asks = Asks {
            hosted: self,
            parts: &parts,
            peer,
            head: parts.method == Method::HEAD,
        };
        let mut reply = match asks.serve(&segments, body).await {
            Ok(reply) => reply,
            Err(refused) => *refused,
        };
        let headers = reply.headers_mut();
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if asks.head {
            *reply.body_mut() = empty();
        }
        reply
    }

    /// Whose token it is.
    pub(crate) async fn token(
        &self,
        token: &str,
    ) -> Result<Option<(Arc<Shared>, Caller)>, DiskError> {
        for member in &self.members {
            let shared = member.shared().clone();
            let token = token.to_owned();
            let found = blocking(move || {
                let caller = shared.users.token(&token, shared.now_ms())?;
                Ok::<_, DiskError>(caller.map(|caller| (shared, caller)))
            });
            if let Some(found) = found.await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A place for one more socket.
    pub(crate) fn socket_place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.sockets.clone().try_acquire_owned().ok()
    }

    async fn check(&self, name: String, password: String) -> Result<(Arc<Shared>, Caller), Denied> {
        // Whoever knows the name, or else the first: a name that nobody knows takes as long.
        let known = self
            .members
            .iter()
            .find(|member| member.shared().users.knows(&name));
        let Some(member) = known.or(self.members.first()) else {
            return Err(Denied::Wrong);
        };
        let shared = member.shared().clone();
        // Those who guess passwords keep nobody waiting whose password is known to be right.
        if let Some(caller) = shared.users.remembered(&name, &password) {
            return Ok((shared, caller));
        }
        let Ok(_turn) = self.passwords.acquire().await else {
            return Err(Denied::Wrong);
        };
        blocking(move || {
            let caller = shared.users.check(&name, &password)?;
            Ok((shared, caller))
        })
        .await
    }
}

/// One request on its way to an answer.
struct Asks<'a> {
    hosted: &'a Arc<Hosted>,
    parts: &'a Parts,
    peer: Peer,
    head: bool,
}

impl Asks<'_> {
    async fn serve(&self, segments: &[&str], body: Incoming) -> Result<Reply, Refused> {
        let (reads, writes): (&[Method], &[Method]) =
            (&[Method::GET, Method::HEAD], &[Method::POST]);
        let both: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
        let methods = match segments {
            ["ledgers" | "ledgers.json" | "gu-11" | "gu-12" | "members" | "proposals"] => reads,
            ["ledgers" | "gu-11" | "gu-12", _] => reads,
            ["ledgers", _, "transactions"] => reads,
            ["ledgers", _, "transactions", "list_with_meta"] => both,
            ["ledgers", _, "transactions", _] => reads,
            ["upload" | "create-gu11" | "create-gu12" | "user-create"] => writes,
            ["content", _] | ["operations", _] => reads,
            ["maintenance", "allocate_token" | "check_health"] => both,
            ["proposals", _, "endorse" | "refuse"] => writes,
            ["auth"] | ["auth", "logout"] => writes,
            ["api", "v1", "consortium", "notices"] => both,
            _ => return Err(not_found()),
        };
        if self.parts.method == Method::OPTIONS {
            return Ok(self.description(segments, methods));
        }
        if !methods.contains(&self.parts.method) {
            let mut reply = detail(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("Method \"{}\" not allowed.", self.parts.method),
            );
            reply.headers_mut().insert(header::ALLOW, allow(methods));
            return Err(Box::new(reply));
        }
        match segments {
            ["maintenance", "check_health"] => return self.health().await,
            ["auth"] => return self.log_in(body).await,
            ["api", ..] => return self.relay(body).await,
            _ => {}
        }
        if let ["content", uid] = segments
            && let Some(shown) = self.shown_by_member()
        {
            return self.content_for_member(uid, shown).await;
        }
        let uploads = segments == ["upload"];
        let known = match self.known().await {
            Ok(known) => known,
            // The session is the first scheme there (section 1.1).
            Err(mut refused) if uploads && refused.status() == StatusCode::UNAUTHORIZED => {
                *refused.status_mut() = StatusCode::FORBIDDEN;
                refused.headers_mut().remove(header::WWW_AUTHENTICATE);
                return Err(refused);
            }
            Err(refused) => return Err(refused),
        };
        self.guard(&known)?;
        // A token travels in addresses and is for the socket: it neither makes another, which would
        // outlive it, nor lets anybody in, nor speaks for the member.
        if known.by_token
            && let ["maintenance" | "user-create", ..] | ["proposals", _, _] = segments
        {
            return Err(Box::new(detail(
                StatusCode::FORBIDDEN,
                "A token is not enough for this: log in with name and password.",
            )));
        }
        match segments {
            ["upload"] => self.upload(known, body).await,
            ["create-gu11"] => self.create_plan(known, PlanKind::Gu11, body).await,
            ["create-gu12"] => self.create_plan(known, PlanKind::Gu12, body).await,
            ["user-create"] => self.create_user(known, body).await,
            ["content", uid] => self.content(known, uid).await,
            ["maintenance", _] => self.new_token(known).await,
            ["auth", _] => Ok(self.log_out(&known)),
            ["proposals", id, what] => self.decide(known, id, what, body).await,
            ["ledgers", id, "transactions", "list_with_meta"] => self.whole(known, id).await,
            _ => self.show(known, segments).await,
        }
    }

    /// Who asks: by name and password, by token, or by session.
    async fn known(&self) -> Result<Known, Refused> {
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
                let checked = self.hosted.check(name.to_owned(), password.to_owned());
                let (shared, caller) = checked.await.map_err(denied)?;
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
            for member in self.hosted.members() {
                let shared = member.shared();
                if let Some((caller, csrf)) = shared.users.session(&session, shared.now_ms()) {
                    return Ok(Known {
                        shared: shared.clone(),
                        caller,
                        csrf: Some(csrf),
                        by_token: false,
                    });
                }
            }
        }
        Err(unknown("Authentication credentials were not provided."))
    }

    /// A session's unsafe methods need its token, which no other page knows.
    fn guard(&self, known: &Known) -> Result<(), Refused> {
        let safe = matches!(self.parts.method, Method::GET | Method::HEAD);
        let Some(csrf) = known.csrf.as_ref().filter(|_| !safe) else {
            return Ok(());
        };
        let shown = self.parts.headers.get("x-csrftoken");
        if shown.is_some_and(|shown| shown.as_bytes() == csrf.as_bytes()) {
            return Ok(());
        }
        let words = match shown {
            None => "CSRF Failed: CSRF token missing or incorrect.",
            Some(_) => "CSRF Failed: CSRF token incorrect.",
        };
        Err(Box::new(detail(StatusCode::FORBIDDEN, words)))
    }

    fn description(&self, segments: &[&str], methods: &[Method]) -> Reply {
        let name = segments.first().copied().unwrap_or("").replace('-', " ");
        let parses = match segments {
            ["upload"] => vec!["multipart/form-data".into()],
            _ => vec!["application/json".into()],
        };
        let mut reply = json(
            StatusCode::OK,
            &object([
                ("name", name.into()),
                ("description", "".into()),
                ("renders", Value::Array(vec!["application/json".into()])),
                ("parses", Value::Array(parses)),
            ]),
        );
        reply.headers_mut().insert(header::ALLOW, allow(methods));
        reply
    }

    /// The address of a list, as its pages link to it.
    fn base(&self, shared: &Shared, segments: &[&str]) -> String {
        let origin = shared.settings.origin.as_str();
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let forwarded = self
            .parts
            .headers
            .get("x-forwarded-proto")
            .filter(|_| shared.settings.trust_forwarded)
            .and_then(|proto| proto.to_str().ok());
        let secure =
            self.peer.secure || forwarded == Some("https") || origin.starts_with("https://");
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{host}/{}/", segments.join("/"))
    }

    async fn show(&self, known: Known, segments: &[&str]) -> Result<Reply, Refused> {
        let query = self.parts.uri.query().unwrap_or("").to_owned();
        let segments: Vec<String> = segments
            .iter()
            .map(|segment| segment.strip_suffix(".json").unwrap_or(segment).to_owned())
            .collect();
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let base = self.base(&known.shared, &names);
        let shown = blocking(move || {
            let names: Vec<&str> = segments.iter().map(String::as_str).collect();
            let shared = &known.shared;
            match names[..] {
                ["ledgers"] => view::ledgers(shared, &base, &query),
                ["ledgers", "list_with_meta"] => view::ledgers_with_meta(shared, &base, &query),
                ["ledgers", id] => view::ledger(shared, id),
                ["ledgers", id, _] => view::transactions(shared, id, &base, &query),
                ["ledgers", id, _, number] => view::transaction(shared, id, number),
                ["gu-11"] => view::plans(shared, PlanKind::Gu11, &base, &query),
                ["gu-12"] => view::plans(shared, PlanKind::Gu12, &base, &query),
                ["gu-11", id] => view::plan(shared, PlanKind::Gu11, id),
                ["gu-12", id] => view::plan(shared, PlanKind::Gu12, id),
                ["operations", id] => {
                    let id = percent_decoded(id).ok_or(NotShown::NotFound)?;
                    operation::describe(shared, &id)?.ok_or(NotShown::NotFound)
                }
                ["proposals"] => Ok(object([("results", endorser::waiting(shared))])),
                ["members"] => Ok(object([("results", health::members(shared))])),
                _ => Err(NotShown::NotFound),
            }
        });
        match shown.await {
            Ok(value) => Ok(json(StatusCode::OK, &value)),
            Err(error) => Err(not_shown(error)),
        }
    }

    /// All entries of a ledger in one answer, made while it is sent.
    async fn whole(&self, known: Known, id: &str) -> Result<Reply, Refused> {
        let (shared, id) = (known.shared, id.to_owned());
        let head = {
            let shared = shared.clone();
            blocking(move || view::meta(&shared, &id)).await
        };
        let (id, size, days, approaching) = head.map_err(not_shown)?;
        let (pieces, body) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            let head = format!(
                "{{\"approaching_days\":{},\"days_in_way\":{},\"results\":[",
                write(&approaching),
                write(&days)
            );
            let mut piece = head;
            let mut newest = size;
            while newest > 0 {
                let oldest = newest.saturating_sub(view::PIECE - 1).max(1);
                let rows = match shared.mirror.transactions(id, oldest..=newest) {
                    Ok(rows) => rows,
                    Err(error) => {
                        tracing::error!(%error, "a list could not be finished");
                        let _ = pieces.blocking_send(Err(io::ErrorKind::Other.into()));
                        return;
                    }
                };
                for (number, text) in rows {
                    if number != size {
                        piece.push(',');
                    }
                    piece.push_str(&write(&view::transaction_object(&shared, &text)));
                }
                if pieces.blocking_send(Ok(piece.into())).is_err() {
                    return;
                }
                piece = String::new();
                newest = oldest - 1;
            }
            piece.push_str("]}");
            // A reader who has gone needs no end.
            let _ = pieces.blocking_send(Ok(piece.into()));
        });
        let mut reply = Response::new(streamed(body));
        reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(reply)
    }

    async fn new_token(&self, known: Known) -> Result<Reply, Refused> {
        let made = blocking(move || {
            let shared = &known.shared;
            shared.users.new_token(&known.caller.name, shared.now_ms())
        });
        match made.await.map_err(broken)? {
            Some(token) => Ok(json(StatusCode::OK, &object([("token", token.into())]))),
            None => Err(denied(Denied::Inactive)),
        }
    }

    async fn health(&self) -> Result<Reply, Refused> {
        // Users may know who is missing; a probe learns only that somebody is.
        let known = match self.parts.headers.contains_key(header::AUTHORIZATION)
            || cookie(&self.parts.headers, "sessionid").is_some()
        {
            true => Some(self.known().await?),
            false => None,
        };
        let shared = match &known {
            Some(known) => known.shared.clone(),
            None => match self.hosted.members().first() {
                Some(member) => member.shared().clone(),
                None => return Err(not_found()),
            },
        };
        if let Some(why) = shared.broken() {
            let answer = object([
                ("success", false.into()),
                ("ping_id", "".into()),
                (
                    "message",
                    format!("this member no longer follows the log: {why}").into(),
                ),
            ]);
            return Ok(json(StatusCode::SERVICE_UNAVAILABLE, &answer));
        }
        let outcome = health::check(&shared).await;
        let status = match outcome.is_success() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        Ok(json(status, &outcome.to_value(&shared, known.is_some())))
    }

    /// The fields of a form, and what is wrong with those that have to be filled in.
    async fn fields(&self, body: Incoming, required: &[&str]) -> Result<(Value, Object), Refused> {
        let body = small(body).await?;
        let fields = Value::Object(form(&self.parts.headers, &body));
        let missing = required
            .iter()
            .filter(|name| text(&fields, name).is_empty());
        let errors = missing.map(|name| (*name, Value::from("This field is required.")));
        let errors = Object::from_iter(errors);
        Ok((fields, errors))
    }

    async fn log_in(&self, body: Incoming) -> Result<Reply, Refused> {
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
        let checked = self.hosted.check(field("login"), field("password")).await;
        let (shared, caller) = checked.map_err(|denied| {
            let words = match denied {
                Denied::Wrong => "Invalid username/password.",
                Denied::Inactive => "User inactive or deleted.",
            };
            errors.insert("password", words.into());
            Box::new(failed(errors.clone()))
        })?;
        let cookies = shared
            .users
            .begin_session(&caller.name, shared.now_ms())
            .ok_or_else(|| denied(Denied::Inactive))?;
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

    fn log_out(&self, known: &Known) -> Reply {
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

    /// A person's word about a proposal.
    async fn decide(
        &self,
        known: Known,
        id: &str,
        what: &str,
        body: Incoming,
    ) -> Result<Reply, Refused> {
        if !known.caller.admin {
            return Err(Box::new(detail(
                StatusCode::FORBIDDEN,
                "Only a user who may decide for the member can do this.",
            )));
        }
        let id: TransactionId = id.parse().map_err(|_| not_found())?;
        let body = small(body).await?;
        let choice = match what {
            "endorse" => Choice::Endorse,
            _ => {
                let fields = form(&self.parts.headers, &body);
                let reason = fields.get("reason").and_then(Value::as_str).unwrap_or("");
                if reason.trim().is_empty() {
                    return Err(Box::new(detail(
                        StatusCode::BAD_REQUEST,
                        "\"reason\" is missing: the proposer's user reads it.",
                    )));
                }
                Choice::Refuse(reason.trim().to_owned())
            }
        };
        tracing::info!(proposal = %id, user = known.caller.name, what, "a person decides");
        match endorser::decide_by_hand(&known.shared, id, choice.clone()).await {
            Ok(stands) => {
                let (word, reason) = match &stands {
                    Choice::Endorse => ("endorsed", Value::Null),
                    Choice::Refuse(reason) => ("refused", reason.as_str().into()),
                };
                let status = match stands == choice {
                    true => StatusCode::OK,
                    // It was decided before, or is not sound.
                    false => StatusCode::CONFLICT,
                };
                let answer = object([("decision", word.into()), ("reason", reason)]);
                Ok(json(status, &answer))
            }
            Err(NotAsked::Unknown) => Err(not_found()),
            Err(NotAsked::Disk(error)) => Err(broken(error)),
        }
    }

    /// Sends a plan document out of a form (section 1.7).
    async fn create_plan(
        &self,
        known: Known,
        kind: PlanKind,
        body: Incoming,
    ) -> Result<Reply, Refused> {
        let body = small(body).await?;
        let fields = form(&self.parts.headers, &body);
        let said = |errors: Option<Object>| {
            let success = errors.is_none();
            let errors = errors.map_or(Value::Null, Value::Object);
            let answer = object([("success", success.into()), ("errors", errors)]);
            Ok(json(StatusCode::OK, &answer))
        };
        let message = match message::plan_of_form(&fields) {
            Ok(message) => message,
            Err(errors) => return said(Some(errors)),
        };
        let began = operation::begin(&known.shared, message.asking(kind), &known.caller.name);
        let operation = match began.await {
            Ok(operation) => operation,
            Err(fault) => {
                return said(Some(Object::from_iter([("form", fault.explain)])));
            }
        };
        let mut at = 0;
        loop {
            let (happened, next) = operation.event(at).await;
            at = next;
            if happened.last && operation::is_success(&happened.event) {
                return said(None);
            }
            if happened.last {
                let explain = text(&happened.event, "explain");
                return said(Some(Object::from_iter([("form", explain)])));
            }
        }
    }

    /// Makes a user (section 1.7).
    async fn create_user(&self, known: Known, body: Incoming) -> Result<Reply, Refused> {
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
        let members = self.hosted.members();
        if members
            .iter()
            .any(|member| member.shared().users.knows(&name))
        {
            errors.insert("username", "a user has this name already".into());
        }
        if errors.is_empty() {
            let (shared, name, password) = (known.shared, name.clone(), field("password"));
            let made = blocking(move || shared.users.add(&name, &password, shared.now_ms())).await;
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

    async fn upload(&self, known: Known, body: Incoming) -> Result<Reply, Refused> {
        let wrong = |words: &str| {
            let mut reply = json(StatusCode::BAD_REQUEST, &words.into());
            open_to_all(&mut reply);
            Box::new(reply)
        };
        let content_type = self.parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|text| text.to_str().ok())
            .unwrap_or("");
        let Ok(mut multipart) = Multipart::new(content_type) else {
            return Err(wrong("Expected file value"));
        };
        let mut body = body;
        let mut receiving = None;
        let mut is_file = false;
        let mut complete = false;
        'parts: loop {
            loop {
                match multipart
                    .next()
                    .map_err(|error| wrong(&error.to_string()))?
                {
                    None => break,
                    Some(Piece::End) => break 'parts,
                    Some(Piece::Part(head)) => {
                        is_file = head.name == "file" && receiving.is_none();
                        if is_file {
                            let (shared, name) =
                                (known.shared.clone(), head.filename.unwrap_or_default());
                            let begun = blocking(move || shared.documents.receive(&name)).await;
                            receiving = Some(begun.map_err(not_taken)?);
                        }
                    }
                    Some(Piece::Data(data)) if is_file => {
                        if let Some(mut document) = receiving.take() {
                            let written = blocking(move || {
                                document.write(&data)?;
                                Ok(document)
                            });
                            receiving = Some(written.await.map_err(not_taken)?);
                        }
                    }
                    Some(Piece::Data(_)) => {}
                    Some(Piece::PartEnd) => complete |= std::mem::take(&mut is_file),
                }
            }
            let frame = time::timeout(BODY_TIMEOUT, body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        multipart.feed(&data);
                    }
                }
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => {
                    return Err(Box::new(detail(
                        StatusCode::REQUEST_TIMEOUT,
                        "The document did not arrive whole.",
                    )));
                }
            }
        }
        let Some(document) = receiving.filter(|_| complete) else {
            return Err(wrong("Expected file value"));
        };
        let origin = known.shared.settings.origin.clone();
        let kept = blocking(move || {
            let shared = &known.shared;
            shared
                .documents
                .keep(document, &known.caller.name, shared.now_ms())
        });
        let kept = kept.await.map_err(not_taken)?;
        let mut reply = json(
            StatusCode::OK,
            &object([
                ("url", format!("{origin}/content/{}", kept.uid).into()),
                ("md5", kept.md5.into()),
                ("filename", kept.filename.into()),
                ("sha256", kept.sha256.into()),
                ("bytes", kept.bytes.into()),
            ]),
        );
        open_to_all(&mut reply);
        Ok(reply)
    }

    /// The signed request of another member's gateway.
    fn shown_by_member(&self) -> Option<String> {
        let shown = self.parts.headers.get(header::AUTHORIZATION)?;
        let (scheme, rest) = shown.to_str().ok()?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case(fetch::SCHEME)
            .then(|| rest.to_owned())
    }

    async fn content_for_member(&self, uid: &str, shown: String) -> Result<Reply, Refused> {
        for member in self.hosted.members() {
            let (shared, uid, shown) = (member.shared().clone(), uid.to_owned(), shown.clone());
            let found = blocking(move || {
                let document = shared.documents.find(&uid)?;
                let document = document.filter(|_| fetch::may_read(&shared, &shown, &uid));
                Ok::<_, DiskError>(document.map(|document| (shared, document)))
            });
            if let Some((shared, document)) = found.await.map_err(broken)? {
                return self.give(shared, document);
            }
        }
        // Who may not read it learns nothing of it.
        Err(unknown("Invalid username/password."))
    }

    async fn content(&self, known: Known, uid: &str) -> Result<Reply, Refused> {
        let shared = known.shared;
        let found = {
            let (shared, uid) = (shared.clone(), uid.to_owned());
            blocking(move || shared.documents.find(&uid)).await
        };
        let document = match found.map_err(broken)? {
            Some(document) => Some(document),
            None => {
                if let Some((owner, document)) = self.beside(&shared, uid).await? {
                    return self.give(owner, document);
                }
                let Ok(_turn) = self.hosted.fetches.acquire().await else {
                    return Err(not_found());
                };
                fetch::bring(&shared, uid).await.map_err(|why| {
                    tracing::warn!(why, "a document of another member is not here");
                    let words = format!("The document is not here: {why}");
                    Box::new(detail(StatusCode::BAD_GATEWAY, &words))
                })?
            }
        };
        match document {
            Some(document) => self.give(shared, document),
            None => Err(Box::new(json(StatusCode::NOT_FOUND, &"Not Found".into()))),
        }
    }

    /// A document of another member in this process, who shares a ledger that it is attached to.
    async fn beside(
        &self,
        shared: &Arc<Shared>,
        uid: &str,
    ) -> Result<Option<(Arc<Shared>, Document)>, Refused> {
        let reader = shared.me();
        for member in self.hosted.members() {
            let (owner, uid) = (member.shared().clone(), uid.to_owned());
            let found = blocking(move || {
                let document = owner.documents.find(&uid)?;
                let shared = owner.mirror.shares_attachment(&uid, reader)?;
                Ok::<_, DiskError>(
                    document
                        .filter(|_| shared)
                        .map(|document| (owner, document)),
                )
            });
            if let Some(found) = found.await.map_err(broken)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn give(&self, shared: Arc<Shared>, document: Document) -> Result<Reply, Refused> {
        let tag = format!("\"{}\"", document.sha256);
        let headers = &self.parts.headers;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(header::IF_NONE_MATCH).is_some_and(|tags| {
            tags.split(',')
                .any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
        }) {
            let mut reply = Response::new(empty());
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            inert(&mut reply, &document, &tag);
            return Ok(reply);
        }
        let wanted = text(header::RANGE)
            .filter(|_| text(header::IF_RANGE).is_none_or(|known| known == tag))
            .and_then(|range| range_of(range, document.bytes));
        let (first, last, status) = match wanted {
            Some(Ok((first, last))) => (first, last, StatusCode::PARTIAL_CONTENT),
            Some(Err(())) => {
                let mut reply =
                    detail(StatusCode::RANGE_NOT_SATISFIABLE, "There is no such range.");
                let range = format!("bytes */{}", document.bytes);
                set(&mut reply, header::CONTENT_RANGE, &range);
                return Err(Box::new(reply));
            }
            None => (0, document.bytes.saturating_sub(1), StatusCode::OK),
        };
        let length = match document.bytes {
            0 => 0,
            _ => last - first + 1,
        };
        let body = match self.head || length == 0 {
            true => empty(),
            false => {
                let (pieces, body) = mpsc::channel(PIECES_WAITING_MAX);
                let document = document.clone();
                tokio::task::spawn_blocking(move || {
                    let mut give = |piece: Bytes| pieces.blocking_send(Ok(piece)).is_ok();
                    if let Err(error) = shared.documents.read(&document, first, last, &mut give) {
                        tracing::error!(%error, uid = document.uid, "a document broke off");
                        let _ = pieces.blocking_send(Err(error));
                    }
                });
                streamed(body)
            }
        };
        let mut reply = Response::new(body);
        *reply.status_mut() = status;
        inert(&mut reply, &document, &tag);
        set(&mut reply, header::CONTENT_LENGTH, &length.to_string());
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {first}-{last}/{}", document.bytes);
            set(&mut reply, header::CONTENT_RANGE, &range);
        }
        Ok(reply)
    }

    /// The node's side of notices.
    async fn relay(&self, body: Incoming) -> Result<Reply, Refused> {
        let Some(relay) = self.hosted.relay.clone() else {
            return Err(not_found());
        };
        if self.parts.method == Method::POST {
            let limited = Limited::new(body, NOTICE_BYTES_MAX);
            let collected = time::timeout(BODY_TIMEOUT, limited.collect()).await;
            let Ok(Ok(bytes)) = collected else {
                return Err(coded(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "the notice is too long, or did not arrive",
                ));
            };
            let bytes = bytes.to_bytes();
            let now = crate::member::system_clock();
            let posted = blocking(move || relay.post(&bytes, now)).await;
            return match posted {
                Ok(()) => Ok(json(StatusCode::OK, &object([("taken", true.into())]))),
                Err(refused) => Err(coded(
                    match refused.code {
                        "too_many" => StatusCode::TOO_MANY_REQUESTS,
                        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
                        _ => StatusCode::BAD_REQUEST,
                    },
                    refused.code,
                    &refused.detail,
                )),
            };
        }
        let query = self.parts.uri.query().unwrap_or("");
        let parameter = |wanted: &str| {
            let mut found = parameters(query).filter(|(name, _)| *name == wanted);
            found.next().map_or("", |(_, value)| value)
        };
        let after = NoticeCursor {
            kept: parameter("kept").parse().unwrap_or(0),
            passing: parameter("passing").parse().unwrap_or(0),
            relay: parameter("relay").to_owned(),
        };
        relay.wait(&after).await;
        let fetched = blocking(move || relay.fetch(&after))
            .await
            .map_err(broken)?;
        let notices = fetched
            .notices
            .iter()
            .map(|notice| own(&String::from_utf8_lossy(notice)));
        Ok(json(
            StatusCode::OK,
            &object([
                ("kept", fetched.next.kept.into()),
                ("passing", fetched.next.passing.into()),
                ("relay", fetched.next.relay.as_str().into()),
                ("notices", Value::Array(notices.collect())),
            ]),
        ))
    }
}

/// Reads what a relay answered.
pub fn read_notices(body: &[u8]) -> Option<crate::Notices> {
    let value = own(std::str::from_utf8(body).ok()?);
    let notices = crate::json::member(&value, "notices")?.as_array()?.iter();
    Some(crate::Notices {
        next: NoticeCursor {
            kept: crate::json::count(&value, "kept"),
            passing: crate::json::count(&value, "passing"),
            relay: text(&value, "relay").to_owned(),
        },
        notices: notices.map(|notice| write(notice).into()).collect(),
    })
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    let body = Full::new(Bytes::from(write(value))).map_err(|never| match never {});
    let mut reply = Response::new(UnsyncBoxBody::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// `{"detail": …}` (section 1.1).
pub(crate) fn detail(status: StatusCode, words: &str) -> Reply {
    json(status, &object([("detail", words.into())]))
}

fn coded(status: StatusCode, code: &str, words: &str) -> Refused {
    let answer = object([
        ("code", code.into()),
        ("message", words.into()),
        ("status", u64::from(status.as_u16()).into()),
    ]);
    Box::new(json(status, &answer))
}

pub(crate) fn empty() -> Body {
    UnsyncBoxBody::new(Empty::new().map_err(|never| match never {}))
}

fn streamed(mut pieces: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    let stream = Pieces(std::future::poll_fn(move |context| {
        pieces
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }));
    UnsyncBoxBody::new(StreamBody::new(stream))
}

/// A stream of what a function gives.
struct Pieces<F>(F);

impl<F> futures_util::Stream for Pieces<F>
where
    F: Future<Output = Option<io::Result<Frame<Bytes>>>> + Unpin,
{
    type Item = io::Result<Frame<Bytes>>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

fn not_found() -> Refused {
    Box::new(detail(StatusCode::NOT_FOUND, "Not found."))
}

fn unknown(words: &str) -> Refused {
    let mut reply = detail(StatusCode::UNAUTHORIZED, words);
    reply.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"api\""),
    );
    Box::new(reply)
}

fn denied(denied: Denied) -> Refused {
    unknown(match denied {
        Denied::Wrong => "Invalid username/password.",
        Denied::Inactive => "User inactive or deleted.",
    })
}

fn broken(error: DiskError) -> Refused {
    tracing::error!(%error, "a request could not be answered");
    Box::new(detail(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The member's store cannot be used.",
    ))
}

fn not_shown(error: NotShown) -> Refused {
    match error {
        NotShown::NotFound => not_found(),
        NotShown::NoSuchPage => Box::new(detail(StatusCode::NOT_FOUND, "Invalid page.")),
        NotShown::Disk(error) => broken(error),
    }
}

fn not_taken(error: DocumentError) -> Refused {
    let status = match &error {
        DocumentError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        DocumentError::Type(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        DocumentError::File(_) | DocumentError::Disk(_) => {
            tracing::error!(%error, "a document could not be kept");
            return Box::new(detail(
                StatusCode::INSUFFICIENT_STORAGE,
                "The document could not be kept.",
            ));
        }
    };
    Box::new(detail(status, &error.to_string()))
}

fn allow(methods: &[Method]) -> HeaderValue {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    names.push("OPTIONS");
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

fn set(reply: &mut Reply, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// What the original answers to every page (section 1.5). No credentials of a browser come with it.
fn open_to_all(reply: &mut Reply) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_MAX_AGE, "1000"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
    ] {
        reply
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

/// What keeps a document from doing anything in a browser.
fn inert(reply: &mut Reply, document: &Document, tag: &str) {
    set(reply, header::CONTENT_TYPE, &document.content_type);
    set(reply, header::ETAG, tag);
    set(reply, header::ACCEPT_RANGES, "bytes");
    set(
        reply,
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'",
    );
    set(
        reply,
        header::CACHE_CONTROL,
        "private, max-age=0, must-revalidate",
    );
    let plain: String = document
        .filename
        .chars()
        .map(|c| match c {
            ' '..='~' if !matches!(c, '"' | '\\') => c,
            _ => '_',
        })
        .collect();
    let mut encoded = String::new();
    for byte in document.filename.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    set(
        reply,
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"),
    );
}

/// The one range that `Range` asks for; `None` for anything that may be answered whole (RFC 9110,
/// section 14.2), an error for one that is not there.
fn range_of(text: &str, bytes: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = match (first.trim(), last.trim()) {
        ("", "") => return None,
        ("", count) => (
            bytes.checked_sub(number(count)?.min(bytes))?,
            bytes.checked_sub(1),
        ),
        (first, "") => (number(first)?, bytes.checked_sub(1)),
        (first, last) => (
            number(first)?,
            bytes
                .checked_sub(1)
                .map(|end| number(last).map_or(end, |last| last.min(end))),
        ),
    };
    match last {
        Some(last) if first <= last => Some(Ok((first, last))),
        _ => Some(Err(())),
    }
}

fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

async fn small(body: Incoming) -> Result<Bytes, Refused> {
    let limited = Limited::new(body, SMALL_BODY_BYTES_MAX);
    match time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        _ => Err(Box::new(detail(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is too long, or did not arrive.",
        ))),
    }
}

/// The fields of a small body: JSON, or a form.
fn form(headers: &HeaderMap, body: &[u8]) -> Object {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let Ok(body) = std::str::from_utf8(body) else {
        return Object::new();
    };
    if kind.starts_with("application/x-www-form-urlencoded") {
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        let fields = parameters(body);
        return fields
            .filter_map(|(name, value)| Some((decoded(name)?, decoded(value)?)))
            .collect();
    }
    crate::json::own_object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_as_it_is_meant() {
        for (text, expected) in [
            ("bytes=0-4", Some(Ok((0, 4)))),
            ("bytes=5-", Some(Ok((5, 9)))),
            ("bytes=-3", Some(Ok((7, 9)))),
            ("bytes=-30", Some(Ok((0, 9)))),
            ("bytes=8-100", Some(Ok((8, 9)))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-4", Some(Err(()))),
            ("bytes=x-4", None),
            ("bytes=-", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range_of(text, 10), expected, "{text}");
        }
        assert_eq!(range_of("bytes=0-", 0), Some(Err(())));
    }
}
