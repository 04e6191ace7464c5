//! One connection to the broker, made again whenever it is lost.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use daybook_bus::{Packet, Pattern};
use futures_util::{SinkExt, StreamExt};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::{BusError, BusKey, Call, Reply, ServiceError, Subscribe};
use crate::{
    Endpoint, Error,
    transport::{Connector, Wire},
};

/// Bytes of one packet at most: the largest payload that a broker can be told to take, and its
/// envelope.
const PACKET_BYTES_MAX: usize = 65 << 20;
/// From the connection attempt to `shake_online`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Silence after which a connection counts as dead: the server pings every 25 s and waits 20.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// The first pause before a lost connection is made again; it doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// Orders that wait for the connection.
const ORDERS_MAX: usize = 1_024;
/// Messages of one subscription that wait to be taken; further ones are answered `overloaded`.
const MESSAGES_MAX: usize = 4_096;
/// What a call may take longer here than at the broker, whose answer says more.
const GRACE: Duration = Duration::from_secs(2);
/// How long a close may take: to write what is left, and to hear that the broker has read it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Says how to connect.
#[derive(Clone, Debug)]
pub struct BusBuilder {
    endpoint: Endpoint,
    name: String,
    key: BusKey,
    ca_file: Option<PathBuf>,
    max_in_flight: Option<u32>,
}

/// A service instance on the bus. Cheap to clone; the connection ends with the last clone.
#[derive(Clone, Debug)]
pub struct Bus {
    orders: mpsc::Sender<Order>,
    id: watch::Receiver<Arc<str>>,
}

/// Messages of one subscription.
#[derive(Debug)]
pub struct Messages {
    messages: mpsc::Receiver<Incoming>,
}

/// A request, a durable message or an event that came in.
#[derive(Debug)]
pub struct Incoming {
    /// The event's name: the request's, or the broker's own (`_service:joined`).
    pub name: String,
    /// The whole message.
    pub body: Value,
    orders: mpsc::Sender<Order>,
    own_id: Arc<str>,
}

#[derive(Debug)]
enum Order {
    Emit {
        event: &'static str,
        body: Value,
        done: Option<oneshot::Sender<Result<Value, ServiceError>>>,
    },
    Call {
        request_id: String,
        request: Value,
        reply: Reply,
        answers: mpsc::UnboundedSender<Result<Value, ServiceError>>,
    },
    Subscribe {
        body: Value,
        pattern: Pattern,
        messages: mpsc::Sender<Incoming>,
        done: oneshot::Sender<Result<Value, ServiceError>>,
    },
    Forget {
        request_id: String,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

impl BusBuilder {
    /// Trusts only the certificates of this PEM file.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> BusBuilder {
        self.ca_file = Some(path.into());
        self
    }

    /// Unanswered deliveries at once, of all subscriptions together.
    #[must_use]
    pub fn max_in_flight(mut self, count: u32) -> BusBuilder {
        self.max_in_flight = Some(count);
        self
    }

    /// Connects and introduces the service.
    ///
    /// # Errors
    /// `Refused` for a wrong name or key, `Connection` when the broker cannot be reached.
    pub async fn connect(self) -> Result<Bus, BusError> {
        let connector = match self.endpoint.is_secure() {
            true => Connector::secure(self.ca_file.as_deref())?,
            false => Connector::plain(),
        };
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let mut driver = Driver {
            builder: self,
            connector,
            id: watch::channel(Arc::from("")).0,
            token: None,
            taken,
            orders: orders.downgrade(),
            calls: HashMap::new(),
            calls_made: 0,
            subscriptions: Vec::new(),
            acks: HashMap::new(),
            next_ack: 1,
            refused: false,
            closing: None,
        };
        let id = driver.id.subscribe();
        let socket = driver.connect().await?;
        tokio::spawn(driver.run(socket));
        Ok(Bus { orders, id })
    }
}

impl Bus {
    /// A service called `name` on the bus at `endpoint`.
    pub fn builder(endpoint: Endpoint, name: &str, key: BusKey) -> BusBuilder {
        BusBuilder {
            endpoint,
            name: name.to_owned(),
            key,
            ca_file: None,
            max_in_flight: None,
        }
    }

    /// The id of this instance. It changes when a connection was away for too long.
    pub fn id(&self) -> Arc<str> {
        self.id.borrow().clone()
    }

