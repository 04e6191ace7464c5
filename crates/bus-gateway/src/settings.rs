//! How the bus listens.

use std::{fmt, path::PathBuf, time::Duration};

use aws_lc_rs::{constant_time, digest};
use metrics_exporter_prometheus::PrometheusHandle;

/// What can be set beside the rules of the core.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rules.
    pub bus: daybook_bus::Settings,
    /// Open TCP connections; further ones are closed at once.
    pub connections_max: usize,
    /// Engine.IO sessions; those of polling clients hold no connection.
    pub sessions_max: usize,
    /// Messages in one connection's outbound queue (service bus, section 14).
    pub outbound_messages_max: usize,
    /// Bytes in one connection's outbound queue.
    pub outbound_bytes_max: usize,
    /// How often the server asks whether a client is there (Engine.IO 4), or is asked (Engine.IO 3).
    pub ping_interval: Duration,
    /// How long the answer may take.
    pub ping_timeout: Duration,
    /// How long a connection may take for a request's head, and be kept without one.
    pub header_timeout: Duration,
    /// How long a polling client may take to send a body.
    pub body_timeout: Duration,
    /// Host names, beside loopback names, by which a listener on loopback may be called.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may connect; `None` for all.
    pub allowed_origins: Option<Vec<String>>,
    /// What readers of everything but `/`, `/healthz` and `/readyz` must show.
    pub admin_token: Option<AdminToken>,
    /// Renders `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// The folder in which notes are kept, so that a repeated request has one effect over a restart
    /// too. `None` keeps them in memory.
    pub notes: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bus: daybook_bus::Settings::default(),
            connections_max: 4_096,
            sessions_max: 4_096,
            outbound_messages_max: 1_024,
            outbound_bytes_max: 8 << 20,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            allowed_origins: None,
            admin_token: None,
            metrics: None,
            notes: None,
        }
    }
}

/// A secret that readers of the HTTP pages must show. Only its digest is kept.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// The token `secret`.
    pub fn new(secret: &str) -> AdminToken {
        AdminToken(sha256(secret.as_bytes()))
    }

    pub(crate) fn accepts(&self, shown: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&sha256(shown), &self.0).is_ok()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
