//! A listener of a member's own, for a member that runs by itself.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    http::{Hosted, Peer, detail, json},
    json::object,
    member::stopped,
};

/// Connections at once: an organisation's programs and people.
const CONNECTIONS_MAX: usize = 4_096;
/// From a connection's first byte to the end of a request's head, and of a TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long accepting rests after it failed, which it does when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests under way may take when the listener stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Serves `hosted` on `socket` until `stop` is done.
pub async fn serve(
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    hosted: Arc<Hosted>,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tls = tls.map(TlsAcceptor::from);
    let (stopping, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(%address, "too many connections");
            continue;
        };
        // Answers are written when they are whole, so there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            address: address.ip(),
            secure: tls.is_some(),
        };
        let (tls, hosted, stopping) = (tls.clone(), hosted.clone(), stopping.subscribe());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => talk(stream, peer, hosted, stopping).await,
                Some(tls) => match time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => talk(stream, peer, hosted, stopping).await,
                    _ => tracing::debug!("no TLS"),
                },
            }
        });
    }
    stopping.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = time::timeout(STOP_WITHIN, ended).await;
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    hosted: Arc<Hosted>,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let hosted = hosted.clone();
        async move { Ok::<_, Infallible>(answer(&hosted, request, peer).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended: hyper::Result<()> = tokio::select! {
        ended = &mut serving => ended,
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn answer(
    hosted: &Arc<Hosted>,
    request: Request<Incoming>,
    peer: Peer,
) -> crate::http::Reply {
    match request.uri().path() {
        "/healthz" => json(StatusCode::OK, &object([("status", "ok".into())])),
        path if hosted.takes(path) => hosted.answer(request, peer).await,
        _ => {
            let mut reply = detail(StatusCode::NOT_FOUND, "Not found.");
            reply
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            reply
        }
    }
}

/// Reads a certificate chain and its key, both PEM.
///
/// # Errors
/// When they are no such thing, or do not fit each other.
pub fn tls_config(chain: &[u8], key: &[u8]) -> io::Result<Arc<ServerConfig>> {
    use tokio_rustls::rustls::{
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    let wrong = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
