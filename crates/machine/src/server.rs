//! The HTTP side (machines, section 8), and the one port that sockets share with it.

mod reply;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time,
};
use tokio_rustls::TlsAcceptor;

use self::reply::{Reply, body, empty, failed, json_reply, page, preflight, refuse, stopping};
use crate::{
    Moment,
    agent::{Config, Door, MachineError},
    ledger,
    order::Order,
    request::{Code, ORDER_BYTES_MAX, OrderError, OrderRequest},
    sockets::{self, Batch, Services},
};

/// Connections at once: a shop window, not a market place.
const CONNECTIONS_MAX: usize = 2048;
/// From a connection's first byte to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a payment that a customer hands in.
const PAYMENT_BYTES_MAX: usize = 64 << 10;
/// Orders that a list shows unless it is asked for another number, and at most.
const LIST_DEFAULT: usize = 1_000;
const LIST_MAX: usize = 10_000;
/// Bytes of the orders in one list, about. A list that ends by it goes on with `before`.
const LIST_BYTES_MAX: usize = 4 << 20;
/// Addresses whose orders are counted; more start the count anew.
const RATES_MAX: usize = 10_000;
/// The window of the count.
const RATE_MS: u64 = 60_000;
/// Characters of a request's name.
const REPEAT_KEY_CHARS_MAX: usize = 128;
/// How long accepting rests after it failed, which it does when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const PAGE: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");
const API: &str = include_str!("page/api.html");

/// The running listener.
#[derive(Debug)]
pub(crate) struct Server {
    accepting: JoinHandle<()>,
    talking: JoinHandle<()>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

struct Shop {
    door: Door,
    services: Services,
    asset: daybook_ledger::AssetId,
    origins: Vec<String>,
    rates: Arc<Rates>,
}

/// Orders of each address within a minute.
struct Rates {
    most: u32,
    counts: Mutex<(u64, HashMap<IpAddr, u32>)>,
}

impl Rates {
    fn admit(&self, peer: IpAddr) -> bool {
        let minute = Moment::now().0 / RATE_MS;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.0 != minute || counts.1.len() >= RATES_MAX {
            *counts = (minute, HashMap::new());
        }
        let count = counts.1.entry(peer).or_default();
        *count += 1;
        *count <= self.most
    }
}

impl Server {
    /// Takes nothing new, and ends what is there.
    pub(crate) async fn stop(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.talking.abort();
    }
}

/// Serves customers on `socket`.
pub(crate) fn start(
    socket: TcpListener,
    config: &Config,
    door: Door,
    sayings: mpsc::Receiver<Batch>,
    greeting: Value,
) -> Result<Server, MachineError> {
    let tls = match &config.tls {
        Some((chain, key)) => Some(acceptor(chain, key)?),
        None => None,
    };
    let rates = Arc::new(Rates {
        most: config.orders_per_minute,
        counts: Mutex::new((0, HashMap::new())),
    });
    let admit = {
        let rates = rates.clone();
        move |parts: &Parts| {
            let peer = parts.extensions.get::<Peer>();
            peer.is_none_or(|peer| rates.admit(peer.0))
        }
    };
    let (services, talking) = sockets::start(&door, sayings, greeting, admit);
    let shop = Arc::new(Shop {
        door,
        services,
        asset: config.terms.asset,
        origins: config.allowed_origins.clone(),
        rates,
    });
    let accepting = tokio::spawn(accept(socket, tls, shop));
    Ok(Server { accepting, talking })
}

fn acceptor(chain: &[u8], key: &[u8]) -> Result<TlsAcceptor, MachineError> {
    let wrong = |error: &dyn std::fmt::Display| MachineError::Tls(error.to_string());
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| wrong(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(socket: TcpListener, tls: Option<TlsAcceptor>, shop: Arc<Shop>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // What ended is forgotten; when this task is aborted, all connections are.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "too many connections");
            continue;
        };
        // Without it, small frames wait for the other side's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let (shop, tls) = (shop.clone(), tls.clone());
        connections.spawn(async move {
            let peer = Peer(peer.ip());
            match tls {
                None => talk(stream, peer, shop).await,
                Some(tls) => match time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => talk(stream, peer, shop).await,
                    _ => tracing::debug!("no TLS"),
                },
            }
            drop(place);
        });
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    shop: Arc<Shop>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let shop = shop.clone();
        request.extensions_mut().insert(peer);
        async move { Ok::<_, Infallible>(shop.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        if let Some(service) = self.services.find(request.uri().path()) {
            return self.realtime(service, request).await;
        }
        let head = request.method() == Method::HEAD;
        let mut reply = self.serve(request).await;
        let headers = reply.headers_mut();
        let any = HeaderValue::from_static("*");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "location, x-order-id, x-order-value, x-order-public-key, x-order-asset, x-order-expires",
            ),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if head {
            *reply.body_mut() = body(Bytes::new());
        }
        reply
    }

    /// Sockets and polls. CORS does not protect an upgrade, so other pages are refused here.
    async fn realtime(&self, service: &sockets::Realtime, request: Request<Incoming>) -> Reply {
        let origin = request.headers().get(header::ORIGIN).cloned();
        if let Some(origin) = &origin
            && !self.allows(origin)
        {
            return refuse(StatusCode::FORBIDDEN, "this page may not use the machine");
        }
        let mut reply = if request.method() == Method::OPTIONS {
            empty(StatusCode::NO_CONTENT)
        } else {
            let answered = Services::answer(service, request).await;
            answered.map(|inner| {
                let inner = inner.map_err(|error| format!("{error:?}").into());
                UnsyncBoxBody::new(inner)
            })
        };
        if let Some(origin) = origin {
            // Pages send their polls with credentials, and for those the answer must name them.
            let headers = reply.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("content-type"),
            );
        }
        reply
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        self.origins
            .iter()
            .any(|allowed| match allowed.strip_suffix(":*") {
                _ if allowed == "*" => true,
                None => origin == allowed,
                Some(root) => origin.strip_prefix(root).is_some_and(|port| {
                    port.is_empty()
                        || port.strip_prefix(':').is_some_and(|digits| {
                            !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
                        })
                }),
            })
    }

