//! Answers, and the other ends that a call can have (service bus, sections 5.3 to 5.6 and 10).

use std::sync::Arc;

use serde_json::json;

use crate::{
    CallId, Code, ConnId, Effect, Fault, Frame, Moment, Note,
    bus::{Bus, Call, InstanceNo, Timer},
    message::{Reply, Response, extended, quoted, spliced},
    packet::packet_text,
    remember::{Done, Known},
    request::Job,
};

/// The part of the memory for answers that is made free at once when it is full.
const FORGET_PARTS: usize = 64;

impl Bus {
    pub(crate) fn response(&mut self, conn: ConnId, argument: Option<&str>, ack: Option<u64>) {
        self.counters.responses += 1;
        match self.try_response(conn, argument, ack) {
            Ok(()) => self.acknowledge_when_noted(conn, ack, json!({"ok": true})),
            Err(fault) => self.refuse(conn, "api:response", fault, ack),
        }
    }

    fn try_response(
        &mut self,
        conn: ConnId,
        argument: Option<&str>,
        ack: Option<u64>,
    ) -> Result<(), Fault> {
        let no = self.online(conn)?;
        let response = Response::read(argument)?;
        let about = |fault: Fault| fault.about(Some(&response.request_id), Some(&response.name));
        self.room_for_acknowledgement(conn, ack).map_err(about)?;
        let body = argument.unwrap_or_default().trim();
        let fault = |code: Code| about(Fault::new(code));
        let own = self.instances[&no].id.clone();
        let forged = *response.recipient_id != *own;
        if forged && self.settings.strict {
            return Err(fault(Code::InvalidSender));
        }
        let unknown = || match self.settings.strict {
            true => Err(fault(Code::UnknownRequest)),
            false => Ok(()),
        };
        let Some(requester) = self.by_id.get(&*response.sender_id).copied() else {
            self.counters.orphans += 1;
            return unknown();
        };
        let known = self
            .instances
            .get(&requester)
            .and_then(|instance| instance.memory.get(&response.request_id));
        let id = match known {
            Some(Known::Open(id)) => *id,
            Some(Known::Done(done)) => {
                let quiet = done.quiet;
                self.counters.late += 1;
                return match quiet {
                    true => Ok(()),
                    false => unknown(),
                };
            }
            Some(Known::Storing(..)) | None => return unknown(),
        };
        let Some(call) = self.calls.get_mut(&id.0) else {
            return unknown();
        };
        if *call.name != *response.name {
            return unknown();
        }
        let Some(place) = call.open.iter().position(|open| open.instance == no) else {
            if call.answered.contains(&no) {
                self.counters.late += 1;
                return Ok(());
            }
            return Err(fault(Code::NotARecipient));
        };
        let corrected;
        let body = if forged {
            corrected = spliced(body, response.recipient_json, &quoted(&own));
            &corrected
        } else {
            body
        };
        let failed = response.failed;
        self.answered(id, place, body, failed);
        Ok(())
    }

    /// The answer of the delivery at `place` has come.
    fn answered(&mut self, id: CallId, place: usize, body: &str, failed: bool) {
        let Some(call) = self.calls.get_mut(&id.0) else {
            return;
        };
        let open = call.open.swap_remove(place);
        call.answered.push(open.instance);
        call.received += 1;
        let (reply, index, requester) = (call.reply, call.received - 1, call.requester);
        if reply == Reply::All {
            let body = extended(body, &format!("\"reply_index\":{index}"));
            self.send_to(requester, packet_text("\"api:response\"", Some(&body)));
            self.release(id, open.instance, open.queue, open.counted);
            self.end_if_hopeless(id);
            return;
        }
        let frame = packet_text("\"api:response\"", Some(body));
        let outcome = if failed { "error" } else { "answer" };
        self.finish(id, Some(frame), outcome);
        self.release(id, open.instance, open.queue, open.counted);
    }

    pub(crate) fn local_answer(&mut self, id: CallId, result: Result<String, String>) {
        let (Some(call), Some(local)) = (self.calls.get(&id.0), self.local) else {
            // It was too late. The place is free again since the deadline.
            return;
        };
        let Some(place) = call.open.iter().position(|open| open.instance == local) else {
            return;
        };
        let sender = self.instances.get(&call.requester).map(|i| i.id.clone());
        let (member, value, failed) = match &result {
            Ok(data) => ("data", data, false),
            Err(error) => ("error", error, true),
        };
        let body = format!(
            "{{\"name\":{},\"request_id\":{},\"sender_id\":{},\"recipient_id\":{},\"{member}\":{value}}}",
            quoted(&call.name),
            quoted(&call.request_id),
            quoted(sender.as_deref().unwrap_or_default()),
            quoted(&self.instances[&local].id),
        );
        self.answered(id, place, &body, failed);
    }

