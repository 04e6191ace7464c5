//! TLS from PEM texts.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Why a certificate and a key make no TLS listener. Never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file holds no certificate, or something that is none.
    #[error("the certificate file: {0}")]
    Certificate(rustls_pki_types::pem::Error),
    /// The certificate file is empty.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// The key file holds no private key.
    #[error("the key file: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// Certificate and key do not fit each other, or are of an unsupported kind.
    #[error("certificate and key: {0}")]
    Unusable(rustls::Error),
}

/// A TLS configuration (1.2 and 1.3, HTTP/1.1 only) from the contents of two PEM files: the certificate
/// chain, the server's own first, and its private key.
///
/// # Errors
/// [`TlsError`] when they cannot be used.
pub fn tls_config(certificates: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