    async fn serve(&self, request: Request<Incoming>) -> Reply {
        let (parts, incoming) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let reading = matches!(parts.method, Method::GET | Method::HEAD);
        let posting = parts.method == Method::POST;
        match segments[..] {
            _ if parts.method == Method::OPTIONS => preflight(),
            [] if reading => page(PAGE, "text/html; charset=utf-8"),
            ["page.js"] if reading => page(SCRIPT, "text/javascript; charset=utf-8"),
            ["page.css"] if reading => page(STYLE, "text/css; charset=utf-8"),
            ["icon.svg"] if reading => page(ICON, "image/svg+xml"),
            ["api"] if reading => page(API, "text/html; charset=utf-8"),
            ["orders"] if posting => self.post_order(&parts, incoming).await,
            ["orders"] if reading => self.orders(&parts).await,
            ["orders", id] if reading => self.order(id.to_owned()).await,
            ["orders", id, "payment"] if posting => self.pay(id.to_owned(), incoming).await,
            ["addresses", address] if reading => self.address(address.to_owned()).await,
            ["get_account_data"] if reading => self.account().await,
            ["limits"] if reading => self.limits().await,
            ["info"] if reading => self.info().await,
            ["healthz"] if reading => json_reply(StatusCode::OK, &json!({"status": "ok"})),
            ["readyz"] if reading => self.ready().await,
            []
            | [
                "page.js" | "page.css" | "icon.svg" | "api" | "get_account_data" | "limits"
                | "info",
            ]
            | ["orders"]
            | ["orders", _]
            | ["orders", _, "payment"]
            | ["addresses", _]
            | ["healthz" | "readyz"] => refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method",
            ),
            _ => refuse(StatusCode::NOT_FOUND, "there is nothing at this path"),
        }
    }

    async fn post_order(&self, parts: &Parts, incoming: Incoming) -> Reply {
        let peer = parts.extensions.get::<Peer>();
        if peer.is_some_and(|peer| !self.rates.admit(peer.0)) {
            let mut reply = failed(&OrderError::new(
                Code::RateLimited,
                "too many orders; try again in a minute",
            ));
            reply
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            return reply;
        }
        let text = match read(incoming, ORDER_BYTES_MAX).await {
            Ok(text) => text,
            Err(reply) => return reply,
        };
        let request = match order_request(&parts.headers, &text) {
            Ok(request) => request,
            Err(error) => return failed(&error),
        };
        match self.door.order(request).await {
            Err(error) => failed(&error),
            Ok(order) => {
                let name = self.door.look(|machine| machine.terms().name.clone()).await;
                self.ordered(parts, &order, &name.unwrap_or_default())
            }
        }
    }

    fn ordered(&self, parts: &Parts, order: &Order, name: &str) -> Reply {
        let wanted = |header: header::HeaderName, name: &str| {
            let value = parts.headers.get(header);
            value
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.contains(name))
        };
        // Old clients accept JSON in general and take the body for the address all the same.
        let json = parameter(parts, "format").as_deref() == Some("json")
            || wanted(header::ACCEPT, "application/vnd.machine.order+json");
        let mut reply = if json {
            let mut view = order.ordered(name);
            view["data"] = json!(order.data);
            json_reply(StatusCode::OK, &view)
        } else {
            let mut reply = Response::new(body(order.address.to_string()));
            reply.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            reply
        };
        for (name, value) in [
            ("location", format!("/orders/{}", order.id)),
            ("x-order-id", order.id.clone()),
            ("x-order-value", order.value.to_string()),
            ("x-order-public-key", order.public_key.to_string()),
            ("x-order-asset", self.asset.to_string()),
            ("x-order-expires", (order.expires.0 / 1000).to_string()),
        ] {
            let value = HeaderValue::from_str(&value).expect("made of plain characters");
            reply.headers_mut().insert(name, value);
        }
        reply
    }

    async fn orders(&self, parts: &Parts) -> Reply {
        let bad = |what: &str| refuse(StatusCode::BAD_REQUEST, what);
        let limit = match parameter(parts, "limit").map(|text| text.parse::<usize>()) {
            None => LIST_DEFAULT,
            Some(Ok(limit)) => limit.min(LIST_MAX),
            Some(Err(_)) => return bad("`limit` is a number of orders"),
        };
        let status = match parameter(parts, "status").map(|text| text.parse::<u8>()) {
            None => None,
            Some(Ok(status)) => Some(status),
            Some(Err(_)) => return bad("`status` is a number from 0 to 5"),
        };
        let before = parameter(parts, "before");
        let listed = self.door.look(move |machine| {
            let before = match &before {
                Some(id) => machine.order_by_id(id)?.number,
                None => u64::MAX,
            };
            let found = machine.list(before, status, limit, LIST_BYTES_MAX);
            Some(found.into_iter().map(Order::view).collect())
        });
        match listed.await {
            None => stopping(),
            Some(None) => bad("`before` is no order of this machine"),
            Some(Some(found)) => json_reply(StatusCode::OK, &Value::Array(found)),
        }
    }

    async fn order(&self, id: String) -> Reply {
        let found = self
            .door
            .look(move |machine| machine.order_by_id(&id).map(Order::view));
        match found.await {
            None => stopping(),
            Some(None) => refuse(StatusCode::NOT_FOUND, "there is no such order"),
            Some(Some(order)) => json_reply(StatusCode::OK, &order),
        }
    }

    /// A customer hands in the signed transaction that pays the order; the machine sends it on.
    async fn pay(&self, id: String, incoming: Incoming) -> Reply {
        let text = match read(incoming, PAYMENT_BYTES_MAX).await {
            Ok(text) => text,
            Err(reply) => return reply,
        };
        let key = {
            let id = id.clone();
            let found = self
                .door
                .look(move |machine| machine.order_by_id(&id).map(|order| order.public_key));
            match found.await {
                None => return stopping(),
                Some(None) => return refuse(StatusCode::NOT_FOUND, "there is no such order"),
                Some(Some(key)) => key,
            }
        };
        let payment = match ledger::announcement(&text, self.asset, &key) {
            Ok(payment) => payment,
            Err(reason) => {
                return failed(&OrderError::new(
                    Code::InvalidOrder,
                    format!("the payment is not sound: {reason}"),
                ));
            }
        };
        match self.door.announce(id, payment).await {
            Ok(order) => json_reply(StatusCode::ACCEPTED, &order.view()),
            Err(error) => failed(&error),
        }
    }

    /// Which ledger key an address stands for.
    async fn address(&self, address: String) -> Reply {
        let found = self.door.look(move |machine| {
            let address: crate::Address = address.parse().ok()?;
            let order = machine
                .orders()
                .rev()
                .find(|order| order.address == address)?;
            Some(json!({
                "address": order.address,
                "public_key": order.public_key.to_string(),
                "order_id": order.id,
                "value": order.value,
                "asset": machine.terms().asset.to_string(),
                "status": order.stage.number(),
            }))
        });
        match found.await {
            None => stopping(),
            Some(None) => refuse(StatusCode::NOT_FOUND, "there is no order with this address"),
            Some(Some(found)) => json_reply(StatusCode::OK, &found),
        }
    }

    async fn account(&self) -> Reply {
        let account = self.door.look(|machine| {
            let mut addresses = Vec::new();
            let mut inputs = Vec::new();
            let mut by_index = std::collections::BTreeMap::<u64, u64>::new();
            for (_, units, index) in machine.coins() {
                let sum = by_index.entry(index).or_default();
                *sum = sum.saturating_add(units);
            }
            for (index, balance) in by_index {
                let address = machine.address(index);
                inputs.push(json!({
                    "address": address,
                    "keyIndex": index,
                    "security": crate::SECURITY,
                    "balance": balance,
                    "public_key": machine.key(index).to_string(),
                }));
                addresses.push(address);
            }
            let mut transfers: Vec<String> = machine
                .orders()
                .rev()
                .take(LIST_DEFAULT)
                .flat_map(|order| &order.payments)
                .filter(|payment| payment.committed)
                .map(|payment| payment.transaction.to_string())
                .collect();
            transfers.reverse();
            json!({
                "addresses": addresses,
                "inputs": inputs,
                "transfers": transfers,
                "transactions": [],
                "latestAddress": machine.address(machine.index()),
                "latestPublicKey": machine.key(machine.index()).to_string(),
                "balance": machine.balance(),
            })
        });
        match account.await {
            None => stopping(),
            Some(account) => json_reply(StatusCode::OK, &account),
        }
    }

    async fn limits(&self) -> Reply {
        let limits = self.door.look(|machine| {
            let limits = &machine.terms().limits;
            json!({
                "per_hour": limits.per_hour,
                "spent_last_hour": machine.spent_last_hour(),
                "payees": limits.payees,
                "provider": machine.terms().provider,
                "provider_value_max": machine.terms().provider_value_max,
            })
        });
        match limits.await {
            None => stopping(),
            Some(limits) => json_reply(StatusCode::OK, &limits),
        }
    }

    async fn info(&self) -> Reply {
        let info = self.door.look(|machine| {
            let mut info = machine.greeting();
            let products = machine.terms().products.iter();
            info["products"] = products
                .map(|product| json!({"name": product.name, "value": product.value}))
                .collect();
            info
        });
        match info.await {
            None => stopping(),
            Some(info) => json_reply(StatusCode::OK, &info),
        }
    }

    async fn ready(&self) -> Reply {
        match self.door.look(|machine| machine.is_open()).await {
            Some(true) => json_reply(StatusCode::OK, &json!({"status": "ready"})),
            _ => refuse(StatusCode::SERVICE_UNAVAILABLE, "orders are not taken now"),
        }
    }
}

