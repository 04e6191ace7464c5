//! The node that a command talks to.

use daybook_client::{Client, ClientBuilder, Endpoint, Token};

use crate::{
    cli::{NodeFlags, Trust},
    failure::Failure,
};

/// A client as the flags describe it.
pub(crate) fn client(flags: &NodeFlags) -> Result<Client, Failure> {
    Ok(builder(&flags.url, &flags.trust)?
        .timeout(flags.timeout)
        .settle_within(flags.timeout)
        .build()?)
}

/// The beginnings of a client of the node at `url`.
pub(crate) fn builder(url: &Endpoint, trust: &Trust) -> Result<ClientBuilder, Failure> {
    let mut builder = Client::builder(url.clone());
    if let Some(token) = token(trust)? {
        builder = builder.token(token);
    }
    if let Some(path) = &trust.authorities.ca_file {
        builder = builder.ca_file(path);
    }
    Ok(builder)
}

/// The token for writes, if there is one. A variable that is set to nothing names no file.
pub(crate) fn token(trust: &Trust) -> Result<Option<Token>, Failure> {
    let file = trust.token_file.as_ref();
    let named = file.filter(|path| !path.as_os_str().is_empty());
    Ok(named.map(|path| Token::from_file(path)).transpose()?)
}