    /// An instance has one unanswered delivery less.
    pub(crate) fn release(
        &mut self,
        id: CallId,
        no: InstanceNo,
        queue: Option<Arc<str>>,
        counted: bool,
    ) {
        if !counted {
            return;
        }
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        if !instance.assigned.remove(&id.0) {
            // Its connection went, and with it all that was counted.
            return;
        }
        instance.in_flight = instance.in_flight.saturating_sub(1);
        if let Some(queue) = &queue
            && let Some(used) = instance.queues.get_mut(queue)
        {
            used.in_flight = used.in_flight.saturating_sub(1);
        }
        if instance.in_flight + 1 == instance.in_flight_max {
            // It was at its limit, which counts for all its groups.
            self.capacity_returned(no);
        } else if let Some(queue) = queue {
            self.serve_line(&queue);
        }
    }

    /// An instance went away before it answered (section 10).
    pub(crate) fn lost(&mut self, id: CallId, no: InstanceNo) {
        let Some(mut call) = self.calls.remove(&id.0) else {
            return;
        };
        let mut lost = Vec::new();
        let mut place = 0;
        while place < call.open.len() {
            if call.open[place].instance == no {
                lost.push(call.open.swap_remove(place));
            } else {
                place += 1;
            }
        }
        if call.retry {
            for open in lost.into_iter().filter(|open| open.counted) {
                self.deliver_again(id, &mut call, open.queue, no);
            }
        }
        self.calls.insert(id.0, call);
        self.end_if_hopeless(id);
    }

    /// Finds another receiver for a call that its caller says may be delivered twice.
    fn deliver_again(
        &mut self,
        id: CallId,
        call: &mut Call,
        queue: Option<Arc<str>>,
        not: InstanceNo,
    ) {
        let route = self.index.route(&call.name);
        let group = match &queue {
            Some(queue) => route.groups.iter().find(|(other, _)| other == queue),
            None => None,
        };
        let Some((queue, members)) = group else {
            // With `one`, a plain subscriber may take over from any other receiver.
            if call.one {
                let other = route.plain.iter().copied().find(|no| *no != not);
                if let Some(no) = other {
                    self.counters.redeliveries += 1;
                    self.assign(id, call, no, None);
                }
            }
            return;
        };
        self.counters.redeliveries += 1;
        match self.pick(queue, members, call.sticky, Some(not)) {
            Some(no) => self.assign(id, call, no, Some(queue.clone())),
            None if members.iter().any(|no| *no != not) => {
                // It was taken before those that wait, so it goes first.
                let key = (0, id.0);
                self.line_bytes += call.frame.len();
                let line = self.lines.entry(queue.clone()).or_default();
                line.calls.insert(key, id);
                call.waiting.push((queue.clone(), key));
            }
            None => {}
        }
    }