fn order_request(headers: &HeaderMap, text: &[u8]) -> Result<OrderRequest, OrderError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut request = if kind.starts_with("application/x-www-form-urlencoded") {
        let text = std::str::from_utf8(text)
            .map_err(|_| OrderError::new(Code::InvalidOrder, "the form is no text"))?;
        OrderRequest::from_form(text)?
    } else if text.trim_ascii().is_empty() {
        OrderRequest::empty()
    } else {
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            OrderError::new(Code::InvalidOrder, format!("the body is no JSON: {error}"))
        })?;
        OrderRequest::from_json(&value)?
    };
    if let Some(key) = headers.get("idempotency-key") {
        let key = key
            .to_str()
            .ok()
            .filter(|key| (1..=REPEAT_KEY_CHARS_MAX).contains(&key.len()));
        let key = key.ok_or_else(|| {
            OrderError::new(
                Code::InvalidOrder,
                "an Idempotency-Key has 1 to 128 plain characters",
            )
        })?;
        request.repeat_key = Some(key.to_owned());
    }
    Ok(request)
}

async fn read(incoming: Incoming, bytes_max: usize) -> Result<Bytes, Reply> {
    let collecting = time::timeout(BODY_TIMEOUT, Limited::new(incoming, bytes_max).collect());
    match collecting.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(failed(&OrderError::new(
                Code::PayloadTooLarge,
                format!("the body has more than {bytes_max} bytes"),
            )))
        }
        Ok(Err(_)) => Err(refuse(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(refuse(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

fn parameter(parts: &Parts, name: &str) -> Option<String> {
    let query = parts.uri.query()?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| value.to_owned())
    })
}
