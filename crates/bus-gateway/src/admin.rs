//! What an operator sees over HTTP (service bus, section 9).

use std::sync::Arc;

use bytes::Bytes;
use daybook_bus::{Bus, Event};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Map, Value, json};

use crate::{hub::Hub, meters};

pub(crate) fn answer<B>(hub: &Arc<Hub>, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    match path {
        "/" if read => return say(StatusCode::OK, &json!({"result": {"id": "eman"}})),
        "/healthz" if read => return say(StatusCode::OK, &json!({"status": "ok"})),
        "/readyz" if read => return say(StatusCode::OK, &json!({"status": "ready"})),
        _ => {}
    }
    if let Some(token) = &hub.settings.admin_token {
        let shown = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !shown.is_some_and(|shown| token.accepts(shown)) {
            let mut refusal = error(StatusCode::UNAUTHORIZED, "unauthorized");
            let challenge = header::HeaderValue::from_static("Bearer realm=\"daybook\"");
            refusal
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            return refusal;
        }
    }
    let segments: Vec<String> = path
        .trim_start_matches('/')
        .split('/')
        .map(unescaped)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (read, segments.as_slice()) {
        (true, ["services"]) => {
            let all = hub.look(Bus::services);
            let result: Map<String, Value> = all.into_iter().map(|s| (s.id, s.json)).collect();
            say(StatusCode::OK, &json!({"result": result}))
        }
        (true, ["services", id]) => {
            let found = hub.look(Bus::services).into_iter().find(|s| s.id == *id);
            match found {
                Some(service) => say(StatusCode::OK, &json!({"result": service.json})),
                None => error(StatusCode::NOT_FOUND, "not_found"),
            }
        }
        (true, ["subjects"]) => {
            let all = hub.look(Bus::subjects);
            let result: Map<String, Value> = all.into_iter().map(|s| (s.name, s.json)).collect();
            say(StatusCode::OK, &json!({"result": result}))
        }
        (true, ["dead", name]) => {
            let letters = hub.look(|bus| bus.dead(name));
            let list: Vec<String> = letters.into_iter().map(|letter| letter.json).collect();
            text(
                StatusCode::OK,
                "application/json",
                format!("{{\"result\":[{}]}}", list.join(",")),
            )
        }
        (true, ["metrics"]) => match &hub.settings.metrics {
            None => error(StatusCode::NOT_FOUND, "not_found"),
            Some(metrics) => {
                hub.look(meters::publish);
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                text(StatusCode::OK, kind, metrics.render())
            }
        },
        (false, ["dead", name, "replay"]) if request.method() == Method::POST => {
            let before = hub.look(|bus| bus.dead(name).len());
            hub.handle(Event::Replay { name });
            let left = hub.look(|bus| bus.dead(name).len());
            let replayed = before.saturating_sub(left);
            say(
                StatusCode::OK,
                &json!({"result": {"replayed": replayed, "left": left}}),
            )
        }
        (false, ["services" | "subjects" | "metrics", ..] | ["dead", _] | [""]) => {
            error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
        }
        _ => error(StatusCode::NOT_FOUND, "not_found"),
    }
}

pub(crate) fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let message = status.canonical_reason().unwrap_or_default();
    let body = json!({"error": {"message": message, "code": code, "status": status.as_u16()}});
    say(status, &body)
}

fn say(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    text(status, "application/json", body.to_string())
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A path segment without its percent signs. What is no UTF-8 then is nobody's name.
fn unescaped(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        match (first, after) {
            (b'%', [a, b, tail @ ..]) if hex(a).is_some() && hex(b).is_some() => {
                let value = hex(a).unwrap_or(0) * 16 + hex(b).unwrap_or(0);
                bytes.push(u8::try_from(value).unwrap_or(0));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
