//! Sessions of Engine.IO and the namespaces in them (service bus, section 2).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use daybook_bus::{ConnId, NAMESPACE, Packet};
use engineioxide::{
    DisconnectReason, ProtocolVersion, Str, TransportType,
    handler::EngineIoHandler,
    socket::{self, Sid},
};
use parking_lot::Mutex;

use crate::{hub::Hub, link::Link};

/// What a client is told when the broker takes it out of the namespace.
pub(crate) const NAMESPACE_LEFT: &str = "1/communication,";
/// How long a session may stay outside the namespace.
const ENTER_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP connections of one session that are remembered: the first, and those of attempts to upgrade.
const LINKS_MAX: usize = 4;

pub(crate) type Socket = socket::Socket<Session>;

/// What belongs to one session.
#[derive(Default)]
pub(crate) struct Session {
    conn: Mutex<Option<ConnId>>,
    links: Mutex<Vec<Arc<Link>>>,
}

impl Session {
    fn add(&self, link: Arc<Link>) {
        let mut links = self.links.lock();
        if links.len() >= LINKS_MAX {
            links.remove(0);
        }
        links.push(link);
    }

    pub(crate) fn pause(&self) {
        self.links.lock().iter().for_each(|link| link.pause());
    }

    pub(crate) fn resume(&self) {
        self.links.lock().iter().for_each(|link| link.resume());
    }

    pub(crate) fn cut(&self) {
        self.links.lock().drain(..).for_each(|link| link.cut());
    }
}

pub(crate) struct Sockets {
    hub: Arc<Hub>,
    sessions: Mutex<HashMap<Sid, Weak<Socket>>>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl Sockets {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Sockets> {
        Arc::new(Sockets {
            hub,
            sessions: Mutex::new(HashMap::new()),
        })
    }

    /// A WebSocket wants to take over a session that began with polling.
    pub(crate) fn upgrading(&self, sid: &str, link: &Arc<Link>) {
        let Ok(sid) = sid.parse::<Sid>() else {
            return;
        };
        let session = self.sessions.lock().get(&sid).and_then(Weak::upgrade);
        if let Some(socket) = session {
            socket.data.add(link.clone());
        }
    }

    /// A WebSocket that wanted to take over a session has ended. If it has not come to that, the session
    /// ends too: its client believes it to be half way, and polls without end.
    pub(crate) fn upgrade_ended(&self, sid: Sid) {
        let session = self.sessions.lock().get(&sid).and_then(Weak::upgrade);
        if let Some(socket) = session
            && socket.transport_type() == TransportType::Polling
        {
            socket.close(DisconnectReason::TransportError);
        }
    }

    fn enter(&self, namespace: &str, socket: &Arc<Socket>) {
        let old = socket.protocol == ProtocolVersion::V3;
        if namespace == "/" {
            // Old clients are in the root unasked.
            if !old {
                let _ = socket.emit(format!("0{{\"sid\":\"{}\"}}", random_sid()));
            }
            return;
        }
        if namespace != NAMESPACE {
            let _ = socket.emit(if old {
                format!("4{namespace},\"Invalid namespace\"")
            } else {
                format!("4{namespace},{{\"message\":\"Invalid namespace\"}}")
            });
            return;
        }
        let mut conn = socket.data.conn.lock();
        if conn.is_some() {
            return;
        }
        // The transport's own id is enough to speak for a polling client, so it is not shown here.
        let _ = socket.emit(if old {
            format!("0{NAMESPACE},")
        } else {
            format!("0{NAMESPACE},{{\"sid\":\"{}\"}}", random_sid())
        });
        *conn = Some(self.hub.connected(socket, if old { 3 } else { 4 }));
    }

    fn leave(&self, socket: &Arc<Socket>) {
        let conn = socket.data.conn.lock().take();
        if let Some(conn) = conn {
            self.hub.disconnected(conn);
        }
    }
}

impl EngineIoHandler for Sockets {
    type Data = Session;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket>) {
        {
            let mut sessions = self.sessions.lock();
            if sessions.len() >= self.hub.settings.sessions_max {
                drop(sessions);
                return socket.close(DisconnectReason::ClosingServer);
            }
            sessions.insert(socket.id, Arc::downgrade(&socket));
        }
        if socket.transport_type() == TransportType::Websocket
            && let Some(link) = socket.req_parts.extensions.get::<Arc<Link>>()
        {
            socket.data.add(link.clone());
        }
        if socket.protocol == ProtocolVersion::V3 {
            // Engine.IO 3: the server puts a client into the root namespace, unasked.
            let _ = socket.emit("0");
        }
        tokio::spawn(async move {
            tokio::time::sleep(ENTER_TIMEOUT).await;
            if socket.data.conn.lock().is_none() && !socket.is_closed() {
                crate::hub::close(&socket);
            }
        });
    }

    fn on_disconnect(&self, socket: Arc<Socket>, reason: DisconnectReason) {
        self.sessions.lock().remove(&socket.id);
        tracing::trace!(?reason, "a session ended");
        self.leave(&socket);
    }

    fn on_message(self: &Arc<Self>, msg: Str, socket: Arc<Socket>) {
        let packet = match Packet::read(&msg) {
            Ok(packet) => packet,
            Err(_) => return socket.close(DisconnectReason::PacketParsingError),
        };
        match packet {
            Packet::Connect { namespace } => self.enter(namespace, &socket),
            Packet::Disconnect { namespace } if namespace == NAMESPACE => self.leave(&socket),
            Packet::Event { namespace, .. } | Packet::Binary { namespace }
                if namespace == NAMESPACE =>
            {
                let conn = *socket.data.conn.lock();
                if let Some(conn) = conn {
                    self.hub.incoming(conn, &msg, &packet);
                }
            }
            _ => {}
        }
    }

    fn on_binary(self: &Arc<Self>, _: Bytes, _: Arc<Socket>) {
        // The attachments of a packet that was refused already.
    }
}

fn random_sid() -> String {
    let mut bytes = [0; 10];
    // Nothing is opened by it.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
