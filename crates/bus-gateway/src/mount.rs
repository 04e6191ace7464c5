//! The bus as a guest of a listener that is somebody else's: the same sessions at one more address.
//!
//! What comes there is served by the thread of the bus, as all that comes to its own listener. The other
//! listener has accepted the connection, and looks after TLS, its idle time and the host's name.

use std::{io, sync::Arc};

use bytes::Bytes;
use engineioxide::socket::Sid;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    service::Service,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle};

use crate::{
    admin,
    link::{Lent, Link},
    server::{self, Body, Front},
    sockets::Sockets,
};

/// The body of an answer.
pub type MountBody = UnsyncBoxBody<Bytes, io::Error>;

/// The bus's answers to requests that come to another listener.
#[derive(Clone)]
pub struct Mount(Arc<Front>);

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mount")
    }
}

impl Mount {
    pub(crate) fn new(front: Arc<Front>) -> Mount {
        Mount(front)
    }

    /// Whether a path is the bus's: Socket.IO, and none of the pages, which are the operator's.
    pub fn takes(path: &str) -> bool {
        server::is_engine(path)
    }

    /// Answers a request to such a path. The connection that it came on must be served with upgrades.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<MountBody> {
        let serving = self.0.runtime.spawn(serve(self.0.clone(), request));
        sent(Serving(serving).answered().await)
    }

    /// The answer of a bus that is not there yet, or not any more.
    pub fn unavailable() -> Response<MountBody> {
        sent(unavailable())
    }
}

fn sent(response: Response<Body>) -> Response<MountBody> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

fn unavailable() -> Response<Body> {
    let mut response = server::whole(admin::error(StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

/// A request that is being served on the bus's thread; given up with its connection.
struct Serving(JoinHandle<Response<Body>>);

impl Serving {
    async fn answered(mut self) -> Response<Body> {
        // It fails when the thread has ended, and all that it was doing.
        (&mut self.0).await.unwrap_or_else(|_| unavailable())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(front: Arc<Front>, mut request: Request<Incoming>) -> Response<Body> {
    // A request takes a place as a connection to the bus's own listener does, a WebSocket for as long as it
    // lives.
    let Some(place) = front.place() else {
        return unavailable();
    };
    let link = Link::of_another();
    let socket = server::wants_websocket(&request).then(|| WebSocket {
        upgrade: upgrade::on(&mut request),
        head: head(&request, &link),
        link: link.clone(),
        session: server::upgraded_session(&request).and_then(|sid| sid.parse().ok()),
    });
    let response = server::respond(&front, &link, request).await;
    if let Some(socket) = socket
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        tokio::spawn(socket.open(front, place));
    }
    response
}

/// A WebSocket that may be agreed on.
///
/// The engine would take the upgrade out of the request, and with it the connection as it is. Without one it
/// only answers, and the connection comes to it behind [`Lent`], which can be held back and cut.
struct WebSocket {
    upgrade: OnUpgrade,
    head: Request<()>,
    link: Arc<Link>,
    /// The session that began with polling.
    session: Option<Sid>,
}

impl WebSocket {
    async fn open(self, front: Arc<Front>, place: OwnedSemaphorePermit) {
        match self.upgrade.await {
            Ok(stream) => {
                let stay = Stay {
                    sockets: front.sockets.clone(),
                    session: self.session,
                    _place: place,
                };
                let stream = Lent::new(TokioIo::new(stream), self.link, stay);
                // What it might complain of was looked at when it answered.
                let _ = front.engine.call((stream, self.head)).await;
            }
            Err(error) => tracing::debug!(%error, "no upgrade"),
        }
    }
}

/// What the engine reads of a request once more, and what it hands on with the session.
fn head(request: &Request<Incoming>, link: &Arc<Link>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    head.extensions_mut().insert(link.clone());
    head
}

/// What ends with a WebSocket.
struct Stay {
    sockets: Arc<Sockets>,
    session: Option<Sid>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(sid) = self.session {
            self.sockets.upgrade_ended(sid);
        }
    }
}
