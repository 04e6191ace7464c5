//! Small HTTP requests: to a provider, to a work hook, and from a customer to a machine.

use std::{fmt, io, path::Path, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// How long a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An address on the web: `http://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
}

/// The text is no address on the web.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of the form http://host:port")]
pub struct NotAUrl(String);

/// Makes requests.
#[derive(Clone)]
pub struct Web {
    tls: TlsConnector,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// No connection; nothing was sent.
    #[error("cannot reach {0}: {1}")]
    Unreachable(String, String),
    /// The connection broke, or the answer is none; something may have been done.
    #[error("no answer from {0}: {1}")]
    Broken(String, String),
    /// It took too long.
    #[error("no answer from {0} in time")]
    Late(String),
    /// The certificates to trust cannot be used.
    #[error("certificates to trust: {0}")]
    Trust(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl FromStr for Url {
    type Err = NotAUrl;
    fn from_str(text: &str) -> Result<Url, NotAUrl> {
        let wrong = || NotAUrl(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Url {
            secure,
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Url {
    /// What lies below it.
    #[must_use]
    pub fn join(&self, path: &str) -> Url {
        Url {
            path: format!("{}{path}", self.path),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl Web {
    /// Trusts Mozilla's roots, or only the certificates of `ca_file`.
    ///
    /// # Errors
    /// [`WebError::Trust`] when the file cannot be used.
    pub fn new(ca_file: Option<&Path>) -> Result<Web, WebError> {
        let wrong = |error: &dyn fmt::Display| WebError::Trust(error.to_string());
        let mut roots = RootCertStore::empty();
        match ca_file {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
                    let certificate = certificate.map_err(|e| wrong(&e))?;
                    roots.add(certificate).map_err(|e| wrong(&e))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"no certificate in the file"));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Web {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Makes one request on a connection of its own. Redirections are not followed: money goes where
    /// the configuration says.
    ///
    /// # Errors
    /// [`WebError`]; any answer at all is none.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Answer, WebError> {
        let about = url.to_string();
        let exchange = self.exchange(method, url, headers, body.into());
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(WebError::Late(about)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, WebError> {
        let about = url.to_string();
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(url));
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| WebError::Unreachable(about.clone(), error.to_string()))?;
        let broken = |error: &dyn fmt::Display| WebError::Broken(about.clone(), error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        let driving = tokio::spawn(connection);
        let path = if url.path.is_empty() { "/" } else { &url.path };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|e| broken(&e))?;
        let host = HeaderValue::from_str(&format!("{}:{}", url.host, url.port));
        let fields = request.headers_mut();
        fields.insert(header::HOST, host.map_err(|e| broken(&e))?);
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|e| broken(&e))?;
            fields.insert(HeaderName::from_static(name), value);
        }
        let answered = async {
            let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(|e| broken(&e))?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        let answer = answered.await;
        driving.abort();
        answer
    }

    async fn connect(&self, url: &Url) -> io::Result<Box<dyn Stream>> {
        let host = url.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, url.port)).await?;
        stream.set_nodelay(true)?;
        if !url.secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

/// A connection, plain or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_scheme_and_host() {
        for (text, written) in [
            ("http://energy-1:3002", "http://energy-1:3002"),
            ("http://energy-1:3002/", "http://energy-1:3002"),
            (
                "https://example.org/robot/",
                "https://example.org:443/robot",
            ),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), written);
        }
        for text in [
            "",
            "energy-1",
            "energy-1:3002",
            "/orders",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x/?q=1",
        ] {
            text.parse::<Url>().unwrap_err();
        }
    }
}
