//! The realtime side (machines, sections 2 and 3): Socket.IO on three paths, for old clients and new.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    future::{Ready, ready},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, SocketRef, TryData},
    service::SocketIoService,
};
use tokio::sync::mpsc;

use crate::{
    agent::{Answer, Door},
    request::{Code, ORDER_BYTES_MAX, OrderError, OrderRequest},
};

/// The paths that clients of the field use (section 1, rule 1).
pub(crate) const PATHS: [&str; 3] = ["/sockets", "/socket", "/socket.io"];
/// Packets that wait for one slow client; a client that is further behind is sent away, and is greeted
/// with the state of things when it comes back.
const PACKETS_MAX: usize = 1024;
/// Bytes of one packet: an order and what stands around it.
const PACKET_BYTES_MAX: usize = ORDER_BYTES_MAX + 4096;
/// Clients that came or went and wait for the sockets' task.
const COMINGS_MAX: usize = 1024;
/// Orders whose customer's connection is remembered, the newest ones: a few for each connection.
const CUSTOMERS_MAX: usize = 10_000;
/// Orders of one connection that are under way at once.
const ORDERS_MAX: usize = 16;

/// What the machine says in one step.
pub(crate) struct Batch {
    pub(crate) sayings: Vec<Saying>,
    pub(crate) complaints: Vec<Complaint>,
    /// What a client is told that comes after it.
    pub(crate) greeting: Value,
}

/// An event for every client.
pub(crate) struct Saying {
    pub(crate) event: &'static str,
    pub(crate) body: Value,
}

/// What went wrong with an order, for the client that placed it.
pub(crate) struct Complaint {
    pub(crate) order: String,
    pub(crate) client_ref: Option<String>,
    pub(crate) error: OrderError,
}

/// The service of one path.
pub(crate) type Realtime = SocketIoService<Nothing>;

/// What the library falls back to for other paths; they never get that far.
#[derive(Clone)]
pub(crate) struct Nothing;

impl hyper::service::Service<Request<Incoming>> for Nothing {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        let mut reply = http::Response::new(Full::default());
        *reply.status_mut() = http::StatusCode::NOT_FOUND;
        ready(Ok(reply))
    }
}

