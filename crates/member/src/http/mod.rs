//! The gateway over HTTP (section 1): who asks and what for. The answers stand in the modules below,
//! one for each thing that is asked about.

mod accounts;
mod answers;
mod attempts;
mod documents;
mod downloads;
mod forms;
mod health;
mod ledgers;
mod plans;
mod proposals;
mod relay;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use daybook_ledger::json::Value;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::{
    disk::{DiskError, PlanKind},
    json::object,
    member::{Member, Shared, blocking},
    relay::Relay,
    socket,
    users::Caller,
};

pub use relay::read_notices;

pub(crate) use answers::{detail, empty, json};

use accounts::Doorkeeper;
use answers::{allow, not_found};
use downloads::Downloads;

/// A body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Reply = Response<Body>;

/// An answer that refuses.
type Refused = Box<Reply>;

/// How long the next piece of a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Documents that are fetched from other members at once.
const FETCHES_AT_ONCE: usize = 8;
/// Documents that are received at once: each is a file that grows.
const UPLOADS_AT_ONCE: usize = 64;
/// Sockets at once.
const SOCKETS_MAX: usize = 1_024;
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
    door: Doorkeeper,
    downloads: Downloads,
    uploads: Semaphore,
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

impl Hosted {
    /// Serves these members; a user belongs to the first that knows its name.
    pub fn new(members: Vec<Member>, relay: Option<Arc<Relay>>) -> Hosted {
        Hosted {
            members,
            relay,
            door: Doorkeeper::default(),
            downloads: Downloads::default(),
            uploads: Semaphore::new(UPLOADS_AT_ONCE),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
        }
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// What the members' tasks share, for work away from the sockets.
    fn all_shared(&self) -> Vec<Arc<Shared>> {
        let members = self.members.iter();
        members.map(|member| member.shared().clone()).collect()
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
        let (members, token) = (self.all_shared(), token.to_owned());
        let found = blocking(move || {
            for shared in members {
                if let Some(caller) = shared.users.token(&token, shared.now_ms())? {
                    return Ok(Some((shared, caller)));
                }
            }
            Ok(None)
        });
        found.await
    }

    /// A place for one more socket.
    pub(crate) fn socket_place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.sockets.clone().try_acquire_owned().ok()
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
}