    /// Ends a call that nobody can answer any more.
    pub(crate) fn end_if_hopeless(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id.0) else {
            return;
        };
        if !call.open.is_empty() || !call.waiting.is_empty() || call.durable > 0 {
            return;
        }
        match call.reply {
            Reply::None => self.finish_silently(id),
            Reply::All => self.finish_all(id),
            Reply::First => {
                let code = match (call.delivered, call.overloaded) {
                    (true, _) => Code::RecipientGone,
                    (false, true) => Code::Overloaded,
                    (false, false) => Code::NoResponders,
                };
                self.finish_with(id, code);
            }
        }
    }

    pub(crate) fn call_late(&mut self, id: CallId) {
        match self.calls.get(&id.0).map(|call| call.reply) {
            None => {}
            Some(Reply::None) => self.finish_silently(id),
            Some(Reply::All) => self.finish_all(id),
            Some(Reply::First) => self.finish_with(id, Code::Timeout),
        }
    }

    fn finish_with(&mut self, id: CallId, code: Code) {
        let Some(call) = self.calls.get(&id.0) else {
            return;
        };
        *self.counters.refused.entry(code).or_default() += 1;
        let sender = self.instances.get(&call.requester).map(|i| i.id.clone());
        let frame = self.broker_answer(
            &call.name,
            &call.request_id,
            sender.as_deref().unwrap_or_default(),
            &Fault::new(code),
        );
        self.finish(id, Some(frame), code.code());
    }

    /// The last answer of `reply:"all"` has come, or the deadline.
    fn finish_all(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id.0) else {
            return;
        };
        let body = json!({
            "request_id": &*call.request_id,
            "expected": call.expected,
            "received": call.received,
        });
        let frame = packet_text("\"api:response:end\"", Some(&body.to_string()));
        self.finish(id, Some(frame), "end");
    }

    pub(crate) fn finish_silently(&mut self, id: CallId) {
        self.finish(id, None, "none");
    }

    fn finish(&mut self, id: CallId, frame: Option<Frame>, outcome: &'static str) {
        let Some(mut call) = self.end_call(id, outcome) else {
            return;
        };
        if let Some(instance) = self.instances.get_mut(&call.requester) {
            instance.open_calls -= 1;
        }
        let done = Done {
            name: call.name.clone(),
            answer: frame.clone(),
            // After a first answer the others' are expected; after a deadline they are late.
            quiet: matches!(outcome, "answer" | "error" | "end") && !call.open.is_empty(),
        };
        self.remember(call.requester, call.request_id.clone(), done);
        if let Some(frame) = frame {
            self.send_to(call.requester, frame);
        }
        for open in std::mem::take(&mut call.open) {
            self.release(id, open.instance, open.queue, open.counted);
        }
    }

    /// The requester is gone for good.
    pub(crate) fn drop_call(&mut self, id: CallId) {
        let Some(call) = self.end_call(id, "requester gone") else {
            return;
        };
        for open in call.open {
            self.release(id, open.instance, open.queue, open.counted);
        }
    }

    /// Takes a call out of everything that waits for it, but for those who have it.
    fn end_call(&mut self, id: CallId, outcome: &'static str) -> Option<Call> {
        let mut call = self.calls.remove(&id.0)?;
        self.timers.remove(&(call.deadline, Timer::Call(id)));
        for (queue, key) in std::mem::take(&mut call.waiting) {
            self.unwait(&mut call, &queue, key);
        }
        if self.settings.tracing {
            self.effects.push(Effect::Ended {
                call: id,
                outcome,
                micros: self.now.micros_since(call.began),
            });
        }
        Some(call)
    }

    /// Answers a request that was not taken.
    pub(crate) fn answer_at_once(&mut self, job: &Job, code: Code) {
        *self.counters.refused.entry(code).or_default() += 1;
        if job.reply == Reply::None {
            return;
        }
        let Some(sender) = self.instances.get(&job.requester).map(|i| i.id.clone()) else {
            return;
        };
        let fault = Fault::new(code);
        let frame = self.broker_answer(&job.name, &job.request_id, &sender, &fault);
        self.send_to(job.requester, frame);
    }

    /// Keeps the end of a request for a repetition, and notes it.
    pub(crate) fn remember(&mut self, no: InstanceNo, request_id: Arc<str>, done: Done) {
        let at = self.now;
        if self.instances.contains_key(&no) {
            self.note(|| Note::Done {
                no,
                at,
                request_id: request_id.clone(),
                done: done.clone(),
            });
        }
        self.remember_since(no, at, request_id, done);
    }

    /// Keeps the end of a request that was at `at`, as long as there is room.
    pub(crate) fn remember_since(
        &mut self,
        no: InstanceNo,
        at: Moment,
        request_id: Arc<str>,
        done: Done,
    ) {
        let now = self.now;
        let before = Moment(
            now.0
                .saturating_sub(self.settings.remember_ms.saturating_mul(1_000)),
        );
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        self.remembered_bytes += instance.memory.end(at, request_id, done);
        self.remembered_bytes -= instance.memory.forget_before(before);
        if self.remembered_bytes > self.settings.remember_bytes_max {
            self.forget_some();
        }
    }

    /// Makes room for answers. Whoever keeps most gives most: one instance that fills the memory takes it
    /// from itself and not from all others.
    fn forget_some(&mut self) {
        let most = self.settings.remember_bytes_max;
        // Some more than is needed, so that not every answer looks at all instances.
        let until = most - most / FORGET_PARTS;
        while self.remembered_bytes > until {
            let instances = self.instances.values_mut();
            let Some(largest) = instances.max_by_key(|instance| instance.memory.bytes()) else {
                return;
            };
            let half = largest.memory.bytes() / 2;
            while self.remembered_bytes > until && largest.memory.bytes() > half {
                let freed = largest.memory.forget_oldest();
                if freed == 0 {
                    return;
                }
                self.remembered_bytes -= freed;
                self.counters.forgotten += 1;
            }
        }
    }
}
