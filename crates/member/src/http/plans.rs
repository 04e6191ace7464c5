//! Plan documents out of a form (section 1.7).

use daybook_ledger::json::{Object, Value};
use http::StatusCode;
use hyper::body::Incoming;

use super::{
    Asks, Known, Refused, Reply,
    answers::json,
    forms::{form, small},
};
use crate::{
    disk::PlanKind,
    json::{object, text},
    message, operation,
};

impl Asks<'_> {
    /// Sends a plan document out of a form (section 1.7).
    pub(super) async fn create_plan(
        &self,
        known: Known,
        kind: PlanKind,
        body: Incoming,
    ) -> Result<Reply, Refused> {
        let body = small(body).await?;
        let fields = form(&self.parts.headers, &body);
        let said = |errors: Option<Object>| {
            let success = errors.is_none();
            let errors = errors.map_or(Value::Null, Value::Object);
            let answer = object([("success", success.into()), ("errors", errors)]);
            Ok(json(StatusCode::OK, &answer))
        };
        let message = match message::plan_of_form(&fields) {
            Ok(message) => message,
            Err(errors) => return said(Some(errors)),
        };
        let began = operation::begin(&known.shared, message.asking(kind), &known.caller.name);
        let operation = match began.await {
            Ok(operation) => operation,
            Err(fault) => {
                return said(Some(Object::from_iter([("form", fault.explain)])));
            }
        };
        let mut at = 0;
        loop {
            let (happened, next) = operation.event(at).await;
            at = next;
            if happened.last && operation::is_success(&happened.event) {
                return said(None);
            }
            if happened.last {
                let explain = text(&happened.event, "explain");
                return said(Some(Object::from_iter([("form", explain)])));
            }
        }
    }
}