    /// Requests something and waits for the answer's data; with [`Reply::All`], for a list of all
    /// answers.
    ///
    /// # Errors
    /// `Answered` with what the service or the broker said.
    pub async fn call(&self, name: &str, data: &Value, call: Call) -> Result<Value, BusError> {
        let request_id = call
            .request_id
            .clone()
            .unwrap_or_else(|| format!("{name}:{}", random_hex()));
        let mut request = json!({"name": name, "request_id": request_id, "data": data});
        call.members(&mut request);
        if call.reply == Reply::None {
            let (done, taken) = oneshot::channel();
            let order = Order::Emit {
                event: "api:request",
                body: request,
                done: Some(done),
            };
            self.order(order).await?;
            let taken = timeout(call.timeout + GRACE, taken).await;
            return match taken {
                Ok(Ok(Ok(body))) => Ok(body),
                Ok(Ok(Err(error))) => Err(BusError::Answered(error)),
                Ok(Err(_)) => Err(BusError::Closed),
                Err(_) => Err(BusError::Answered(late())),
            };
        }
        let (answers, mut heard) = mpsc::unbounded_channel();
        self.order(Order::Call {
            request_id: request_id.clone(),
            request,
            reply: call.reply,
            answers,
        })
        .await?;
        let wait = async {
            let mut list = Vec::new();
            loop {
                match heard.recv().await {
                    Some(Ok(answer)) if call.reply == Reply::All => list.push(answer),
                    Some(Ok(answer)) => return Ok(answer),
                    // A whole list ends when its sender does.
                    Some(Err(error)) if call.reply == Reply::All && !error.code.is_empty() => {
                        list.push(json!({"error": error.whole}));
                    }
                    Some(Err(error)) if error.code.is_empty() => return Ok(Value::Array(list)),
                    Some(Err(error)) => return Err(BusError::Answered(error)),
                    None => return Err(BusError::Closed),
                }
            }
        };
        match timeout(call.timeout + GRACE, wait).await {
            Ok(done) => done,
            Err(_) => {
                // The broker is away, or it would have answered.
                let _ = self.orders.try_send(Order::Forget { request_id });
                Err(BusError::Answered(late()))
            }
        }
    }

    /// Listens to a name or pattern.
    ///
    /// # Errors
    /// `Answered` when the broker does not allow it.
    pub async fn subscribe(&self, name: &str, how: Subscribe) -> Result<Messages, BusError> {
        let pattern = Pattern::new(name).map_err(|e| {
            BusError::Answered(ServiceError::new("invalid_data", 400, &e.to_string()))
        })?;
        let (messages, taken) = mpsc::channel(MESSAGES_MAX);
        let (done, told) = oneshot::channel();
        self.order(Order::Subscribe {
            body: how.body(name),
            pattern,
            messages,
            done,
        })
        .await?;
        match told.await {
            Ok(Ok(_)) => Ok(Messages { messages: taken }),
            Ok(Err(error)) => Err(BusError::Answered(error)),
            Err(_) => Err(BusError::Closed),
        }
    }

    /// Answers requests with what `handler` makes of them, each in a task of its own, until the
    /// connection is closed.
    ///
    /// # Errors
    /// As [`Bus::subscribe`].
    pub async fn serve<F, A>(&self, name: &str, how: Subscribe, handler: F) -> Result<(), BusError>
    where
        F: Fn(Value) -> A + Clone + Send + 'static,
        A: Future<Output = Result<Value, ServiceError>> + Send + 'static,
    {
        let mut messages = self.subscribe(name, how).await?;
        while let Some(request) = messages.next().await {
            let handler = handler.clone();
            tokio::spawn(async move {
                match handler(request.data().clone()).await {
                    Ok(data) => request.answer(&data).await,
                    Err(error) => request.refuse(&error).await,
                }
            });
        }
        Ok(())
    }

    /// Leaves the bus. When it returns, the broker has read everything that was ordered before, by
    /// this handle, its clones, or an [`Incoming`]; what is ordered afterwards has no effect.
    ///
    /// # Errors
    /// `Closed` when the connection was lost first, or the broker did not read on for ten seconds.
    pub async fn close(self) -> Result<(), BusError> {
        let (done, told) = oneshot::channel();
        let leave = async {
            self.order(Order::Close { done }).await?;
            told.await.map_err(|_| BusError::Closed)
        };
        match timeout(CLOSE_TIMEOUT, leave).await {
            Ok(left) => left,
            Err(_) => Err(BusError::Closed),
        }
    }

