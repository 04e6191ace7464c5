//! A guest: paths on the main listener that another part of the program answers. The gateway looks
//! after the connection, the host's name and the rate; who may ask what is the guest's own affair.

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

/// An answer under way.
pub type GuestAnswer<'a> =
    Pin<Box<dyn Future<Output = Response<UnsyncBoxBody<Bytes, io::Error>>> + Send + 'a>>;

/// What answers some paths of its own.
pub trait Guest: Send + Sync + fmt::Debug {
    /// Whether a path is the guest's.
    fn takes(&self, path: &str) -> bool;

    /// Answers a request from this address; `secure` tells whether the connection is encrypted.
    fn answer(&self, request: Request<Incoming>, peer: IpAddr, secure: bool) -> GuestAnswer<'_>;
}
