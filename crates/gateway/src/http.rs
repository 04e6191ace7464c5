//! From a request to an answer: the route, the gate, the handler, and what every answer carries.

use std::{convert::Infallible, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    Route, assets,
    body::Body,
    connection::Connection,
    console, consortium, events, faucet, gate, machines,
    reply::{JSON, Refused, Reply, json, not_found, set_reason, unavailable, with_type},
    server::{Gateway, Phase, Serves},
    tracker,
};

/// The text format of Prometheus.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers one request.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    began: Instant,
) -> Result<Reply, Infallible> {
    let in_flight = connection.begin();
    let guest = match connection.endpoint.serves {
        Serves::Api => {
            let mut guests = gateway.settings.guests.iter();
            guests.find(|guest| guest.takes(request.uri().path()))
        }
        Serves::Streams => None,
    };
    if let Some(guest) = guest.cloned() {
        let head = (request.method(), request.headers());
        let checked = gate::check(&gateway, &connection, None, head.0, head.1, began);
        let secure = connection.endpoint.is_secure();
        let mut reply = match checked {
            Err(Refused(reply)) => *reply,
            Ok(()) => {
                let answered = guest.answer(request, connection.peer, secure).await;
                answered.map(Body::of_guest)
            }
        };
        gateway.meters.guest(reply.status(), began.elapsed());
        let body = reply.body_mut();
        body.in_flight = Some(in_flight);
        body.meters = Some(gateway.meters.clone());
        return Ok(reply);
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let found = Route::find(request.uri().path())
        .filter(|(route, _)| connection.endpoint.serves == Serves::Api || route.streams());
    let route = found.map(|(route, _)| match route {
        Route::Root if gateway.tracker.is_some() && tracker::is_wanted(&request) => Route::Tracker,
        route => route,
    });
    let method = request.method();
    let checked = gate::check(
        &gateway,
        &connection,
        route,
        method,
        request.headers(),
        began,
    );
    let mut reply = match (checked, route) {
        (Err(Refused(reply)), _) => *reply,
        (Ok(()), None) => not_found(),
        (Ok(()), Some(route)) if !route.takes(method) => {
            let mut reply = json(
                StatusCode::METHOD_NOT_ALLOWED,
                daybook_wire::assets::METHOD_NOT_ALLOWED,
            );
            reply.headers_mut().insert(header::ALLOW, route.allow());
            reply
        }
        (Ok(()), Some(route)) if *method == Method::OPTIONS => {
            let mut reply = with_type(StatusCode::OK, JSON, Body::default());
            gate::preflight(route, request.headers(), &mut reply);
            reply
        }
        (Ok(()), Some(route)) => handle(&gateway, &connection, route, request).await,
    };
    gate::allow_origin(&gateway.settings.allowed_origins, route, origin, &mut reply);
    set_reason(&mut reply);
    gateway
        .meters
        .request(route, reply.status(), began.elapsed());
    let body = reply.body_mut();
    body.in_flight = Some(in_flight);
    body.meters = Some(gateway.meters.clone());
    Ok(reply)
}

async fn handle(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    route: Route,
    request: Request<Incoming>,
) -> Reply {
    match route {
        Route::Healthz => json(StatusCode::OK, &b"{\"status\": \"ok\"}"[..]),
        Route::Readyz if gateway.node.is_ready() && *gateway.phase.borrow() == Phase::Serving => {
            json(StatusCode::OK, &b"{\"status\": \"ready\"}"[..])
        }
        Route::Readyz => unavailable("The node takes no transactions"),
        Route::Metrics => match &gateway.settings.metrics {
            Some(metrics) => with_type(
                StatusCode::OK,
                METRICS_TYPE,
                Body::whole(metrics.render().into()),
            ),
            None => not_found(),
        },
        route if route.is_console() => console::handle(gateway, connection, route, request).await,
        Route::OpenApi => json(StatusCode::OK, crate::OPENAPI.as_bytes()),
        Route::Events => {
            events::subscribe(gateway, connection, request).unwrap_or_else(|Refused(reply)| *reply)
        }
        Route::Faucet => {
            let query = request.uri().query().unwrap_or_default();
            faucet::answer(gateway, request.method(), query).await
        }
        Route::Machines => machines::answer(gateway, connection, request)
            .await
            .unwrap_or_else(|Refused(reply)| *reply),
        Route::Tracker | Route::TrackerSocket => match &gateway.tracker {
            Some(tracker) => tracker::open(gateway, tracker, connection, request)
                .unwrap_or_else(|Refused(reply)| *reply),
            None => not_found(),
        },
        Route::TrackerInfo => match &gateway.tracker {
            Some(tracker) => tracker::info(gateway, tracker),
            None => not_found(),
        },
        route if route.is_consortium() => {
            consortium::handle(gateway, connection, route, request).await
        }
        route => assets::handle(gateway, connection, route, request).await,
    }
}