    async fn order(&self, order: Order) -> Result<(), BusError> {
        self.orders.send(order).await.map_err(|_| BusError::Closed)
    }
}

impl Messages {
    /// The next message; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.messages.recv().await
    }
}

impl Incoming {
    /// What was sent along.
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// Answers the request.
    pub async fn answer(&self, data: &Value) {
        self.respond("data", data.clone()).await;
    }

    /// Answers the request with an error.
    pub async fn refuse(&self, error: &ServiceError) {
        self.respond("error", error.whole.clone()).await;
    }

    /// A durable message is done with.
    pub async fn acknowledge(&self) {
        let body = json!({"delivery_id": self.body["delivery_id"]});
        self.emit("_service:ack", body).await;
    }

    /// A durable message shall come again, after a pause.
    pub async fn send_back(&self, pause: Duration) {
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let body = json!({"delivery_id": self.body["delivery_id"], "delay_ms": ms});
        self.emit("_service:nak", body).await;
    }

    async fn respond(&self, member: &str, value: Value) {
        if !self.body["request_id"].is_string() {
            return;
        }
        let mut body = json!({
            "name": self.body["name"],
            "request_id": self.body["request_id"],
            "sender_id": self.body["sender_id"],
            "recipient_id": &*self.own_id,
        });
        if !self.body["trace"].is_null() {
            body["trace"] = self.body["trace"].clone();
        }
        body[member] = value;
        self.emit("api:response", body).await;
    }

    async fn emit(&self, event: &'static str, body: Value) {
        // When the connection is closed there is nobody to tell.
        let done = None;
        let _ = self.orders.send(Order::Emit { event, body, done }).await;
    }
}

struct Driver {
    builder: BusBuilder,
    connector: Connector,
    id: watch::Sender<Arc<str>>,
    token: Option<String>,
    taken: mpsc::Receiver<Order>,
    orders: mpsc::WeakSender<Order>,
    calls: HashMap<String, OpenCall>,
    /// Calls made so far.
    calls_made: u64,
    subscriptions: Vec<Open>,
    acks: HashMap<u64, oneshot::Sender<Result<Value, ServiceError>>>,
    next_ack: u64,
    /// The broker said that this service may not come in.
    refused: bool,
    /// Who waits for the end.
    closing: Option<oneshot::Sender<()>>,
}

struct OpenCall {
    /// Its place among all calls, which is the order in which they are repeated.
    place: u64,
    request: Value,
    reply: Reply,
    answers: mpsc::UnboundedSender<Result<Value, ServiceError>>,
}

struct Open {
    body: Value,
    pattern: Pattern,
    messages: mpsc::Sender<Incoming>,
}

type Socket = WebSocketStream<Wire>;

/// How a connection ended.
enum Ended {
    /// Nobody holds this client any more.
    Dropped,
    /// It was told to leave.
    Left,
    Lost,
    /// The broker said good-bye.
    Refused,
}

impl Driver {
    async fn run(mut self, mut socket: Socket) {
        loop {
            match self.drive(&mut socket).await {
                Ended::Dropped => {
                    let _ = socket.close(None).await;
                    return;
                }
                Ended::Left => return self.leave(&mut socket).await,
                Ended::Refused => return,
                Ended::Lost => {}
            }
            // Whoever waits for an acknowledgement learns that it will not come.
            self.acks.clear();
            if self.closing.take().is_some() {
                return;
            }
            let before = self.id.borrow().clone();
            let mut pause = PAUSE_FIRST;
            socket = loop {
                let share = rand::rng().random_range(0.5..1.0);
                sleep(pause.mul_f64(share)).await;
                pause = (pause * 2).min(PAUSE_LAST);
                if self.orders.upgrade().is_none() {
                    return;
                }
                match self.connect().await {
                    Ok(socket) => break socket,
                    Err(BusError::Refused(error)) => {
                        tracing::warn!(%error, "the bus lets this service in no longer");
                        return;
                    }
                    Err(error) => tracing::debug!(%error, "the bus is away"),
                }
            };
            if *before != **self.id.borrow() {
                self.give_up_calls();
            }
            if self.resume(&mut socket).await.is_err() {
                continue;
            }
        }
    }

