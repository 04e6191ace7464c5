//! A person's word about what waits for one.

use daybook_ledger::{TransactionId, json::Value};
use http::StatusCode;
use hyper::body::Incoming;

use super::{
    Asks, Known, Refused, Reply,
    answers::{broken, detail, json, not_found},
    forms::{form, small},
};
use crate::{
    endorser::{self, Choice, NotAsked},
    json::object,
};

impl Asks<'_> {
    /// A person's word about a proposal.
    pub(super) async fn decide(
        &self,
        known: Known,
        id: &str,
        what: &str,
        body: Incoming,
    ) -> Result<Reply, Refused> {
        if !known.caller.admin {
            return Err(Box::new(detail(
                StatusCode::FORBIDDEN,
                "Only a user who may decide for the member can do this.",
            )));
        }
        let id: TransactionId = id.parse().map_err(|_| not_found())?;
        let body = small(body).await?;
        let choice = match what {
            "endorse" => Choice::Endorse,
            _ => {
                let fields = form(&self.parts.headers, &body);
                let reason = fields.get("reason").and_then(Value::as_str).unwrap_or("");
                if reason.trim().is_empty() {
                    return Err(Box::new(detail(
                        StatusCode::BAD_REQUEST,
                        "\"reason\" is missing: the proposer's user reads it.",
                    )));
                }
                Choice::Refuse(reason.trim().to_owned())
            }
        };
        tracing::info!(proposal = %id, user = known.caller.name, what, "a person decides");
        match endorser::decide_by_hand(&known.shared, id, choice.clone()).await {
            Ok(stands) => {
                let (word, reason) = match &stands {
                    Choice::Endorse => ("endorsed", Value::Null),
                    Choice::Refuse(reason) => ("refused", reason.as_str().into()),
                };
                let status = match stands == choice {
                    true => StatusCode::OK,
                    // It was decided before, or is not sound.
                    false => StatusCode::CONFLICT,
                };
                let answer = object([("decision", word.into()), ("reason", reason)]);
                Ok(json(status, &answer))
            }
            Err(NotAsked::Unknown) => Err(not_found()),
            Err(NotAsked::Otherwise) => Err(Box::new(detail(
                StatusCode::CONFLICT,
                endorser::OTHER_OUTCOME,
            ))),
            Err(NotAsked::Disk(error)) => Err(broken(error)),
        }
    }
}
