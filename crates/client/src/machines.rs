//! Machines that use a node tell it that they are there, so that its console shows them.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{Client, Error};

impl Client {
    /// Tells the node that a machine is there: under which name, in which role, and at which address
    /// browsers reach it. The node forgets it after about half a minute unless it is told again.
    ///
    /// # Errors
    /// What stands between client and node; and a refusal, by a node that keeps no machines or that
    /// does not know who asks.
    pub async fn announce_machine(&self, name: &str, role: &str, url: &str) -> Result<(), Error> {
        const PATH: &str = "/api/v1/machines";
        let body = json!({"name": name, "role": role, "url": url}).to_string();
        let answer = self.http.send(Method::POST, PATH, body.into()).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            _ => Err(answer.error(PATH)),
        }
    }
}