/// The services of the three paths.
#[derive(Clone)]
pub(crate) struct Services(Vec<(&'static str, Realtime)>);

/// What happens to connections.
enum Coming {
    Connected(SocketRef),
    Gone(String),
    /// This connection placed this order.
    Customer {
        order: String,
        connection: String,
    },
}

/// Who placed which order, oldest first: orders and connections.
#[derive(Default)]
struct Customers(VecDeque<(String, String)>);

impl Customers {
    fn add(&mut self, order: String, connection: String) {
        if self.0.len() >= CUSTOMERS_MAX {
            // Most orders end well, and nobody says so here.
            self.0.pop_front();
        }
        self.0.push_back((order, connection));
    }

    /// The connection that placed an order; it is told one thing and forgotten.
    fn take(&mut self, order: &str) -> Option<String> {
        let place = self.0.iter().rposition(|(known, _)| known == order)?;
        let (_, connection) = self.0.remove(place)?;
        Some(connection)
    }
}

impl Services {
    /// The service of a path.
    pub(crate) fn find(&self, path: &str) -> Option<&Realtime> {
        let found = self.0.iter().find(|(root, _)| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        found.map(|(_, service)| service)
    }

    pub(crate) async fn answer(
        service: &Realtime,
        request: Request<Incoming>,
    ) -> http::Response<
        impl http_body_util::BodyExt<Data = bytes::Bytes, Error: std::fmt::Debug> + use<>,
    > {
        let answered = hyper::service::Service::call(service, request).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

/// Serves the three paths. `admit` says whether an order may be placed by the client of a request.
pub(crate) fn start(
    door: &Door,
    mut sayings: mpsc::Receiver<Batch>,
    mut greeting: Value,
    admit: impl Fn(&http::request::Parts) -> bool + Clone + Send + Sync + 'static,
) -> (Services, tokio::task::JoinHandle<()>) {
    let (comings, mut came) = mpsc::channel(COMINGS_MAX);
    let mut services = Vec::new();
    for path in PATHS {
        let (service, io) = SocketIo::builder()
            .req_path(path)
            .max_buffer_size(PACKETS_MAX)
            .max_payload(PACKET_BYTES_MAX as u64)
            .ws_max_message_size(PACKET_BYTES_MAX)
            .ws_max_frame_size(PACKET_BYTES_MAX)
            .build_with_inner_svc(Nothing);
        let (door, comings, admit) = (door.clone(), comings.clone(), admit.clone());
        let name = greeting["name"].as_str().unwrap_or_default().to_owned();
        io.ns("/", async move |socket: SocketRef| {
            listen(&socket, &name, &door, &comings, &admit);
            let _ = comings.send(Coming::Connected(socket)).await;
        });
        services.push((path, service));
    }
    let task = tokio::spawn(async move {
        let mut clients: HashMap<String, SocketRef> = HashMap::new();
        let mut customers = Customers::default();
        loop {
            tokio::select! {
                batch = sayings.recv() => {
                    let Some(batch) = batch else { return };
                    for saying in &batch.sayings {
                        clients.retain(|_, client| tell(client, saying.event, &saying.body));
                    }
                    for complaint in batch.complaints {
                        let connection = customers.take(&complaint.order);
                        if let Some(client) = connection.and_then(|id| clients.get(&id)) {
                            let mut body = failure(&complaint.error, complaint.client_ref.as_ref());
                            body["order_id"] = json!(complaint.order);
                            tell(client, "order_error", &body);
                        }
                    }
                    greeting = batch.greeting;
                }
                Some(coming) = came.recv() => match coming {
                    Coming::Connected(client) => {
                        let told = tell(&client, "welcome", &greeting)
                            && tell(&client, "init", &greeting)
                            && tell(&client, "new_balance", &json!({"balance": greeting["balance"]}));
                        if told && client.connected() {
                            clients.insert(client.id.to_string(), client);
                        }
                    }
                    Coming::Gone(id) => {
                        clients.remove(&id);
                        customers.0.retain(|(_, connection)| *connection != id);
                    }
                    Coming::Customer { order, connection } => {
                        customers.add(order, connection);
                    }
                },
            }
        }
    });
    (Services(services), task)
}

fn listen(
    socket: &SocketRef,
    name: &str,
    door: &Door,
    comings: &mpsc::Sender<Coming>,
    admit: &(impl Fn(&http::request::Parts) -> bool + Clone + Send + Sync + 'static),
) {
    let under_way = std::sync::Arc::new(tokio::sync::Semaphore::new(ORDERS_MAX));
    let (door, customers, admit) = (door.clone(), comings.clone(), admit.clone());
    let name = name.to_owned();
    socket.on(
        "order",
        async move |socket: SocketRef, payload: TryData<Payload>, ack: AckSender| {
            let answer = match under_way.try_acquire() {
                _ if !admit(socket.req_parts()) => Err(OrderError::new(
                    Code::RateLimited,
                    "too many orders; try again in a minute",
                )),
                Err(_) => Err(OrderError::new(
                    Code::RateLimited,
                    "too many orders of this connection wait",
                )),
                Ok(_place) => match request(&payload) {
                    Ok(request) => door.order(request).await,
                    Err(error) => Err(error),
                },
            };
            let client_ref = match (&answer, &payload.0) {
                (Err(_), Ok(payload)) => payload.0["client_ref"].as_str().map(str::to_owned),
                _ => None,
            };
            if let Ok(order) = &answer {
                let coming = Coming::Customer {
                    order: order.id.clone(),
                    connection: socket.id.to_string(),
                };
                let _ = customers.send(coming).await;
            }
            respond(&socket, ack, &name, answer, client_ref.as_ref());
        },
    );
    let gone = comings.clone();
    socket.on_disconnect(async move |socket: SocketRef| {
        let _ = gone.send(Coming::Gone(socket.id.to_string())).await;
    });
}

/// The first argument of an event; null when there is none.
struct Payload(Value);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Payload, D::Error> {
        struct Arguments;
        impl<'de> Visitor<'de> for Arguments {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the arguments of an event")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Payload, A::Error> {
                let first = seq.next_element()?.unwrap_or(Value::Null);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Payload(first))
            }
        }
        // A tuple is the library's word for all arguments together.
        from.deserialize_tuple(1, Arguments)
    }
}

fn request(payload: &TryData<Payload>) -> Result<OrderRequest, OrderError> {
    match &payload.0 {
        Ok(payload) => OrderRequest::from_json(&payload.0),
        Err(_) => Err(OrderError::new(
            Code::InvalidOrder,
            "the payload is no JSON",
        )),
    }
}

fn respond(
    socket: &SocketRef,
    ack: AckSender,
    name: &str,
    answer: Answer,
    client_ref: Option<&String>,
) {
    match answer {
        Ok(order) => {
            let body = order.ordered(name);
            tell(socket, "ordered", &body);
            let _ = ack.send(&body);
        }
        Err(error) => {
            let body = failure(&error, client_ref);
            tell(socket, "order_error", &body);
            let _ = ack.send(&body);
        }
    }
}

fn failure(error: &OrderError, client_ref: Option<&String>) -> Value {
    let mut body = json!({ "error": error.json() });
    if let Some(client_ref) = client_ref {
        body["client_ref"] = json!(client_ref);
    }
    body
}

/// Tells one client. One that is too slow to be told is sent away; it comes back and is greeted.
fn tell(client: &SocketRef, event: &str, body: &Value) -> bool {
    match client.emit(event, body) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "a client is too slow or gone");
            let _ = client.clone().disconnect();
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_customer_is_remembered_however_many_there_were_before() {
        let mut customers = Customers::default();
        for number in 0..=CUSTOMERS_MAX {
            customers.add(format!("order {number}"), "a".to_owned());
        }
        assert_eq!(customers.0.len(), CUSTOMERS_MAX);
        let newest = format!("order {CUSTOMERS_MAX}");
        assert_eq!(customers.take(&newest).as_deref(), Some("a"));
        assert_eq!(customers.take(&newest), None, "told once");
        assert_eq!(customers.take("order 0"), None, "the oldest made room");
        assert_eq!(customers.take("order 1").as_deref(), Some("a"));
    }
}