    /// Ends a connection on which everything is written. A process that went now, with something of
    /// the broker's unread, would have its system take back what the broker has not read yet; so
    /// this waits for the broker's own end, which follows on having read ours.
    async fn leave(mut self, socket: &mut Socket) {
        let ended = async {
            socket.close(None).await?;
            while !socket
                .next()
                .await
                .transpose()?
                .is_none_or(|m| m.is_close())
            {}
            Ok::<(), tungstenite::Error>(())
        };
        if let Ok(Ok(())) = timeout(CLOSE_TIMEOUT, ended).await
            && let Some(done) = self.closing.take()
        {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    /// Connects and shakes hands.
    async fn connect(&mut self) -> Result<Socket, BusError> {
        let shaking = async {
            let mut socket = self.open().await?;
            self.shake(&mut socket).await?;
            Ok(socket)
        };
        match timeout(HANDSHAKE_TIMEOUT, shaking).await {
            Ok(done) => done,
            Err(_) => Err(self.broken("the handshake took too long").into()),
        }
    }

    async fn open(&self) -> Result<Socket, Error> {
        let endpoint = &self.builder.endpoint;
        let stream = self
            .connector
            .connect(&endpoint.host, endpoint.port)
            .await
            .map_err(|e| Error::no_connection(endpoint, &e))?;
        let url = endpoint.socket_url("/socket.io/?EIO=4&transport=websocket");
        let request = url.into_client_request().map_err(Error::protocol)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(PACKET_BYTES_MAX))
            .max_frame_size(Some(PACKET_BYTES_MAX));
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        match upgrade.await {
            Ok((socket, _)) => Ok(socket),
            Err(error) => Err(self.broken(&error.to_string())),
        }
    }

    async fn shake(&mut self, socket: &mut Socket) -> Result<(), BusError> {
        loop {
            let text = self.packet(socket).await?;
            if text.starts_with('0') {
                self.send(socket, "40/communication,".to_owned()).await?;
                continue;
            }
            if text == "2" {
                self.send(socket, "3".to_owned()).await?;
                continue;
            }
            let Some(text) = text.strip_prefix('4') else {
                continue;
            };
            if text.starts_with("4/communication") {
                let what = "the server has no service bus";
                return Err(Error::Protocol(what.to_owned()).into());
            }
            let Ok(Packet::Event { name, argument, .. }) = Packet::read(text) else {
                continue;
            };
            let body: Value = argument
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default();
            match &*name {
                "shake_who" => {
                    let mut body = json!({
                        "name": self.builder.name,
                        "key": self.builder.key.0,
                        "version": env!("CARGO_PKG_VERSION"),
                        "features": ["subscribe"],
                    });
                    if let Some(count) = self.builder.max_in_flight {
                        body["max_in_flight"] = count.into();
                    }
                    if let Some(token) = &self.token {
                        body["resume"] = json!({"id": &**self.id.borrow(), "token": token});
                    }
                    self.emit(socket, "shake_i_am", &body, None).await?;
                }
                "shake_id" => {
                    let id = body["id"].as_str().unwrap_or_default();
                    self.id.send_replace(id.into());
                    self.token = body["resume_token"].as_str().map(str::to_owned);
                    self.emit(socket, "shake_ready", &json!({"id": id}), None)
                        .await?;
                }
                "shake_online" => return Ok(()),
                "shake_error" => {
                    let error = ServiceError::read(&body["error"]);
                    return Err(match error.code.as_str() {
                        // The broker had no time; it may have later.
                        "request_timeout" | "overloaded" => self.broken(&error.to_string()).into(),
                        _ => BusError::Refused(error),
                    });
                }
                _ => {}
            }
        }
    }

    /// Under another id the broker does not know which requests came before: one that somebody has done
    /// already would be done twice. Those that may be are repeated; the others end.
    fn give_up_calls(&mut self) {
        let lost = self
            .calls
            .extract_if(|_, call| call.request["retry"] != true);
        for (_, call) in lost {
            let gone =
                "the connection was lost before the answer, and the broker knows it no longer";
            let error = ServiceError::new("recipient_gone", 502, gone);
            // Whoever asked may have stopped waiting.
            let _ = call.answers.send(Err(error));
            end(&call);
        }
    }

    /// Makes subscriptions again and repeats what was not answered, in the order in which it was asked.
    async fn resume(&mut self, socket: &mut Socket) -> Result<(), Error> {
        let bodies: Vec<Value> = self.subscriptions.iter().map(|s| s.body.clone()).collect();
        for body in bodies {
            self.emit(socket, "_service:api:request:subscribe", &body, None)
                .await?;
        }
        let mut calls: Vec<&OpenCall> = self.calls.values().collect();
        calls.sort_unstable_by_key(|call| call.place);
        let requests: Vec<Value> = calls.iter().map(|call| call.request.clone()).collect();
        for mut request in requests {
            request["sender_id"] = (&**self.id.borrow()).into();
            self.emit(socket, "api:request", &request, None).await?;
        }
        Ok(())
    }

    async fn drive(&mut self, socket: &mut Socket) -> Ended {
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                order = self.taken.recv() => {
                    let Some(order) = order else {
                        return Ended::Dropped;
                    };
                    if self.obey(socket, order).await.is_err() {
                        return Ended::Lost;
                    }
                    // What is there already goes into the same write.
                    while self.closing.is_none()
                        && let Ok(order) = self.taken.try_recv()
                    {
                        if self.obey(socket, order).await.is_err() {
                            return Ended::Lost;
                        }
                    }
                    if socket.flush().await.is_err() {
                        return Ended::Lost;
                    }
                    if self.closing.is_some() {
                        return Ended::Left;
                    }
                }
                message = socket.next() => {
                    heard = Instant::now();
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Ended::Lost,
                        Some(Ok(_)) => continue,
                    };
                    match text.as_str() {
                        "2" => {
                            if self.send(socket, "3".to_owned()).await.is_err() {
                                return Ended::Lost;
                            }
                        }
                        "1" => return Ended::Lost,
                        text => {
                            if let Some(text) = text.strip_prefix('4')
                                && let Some(ended) = self.hear(text)
                            {
                                return ended;
                            }
                        }
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => return Ended::Lost,
            }
        }
    }

