//! A listener of a member's own, for a member that runs by itself.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{self, Instant, Sleep},
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
/// How long a client may take nothing of what it is sent, before its connection is closed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
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
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
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

/// A connection that waits for its reader, but not for ever: what a download holds is free again when its
/// reader is gone, whether or not it said so.
struct Patient<S> {
    stream: S,
    /// Armed while the other end takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S) -> Patient<S> {
        Patient {
            stream,
            stalled: None,
        }
    }

    fn wrote<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let since = || Box::pin(time::sleep_until(Instant::now() + STALL_TIMEOUT));
        let stalled = self.stalled.get_or_insert_with(since);
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.wrote(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.wrote(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(result, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(result, context)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_left_and_one_that_reads_a_little_is_not() {
        const ROOM: usize = 1_000;
        let (writing, mut reading) = tokio::io::duplex(ROOM);
        let mut writing = Patient::new(writing);
        let writer = tokio::spawn(async move {
            let sent = writing.write_all(&[7; 4 * ROOM]).await;
            (sent, Instant::now())
        });
        let mut little = [0; ROOM / 2];
        let mut last = Instant::now();
        for _ in 0..4 {
            time::sleep(STALL_TIMEOUT - Duration::from_secs(1)).await;
            reading.read_exact(&mut little).await.unwrap();
            last = Instant::now();
        }
        let (sent, ended) = writer.await.unwrap();
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(
            ended.duration_since(last).as_secs(),
            STALL_TIMEOUT.as_secs()
        );
    }
}
