//! Requests over HTTP/1.1 with kept-alive connections.

use std::{convert::Infallible, time::Duration};

use bytes::{Buf, Bytes};
use daybook_ledger::{Height, Position};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{Endpoint, Error, Refusal, Token, transport::Connector};

/// Bytes of one answer that are read at most: a whole history of an asset fits, an endless body does
/// not fill the memory.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Idle connections kept per node.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept: shorter than the node's own limit, so that the client, not
/// the node, closes it and no request runs into a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// The HTTP side of a client.
#[derive(Clone)]
pub(crate) struct Http {
    client: legacy::Client<Connector, Body>,
    endpoint: Endpoint,
    token: Option<Token>,
    timeout: Duration,
}

/// A whole answer.
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) fn new(
        connector: Connector,
        endpoint: Endpoint,
        token: Option<Token>,
        timeout: Duration,
    ) -> Http {
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Http {
            client,
            endpoint,
            token,
            timeout,
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Body,
    ) -> Result<Request<Body>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.endpoint.url(path_and_query))
            .header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        request
            .body(body)
            .map_err(|e| Error::Configuration(format!("{path_and_query}: {e}")))
    }

    /// Sends a request and reads the whole answer, whatever its status.
    pub(crate) async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> Result<Whole, Error> {
        let mut request = self.request(method, path_and_query, Either::Left(Full::new(body)))?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.exchange(request).await
    }

    /// Asks with a header that says who asks, which no log shows; reads the whole answer, whatever its status.
    pub(crate) async fn ask_as(
        &self,
        path_and_query: &str,
        name: &'static str,
        mut shown: HeaderValue,
    ) -> Result<Whole, Error> {
        let body = Either::Left(Full::new(Bytes::new()));
        let mut request = self.request(Method::GET, path_and_query, body)?;
        shown.set_sensitive(true);
        request.headers_mut().insert(name, shown);
        self.exchange(request).await
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Whole, Error> {
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|e| self.failed(&e))?;
            self.whole(response).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => {
                Err(self.broken(format!("no answer within {} s", self.timeout.as_secs_f32())))
            }
        }
    }

    /// Asks and wants a 200; `None` for a 404.
    pub(crate) async fn find(&self, path_and_query: &str) -> Result<Option<Bytes>, Error> {
        let answer = self.send(Method::GET, path_and_query, Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.error(path_and_query)),
        }
    }

    /// Asks for JSON and wants a 200.
    pub(crate) async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        path_and_query: &str,
    ) -> Result<T, Error> {
        let answer = self.send(Method::GET, path_and_query, Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.error(path_and_query));
        }
        json(&answer.body)
    }

    /// Opens a request whose body is written while the answer is read. Pieces put into the returned
    /// sender go out in order; dropping it ends the body.
    pub(crate) async fn open(
        &self,
        path_and_query: &str,
        content_type: &'static str,
        pieces_max: usize,
    ) -> Result<(mpsc::Sender<Bytes>, Response<Incoming>), Error> {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(pieces_max);
        let body = stream::poll_fn(move |cx| {
            waiting
                .poll_recv(cx)
                .map(|piece| piece.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
        });
        let body = Either::Right(UnsyncBoxBody::new(StreamBody::new(body)));
        let mut request = self.request(Method::POST, path_and_query, body)?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static(content_type),
        );
        let response = match tokio::time::timeout(self.timeout, self.client.request(request)).await
        {
            Ok(response) => response.map_err(|e| self.failed(&e))?,
            Err(_) => return Err(self.broken("no answer to an opened upload")),
        };
        if response.status() == StatusCode::OK || response.status() == StatusCode::ACCEPTED {
            return Ok((pieces, response));
        }
        Err(self.whole(response).await?.error(path_and_query))
    }

    /// Reads the whole answer.
    async fn whole(&self, response: Response<Incoming>) -> Result<Whole, Error> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| self.broken(e))?
            .to_bytes();
        Ok(Whole {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    fn failed(&self, error: &legacy::Error) -> Error {
        if error.is_connect() {
            return Error::no_connection(&self.endpoint, error);
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        self.broken(cause)
    }

    pub(crate) fn broken(&self, reason: impl ToString) -> Error {
        Error::Broken {
            endpoint: self.endpoint.to_string(),
            reason: reason.to_string(),
        }
    }
}

impl Whole {
    /// The place that the answer to a commit tells (`Daybook-Position: height.index`); `None` of a server
    /// that does not tell it.
    pub(crate) fn position(&self) -> Result<Option<Position>, Error> {
        let Some(told) = self.headers.get("daybook-position") else {
            return Ok(None);
        };
        let read = || {
            let (height, index) = told.to_str().ok()?.split_once('.')?;
            Some(Position {
                height: Height(height.parse().ok()?),
                index: index.parse().ok()?,
            })
        };
        match read() {
            Some(position) => Ok(Some(position)),
            None => Err(Error::protocol("a place that is not `height.index`")),
        }
    }

    /// The error that an answer other than the wanted one stands for.
    pub(crate) fn error(&self, about: &str) -> Error {
        let refusal = self.refusal();
        match self.status {
            StatusCode::NOT_FOUND => Error::NotFound(about.to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Unauthorised(refusal.message)
            }
            // A body that did not come in time was not read: the same one may come in time again.
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT => Error::Busy {
                message: refusal.message,
                retry_after: self
                    .headers
                    .get(header::RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map(Duration::from_secs),
            },
            status if status.is_client_error() => Error::Refused(refusal),
            status if status.is_server_error() => Error::Node {
                status: status.as_u16(),
                message: refusal.message,
            },
            status => Error::Protocol(format!("status {status} for {about}")),
        }
    }

    /// Reads an error body of either shape (asset ledger, section 3.2).
    pub(crate) fn refusal(&self) -> Refusal {
        #[derive(Deserialize)]
        struct ErrorBody {
            message: serde_json::Value,
            class: Option<String>,
        }
        let (message, class) = match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(body) => {
                let message = match body.message {
                    serde_json::Value::String(text) => text,
                    serde_json::Value::Object(parameters) => parameters
                        .iter()
                        .map(|(name, text)| {
                            format!("{name}: {}", text.as_str().unwrap_or_default())
                        })
                        .collect::<Vec<_>>()
                        .join("; "),
                    other => other.to_string(),
                };
                (message, body.class)
            }
            Err(_) => (self.status.to_string(), None),
        };
        let class = class.or_else(|| class_of(&message));
        Refusal {
            status: self.status.as_u16(),
            class,
            message,
        }
    }
}

/// The class that a refusal's text names (asset ledger, section 6).
pub(crate) fn class_of(message: &str) -> Option<String> {
    if message.starts_with("Invalid transaction schema") {
        return Some("SchemaValidationError".to_owned());
    }
    let rest = message.strip_prefix("Invalid transaction (")?;
    rest.split_once(')').map(|(class, _)| class.to_owned())
}

pub(crate) fn json<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(body.chunk()).map_err(|e| Error::Protocol(format!("JSON answer: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn whole(status: u16, body: &'static str) -> Whole {
        Whole {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn the_place_of_a_commit_is_read_from_its_header() {
        let told = |text: &'static str| {
            let mut answer = whole(202, "{}");
            answer
                .headers
                .insert("daybook-position", http::HeaderValue::from_static(text));
            answer.position()
        };
        assert!(matches!(whole(202, "{}").position(), Ok(None)));
        let place = Position {
            height: Height(7),
            index: 12,
        };
        assert_eq!(told("7.12").unwrap(), Some(place));
        for text in [
            "",
            "7",
            "7.",
            ".1",
            "7.-1",
            "7.12.3",
            "18446744073709551616.0",
        ] {
            assert!(matches!(told(text), Err(Error::Protocol(_))), "{text}");
        }
    }

    #[test]
    fn what_may_pass_a_little_later_is_no_refusal() {
        for status in [408, 429, 503] {
            let error = whole(status, r#"{"message": "not now"}"#).error("x");
            assert!(matches!(error, Error::Busy { .. }), "{status}: {error:?}");
            assert!(error.is_transient());
        }
    }

    #[test]
    fn the_class_of_a_refusal_is_read_from_its_text() {
        let body = r#"{"message": "Invalid transaction (DoubleSpend): input `x` was already spent", "status": 400}"#;
        let Error::Refused(refusal) = whole(400, body).error("x") else {
            panic!("another error")
        };
        assert_eq!(refusal.class.as_deref(), Some("DoubleSpend"));
        assert_eq!(refusal.status, 400);
    }

    #[test]
    fn a_parameter_error_names_its_parameter() {
        let body = r#"{"message": {"mode": "Mode must be …"}}"#;
        let Error::Refused(refusal) = whole(400, body).error("x") else {
            panic!("another error")
        };
        assert_eq!(
            (refusal.class, refusal.message.as_str()),
            (None, "mode: Mode must be …")
        );
    }

    #[test]
    fn every_status_has_its_error() {
        assert!(matches!(whole(404, "{}").error("x"), Error::NotFound(_)));
        assert!(matches!(
            whole(401, "{}").error("x"),
            Error::Unauthorised(_)
        ));
        assert!(matches!(whole(503, "").error("x"), Error::Busy { .. }));
        assert!(matches!(whole(429, "").error("x"), Error::Busy { .. }));
        assert!(matches!(
            whole(500, "<html>").error("x"),
            Error::Node { status: 500, .. }
        ));
        assert!(matches!(whole(302, "").error("x"), Error::Protocol(_)));
    }
}