    async fn obey(&mut self, socket: &mut Socket, order: Order) -> Result<(), Error> {
        match order {
            Order::Emit {
                event,
                mut body,
                done,
            } => {
                if event == "api:request" {
                    body["sender_id"] = (&**self.id.borrow()).into();
                }
                let ack = done.map(|done| self.wait_for(done));
                self.feed(socket, event, &body, ack).await
            }
            Order::Call {
                request_id,
                request,
                reply,
                answers,
            } => {
                let mut sent = request.clone();
                sent["sender_id"] = (&**self.id.borrow()).into();
                let call = OpenCall {
                    place: self.calls_made,
                    request,
                    reply,
                    answers,
                };
                self.calls_made += 1;
                self.calls.insert(request_id, call);
                self.feed(socket, "api:request", &sent, None).await
            }
            Order::Subscribe {
                body,
                pattern,
                messages,
                done,
            } => {
                self.subscriptions.push(Open {
                    body: body.clone(),
                    pattern,
                    messages,
                });
                let ack = self.wait_for(done);
                self.feed(socket, "_service:api:request:subscribe", &body, Some(ack))
                    .await
            }
            Order::Forget { request_id } => {
                self.calls.remove(&request_id);
                Ok(())
            }
            Order::Close { done } => {
                self.closing = Some(done);
                Ok(())
            }
        }
    }

    fn wait_for(&mut self, done: oneshot::Sender<Result<Value, ServiceError>>) -> u64 {
        let ack = self.next_ack;
        self.next_ack += 1;
        self.acks.insert(ack, done);
        ack
    }

    /// Takes in one packet of Socket.IO's.
    fn hear(&mut self, text: &str) -> Option<Ended> {
        if let Some(rest) = text.strip_prefix("3/communication,") {
            self.acknowledged(rest);
            return None;
        }
        match Packet::read(text) {
            Ok(Packet::Event { name, argument, .. }) => {
                let body: Value = argument
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or_default();
                self.event(&name, body);
                None
            }
            Ok(Packet::Disconnect { .. }) if self.refused => Some(Ended::Refused),
            Ok(Packet::Disconnect { .. }) => Some(Ended::Lost),
            _ => None,
        }
    }

