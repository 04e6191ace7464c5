//! Whether the members answer (section 6.3).

use http::StatusCode;
use http::header;

use super::{
    Asks, Refused, Reply,
    accounts::cookie,
    answers::{json, not_found},
};
use crate::{health, json::object};

impl Asks<'_> {
    pub(super) async fn health(&self) -> Result<Reply, Refused> {
        // Users may know who is missing; a probe learns only that somebody is.
        let known = match self.parts.headers.contains_key(header::AUTHORIZATION)
            || cookie(&self.parts.headers, "sessionid").is_some()
        {
            true => Some(self.known().await?),
            false => None,
        };
        let shared = match &known {
            Some(known) => known.shared.clone(),
            None => match self.hosted.members().first() {
                Some(member) => member.shared().clone(),
                None => return Err(not_found()),
            },
        };
        if let Some(why) = shared.broken() {
            let answer = object([
                ("success", false.into()),
                ("ping_id", "".into()),
                (
                    "message",
                    format!("this member no longer follows the log: {why}").into(),
                ),
            ]);
            return Ok(json(StatusCode::SERVICE_UNAVAILABLE, &answer));
        }
        let outcome = health::check(&shared).await;
        let status = match outcome.is_success() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        Ok(json(status, &outcome.to_value(&shared, known.is_some())))
    }
}