    fn acknowledged(&mut self, rest: &str) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (Ok(ack), Ok(list)) = (
            rest[..digits].parse::<u64>(),
            serde_json::from_str::<Vec<Value>>(&rest[digits..]),
        ) else {
            return;
        };
        let (Some(done), Some(body)) = (self.acks.remove(&ack), list.into_iter().next()) else {
            return;
        };
        let answer = match body["ok"] == true {
            true => Ok(body),
            false => Err(ServiceError::read(&body["error"])),
        };
        let _ = done.send(answer);
    }

    fn event(&mut self, name: &str, body: Value) {
        match name {
            "api:response" => {
                let id = body["request_id"].as_str().unwrap_or_default();
                let Some(call) = self.calls.get(id) else {
                    return;
                };
                let answer = match body["error"].is_null() {
                    true => Ok(body["data"].clone()),
                    false => Err(ServiceError::read(&body["error"])),
                };
                let _ = call.answers.send(answer);
                // The broker's own answer ends a call of whatever kind.
                if call.reply != Reply::All || body["recipient_id"] == "eman" {
                    self.end_call(id);
                }
            }
            "api:response:end" => {
                let id = body["request_id"].as_str().unwrap_or_default();
                self.end_call(id);
            }
            "api:request:error" => {
                let error = &body["error"];
                let id = error["request_id"].as_str().unwrap_or_default();
                if let Some(call) = self.calls.remove(id) {
                    let _ = call.answers.send(Err(ServiceError::read(error)));
                    end(&call);
                }
            }
            "shake_error" => {
                let code = body["error"]["code"].as_str().unwrap_or_default();
                self.refused = !matches!(code, "request_timeout" | "overloaded");
                tracing::warn!(code, "the bus sends this service away");
            }
            "_service:error" | "api:response:error" => {
                tracing::debug!(event = name, %body, "the broker refused something");
            }
            _ => self.deliver(name, body),
        }
    }

    fn end_call(&mut self, id: &str) {
        if let Some(call) = self.calls.remove(id) {
            end(&call);
        }
    }

    fn deliver(&mut self, name: &str, body: Value) {
        self.subscriptions.retain(|s| !s.messages.is_closed());
        let Some(orders) = self.orders.upgrade() else {
            return;
        };
        // The broker's presence events have a colon where their pattern has a dot.
        let looked_for = name.replacen("_service:", "_service.", 1);
        let durable = !body["delivery_id"].is_null();
        let own_id = self.id.borrow().clone();
        let mut taken = false;
        for subscription in &self.subscriptions {
            if !subscription.pattern.matches(&looked_for)
                || (durable && subscription.body["durable"] != true)
            {
                continue;
            }
            let incoming = Incoming {
                name: name.to_owned(),
                body: body.clone(),
                orders: orders.clone(),
                own_id: own_id.clone(),
            };
            taken |= subscription.messages.try_send(incoming).is_ok();
        }
        if !taken && !durable && body["request_id"].is_string() {
            let error = ServiceError::new("overloaded", 503, "the service is busy");
            let response = json!({
                "name": body["name"],
                "request_id": body["request_id"],
                "sender_id": body["sender_id"],
                "recipient_id": &*own_id,
                "error": error.whole,
            });
            let order = Order::Emit {
                event: "api:response",
                body: response,
                done: None,
            };
            let _ = orders.try_send(order);
        }
    }

    async fn packet(&self, socket: &mut Socket) -> Result<String, Error> {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.broken(&error.to_string())),
                None => return Err(self.broken("the broker closed the connection")),
            }
        }
    }

    async fn emit(
        &self,
        socket: &mut Socket,
        event: &str,
        body: &Value,
        ack: Option<u64>,
    ) -> Result<(), Error> {
        self.feed(socket, event, body, ack).await?;
        socket
            .flush()
            .await
            .map_err(|e| self.broken(&e.to_string()))
    }

    async fn feed(
        &self,
        socket: &mut Socket,
        event: &str,
        body: &Value,
        ack: Option<u64>,
    ) -> Result<(), Error> {
        let ack = ack.map(|ack| ack.to_string()).unwrap_or_default();
        let text = format!("42/communication,{ack}[{},{body}]", json!(event));
        socket
            .feed(Message::Text(text.into()))
            .await
            .map_err(|e| self.broken(&e.to_string()))
    }

    async fn send(&self, socket: &mut Socket, text: String) -> Result<(), Error> {
        socket
            .send(Message::Text(text.into()))
            .await
            .map_err(|e| self.broken(&e.to_string()))
    }

    fn broken(&self, reason: &str) -> Error {
        Error::Broken {
            endpoint: self.builder.endpoint.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Tells a call that collects answers that there are no more.
fn end(call: &OpenCall) {
    if call.reply == Reply::All {
        let _ = call.answers.send(Err(ServiceError::new("", 0, "")));
    }
}

fn late() -> ServiceError {
    ServiceError::new("timeout", 504, "no answer came in time")
}

fn random_hex() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let number: u128 = rand::rng().random();
    format!("{}:{number:032x}", since.as_millis())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A broker's end of one connection.
    struct Broker(WebSocketStream<TcpStream>);

    impl Broker {
        /// Takes a client in, under this id.
        async fn welcome(listener: &TcpListener, id: &str) -> Broker {
            let (stream, _) = listener.accept().await.unwrap();
            let mut broker = Broker(tokio_tungstenite::accept_async(stream).await.unwrap());
            broker.say("0{}".to_owned()).await;
            assert_eq!(broker.hear().await, "40/communication,");
            broker.emit("shake_who", json!({})).await;
            broker.event("shake_i_am").await;
            let named = json!({"id": id, "resume_token": "t"});
            broker.emit("shake_id", named).await;
            broker.event("shake_ready").await;
            broker.emit("shake_online", json!({})).await;
            broker
        }

        async fn say(&mut self, text: String) {
            self.0.send(Message::Text(text.into())).await.unwrap();
        }

        async fn emit(&mut self, event: &str, body: Value) {
            let list = json!([event, body]);
            self.say(format!("42/communication,{list}")).await;
        }

        async fn hear(&mut self) -> String {
            let message = self.0.next().await.unwrap().unwrap();
            message.into_text().unwrap().to_string()
        }

        /// The body of the next event, which has this name.
        async fn event(&mut self, name: &str) -> Value {
            let text = self.hear().await;
            let list = text.trim_start_matches(|c| c != '[');
            let mut list: Vec<Value> = serde_json::from_str(list).unwrap();
            assert_eq!(list[0], name, "{text}");
            list.pop().unwrap()
        }

        /// Answers the next request with its own name, which is told.
        async fn answer(&mut self) -> String {
            let mut request = self.event("api:request").await;
            let name = request["name"].as_str().unwrap().to_owned();
            request["data"] = json!(name);
            request["recipient_id"] = json!("worker");
            self.emit("api:response", request).await;
            name
        }
    }

    /// Calls without an answer when the connection breaks, as far as they are repeated on the next one,
    /// and how each of them ends.
    async fn repeated(next_id: &str) -> (Vec<String>, Vec<Result<Value, BusError>>) {
        const CALLS: [(&str, bool); 4] = [("a", false), ("b", true), ("c", false), ("d", true)];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let endpoint = format!("http://{place}").parse().unwrap();
        let connecting = Bus::builder(endpoint, "caller", BusKey("k".to_owned())).connect();
        let (bus, mut broker) = tokio::join!(connecting, Broker::welcome(&listener, "first"));
        let bus = bus.unwrap();
        let mut calls = Vec::new();
        for (name, retry) in CALLS {
            let bus = bus.clone();
            calls.push(tokio::spawn(async move {
                let how = Call {
                    retry,
                    ..Call::default()
                };
                bus.call(name, &Value::Null, how).await
            }));
            assert_eq!(broker.event("api:request").await["name"], name);
        }
        drop(broker);
        let mut broker = Broker::welcome(&listener, next_id).await;
        let count = match next_id {
            "first" => CALLS.len(),
            _ => CALLS.iter().filter(|(_, retry)| *retry).count(),
        };
        let mut order = Vec::new();
        for _ in 0..count {
            order.push(broker.answer().await);
        }
        let mut ends = Vec::new();
        for call in calls {
            ends.push(call.await.unwrap());
        }
        (order, ends)
    }

    #[tokio::test]
    async fn under_the_same_id_all_calls_are_repeated_in_their_order() {
        let (order, ends) = repeated("first").await;
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    }

    #[tokio::test]
    async fn under_another_id_only_calls_that_may_be_done_twice_are_repeated() {
        let (order, ends) = repeated("second").await;
        assert_eq!(order, ["b", "d"]);
        for (place, end) in ends.iter().enumerate() {
            match end {
                Ok(name) => assert_eq!(name, ["a", "b", "c", "d"][place]),
                Err(BusError::Answered(error)) => {
                    assert!([0, 2].contains(&place));
                    assert_eq!(error.code, "recipient_gone");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
