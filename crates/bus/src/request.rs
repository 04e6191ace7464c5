//! A request on its way to those who get it (service bus, sections 5.1, 5.2 and 10).

use std::sync::Arc;

use serde_json::json;

use crate::{
    Begun, CallId, Code, ConnId, Delivery, Effect, Fault, Frame, Local, Note,
    bus::{Bus, Call, InstanceNo, LOCAL_QUEUE, Open, Timer},
    is_reserved,
    message::{Reply, Request, quoted, spliced},
    name::EVENT_NAME_BYTES_MAX,
    packet::packet_text,
    remember::{Done, Known},
};

/// A request that was found sound, on its own legs.
pub(crate) struct Job {
    pub(crate) requester: InstanceNo,
    pub(crate) request_id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) frame: Frame,
    /// The request itself, where somebody else than a socket needs it.
    pub(crate) body: Option<Arc<str>>,
    pub(crate) delivery: Delivery,
    pub(crate) reply: Reply,
    pub(crate) timeout_ms: u64,
    pub(crate) retry: bool,
    pub(crate) sticky: Option<u64>,
    pub(crate) priority: u8,
    pub(crate) trace: Option<String>,
}

/// What is told to a sender that asks for an acknowledgement.
pub(crate) enum Taken {
    Accepted {
        delivered: usize,
        queued: usize,
    },
    /// The same request came before.
    Repeated,
    /// It is being written; the acknowledgement follows.
    Storing,
}

impl Bus {
    pub(crate) fn request(&mut self, conn: ConnId, argument: Option<&str>, ack: Option<u64>) {
        self.counters.requests += 1;
        self.pace.count(self.now);
        let request = match self.read_request(conn, argument) {
            Ok(request) => request,
            Err(fault) => return self.refuse(conn, "api:request", fault, ack),
        };
        let (no, request, body) = request;
        let request_id: Arc<str> = (&*request.request_id).into();
        let admitted = self
            .room_for_acknowledgement(conn, ack)
            .and_then(|()| self.admit(no, &request, &request_id, body));
        let job = match admitted {
            Ok(Some(job)) => job,
            Ok(None) => {
                let taken = self.join_storing(no, &request_id, conn, ack);
                return self.taken(conn, ack, &request_id, taken);
            }
            Err(fault) => {
                let fault = fault.about(Some(&request_id), Some(&request.name));
                return self.refuse(conn, "api:request", fault, ack);
            }
        };
        let taken = self.take(job, ack);
        self.taken(conn, ack, &request_id, taken);
    }

    /// Tells the sender what became of its request, if it asked.
    pub(crate) fn taken(
        &mut self,
        conn: ConnId,
        ack: Option<u64>,
        request_id: &str,
        taken: Result<Taken, Code>,
    ) {
        let body = match taken {
            Ok(Taken::Storing) => return,
            Ok(Taken::Accepted { delivered, queued }) => {
                let body = json!({"ok": true, "request_id": request_id, "delivered": delivered, "queued": queued});
                return self.acknowledge_when_noted(conn, ack, body);
            }
            Ok(Taken::Repeated) => {
                let body = json!({"ok": true, "request_id": request_id, "delivered": 0, "queued": 0, "repeated": true});
                return self.acknowledge_when_noted(conn, ack, body);
            }
            Err(code) => {
                let mut body = Fault::new(code)
                    .about(Some(request_id), None)
                    .wrapped(self.settings.code_dialect);
                body["ok"] = false.into();
                body
            }
        };
        self.acknowledge_packet(conn, ack, body);
    }

    /// A repeated request whose first copy is still being written is acknowledged with that one.
    fn join_storing(
        &mut self,
        no: InstanceNo,
        request_id: &str,
        conn: ConnId,
        ack: Option<u64>,
    ) -> Result<Taken, Code> {
        let instance = self.instances.get(&no);
        match instance.and_then(|instance| instance.memory.get(request_id)) {
            Some(Known::Storing(_, ticket)) => {
                let ticket = *ticket;
                self.durables.acknowledge_too(ticket, conn, ack)
            }
            _ => Ok(Taken::Repeated),
        }
    }

    fn read_request<'a>(
        &mut self,
        conn: ConnId,
        argument: Option<&'a str>,
    ) -> Result<(InstanceNo, Request<'a>, &'a str), Fault> {
        let request = Request::read(argument);
        let about = |code: Code| match &request {
            Ok(r) => Fault::new(code).about(Some(&r.request_id), Some(&r.name)),
            Err(fault) => Fault {
                code,
                message: code.message().into(),
                ..fault.clone()
            },
        };
        let no = self.online(conn).map_err(about)?;
        let request = request?;
        Ok((no, request, argument.unwrap_or_default()))
    }

    /// Everything that may be wrong with a request, and `None` when it came before.
    fn admit(
        &mut self,
        no: InstanceNo,
        request: &Request<'_>,
        request_id: &Arc<str>,
        body: &str,
    ) -> Result<Option<Job>, Fault> {
        let name = &*request.name;
        if is_reserved(name) || self.settings.feed == Some(name) {
            return Err(Code::ReservedName.into());
        }
        if name.len() > EVENT_NAME_BYTES_MAX || name.split('.').any(|p| p == "*" || p == ">") {
            let what = "a request's name is at most 256 bytes and no pattern";
            return Err(Fault::because(Code::InvalidData, what));
        }
        let wait = self.pay(no);
        let Some(instance) = self.instances.get(&no) else {
            return Err(Code::NotOnline.into());
        };
        let forged = *request.sender_id != *instance.id;
        if forged && self.settings.strict {
            return Err(Code::InvalidSender.into());
        }
        if !instance.grant.may_request(name) {
            return Err(Code::Forbidden.into());
        }
        if let Some(wait) = wait {
            let mut fault = Fault::new(Code::RateLimited);
            fault.retry_after_ms = Some(wait);
            return Err(fault);
        }
        match instance.memory.get(request_id) {
            None => {}
            Some(known) => return self.repeated(no, known.clone(), name).map(|()| None),
        }
        if self.draining || self.forgetful {
            let what = match self.draining {
                true => "the broker is going to stop",
                false => "the broker cannot write down what it does",
            };
            return Err(Fault::because(Code::Overloaded, what));
        }
        if instance.open_calls >= self.settings.calls_per_instance_max
            || self.calls.len() >= self.settings.calls_max
        {
            return Err(Fault::because(Code::Overloaded, "too many open requests"));
        }
        let corrected;
        let body = if forged {
            let own = quoted(&instance.id);
            corrected = spliced(body, request.sender_json, &own);
            &corrected
        } else {
            body
        };
        let wants_body = self.wants_body(name);
        let mut fixed = self
            .settings
            .subjects
            .iter()
            .filter(|subject| subject.pattern.matches(name));
        let fixed = fixed.next();
        let delivery = fixed
            .and_then(|subject| subject.delivery)
            .or(request.delivery);
        let timeout_ms = fixed
            .and_then(|subject| subject.timeout_ms)
            .or(request.timeout_ms);
        Ok(Some(Job {
            requester: no,
            request_id: request_id.clone(),
            name: name.into(),
            frame: packet_text(request.name_json, Some(body.trim())),
            body: wants_body.then(|| body.trim().into()),
            delivery: delivery.unwrap_or_default(),
            reply: request.reply,
            timeout_ms: timeout_ms.unwrap_or(self.settings.timeout_ms),
            retry: request.retry,
            sticky: request.sticky.as_deref().map(|key| mix(key.as_bytes(), 0)),
            priority: request.priority,
            trace: match self.settings.tracing {
                true => request.trace.map(str::to_owned),
                false => None,
            },
        }))
    }

    fn wants_body(&mut self, name: &str) -> bool {
        self.settings.local.contains(&name) || !self.index.route(name).durables.is_empty()
    }

    /// Takes one request from the rate; answers the milliseconds to wait when there is none left.
    fn pay(&mut self, no: InstanceNo) -> Option<u64> {
        const TOKEN: u64 = 1_000_000;
        let now = self.now;
        let instance = self.instances.get_mut(&no)?;
        let limits = &instance.grant.limits;
        let rate = u64::from(
            limits
                .requests_per_second
                .unwrap_or(self.settings.requests_per_second),
        );
        if rate == 0 {
            return None;
        }
        let bucket = &mut instance.bucket;
        let passed = now.micros_since(bucket.at).min(TOKEN);
        bucket.at = now;
        // A microsecond is worth `rate` millionths of a request; a second's worth may gather.
        bucket.micro_tokens = (bucket.micro_tokens + passed * rate).min(rate * TOKEN);
        if bucket.micro_tokens >= TOKEN {
            bucket.micro_tokens -= TOKEN;
            return None;
        }
        Some((TOKEN - bucket.micro_tokens).div_ceil(rate).div_ceil(1_000))
    }

    /// A request id that came before (section 5.1).
    fn repeated(&mut self, no: InstanceNo, known: Known, name: &str) -> Result<(), Fault> {
        let same = match &known {
            Known::Storing(other, _) => **other == *name,
            Known::Open(call) => self.calls.get(&call.0).is_some_and(|c| *c.name == *name),
            Known::Done(done) => *done.name == *name,
        };
        if !same {
            return Err(Code::DuplicateRequest.into());
        }
        self.counters.repeated += 1;
        if let Known::Done(Done {
            answer: Some(answer),
            ..
        }) = known
        {
            self.send_to(no, answer);
        }
        Ok(())
    }

    /// Stores a request if somebody wants that, or delivers it at once.
    fn take(&mut self, job: Job, ack: Option<u64>) -> Result<Taken, Code> {
        let durables = match self.settings.local.contains(&&*job.name) {
            true => Vec::new(),
            false => self.index.route(&job.name).durables.clone(),
        };
        if durables.is_empty() {
            return self.dispatch(job, 0);
        }
        if let Err(code) = self.room_for_durable(&job, durables.len()) {
            self.answer_at_once(&job, code);
            return Err(code);
        }
        self.store_job(job, durables, ack);
        Ok(Taken::Storing)
    }

    /// Delivers a request to those who get it now, and lets it wait for those who get it later.
    pub(crate) fn dispatch(&mut self, job: Job, durable: u32) -> Result<Taken, Code> {
        let mut picks: Vec<(InstanceNo, Option<Arc<str>>)> = Vec::new();
        let mut waits: Vec<Arc<str>> = Vec::new();
        let mut busy = false;
        if self.settings.local.contains(&&*job.name) {
            // The node's own names are answered by the node and heard by nobody else.
            let local = self.local;
            match local.filter(|no| self.is_free(*no, LOCAL_QUEUE)) {
                Some(no) => picks.push((no, Some(LOCAL_QUEUE.into()))),
                None => waits.push(LOCAL_QUEUE.into()),
            }
        } else {
            let route = self.index.route(&job.name);
            match job.delivery {
                Delivery::All => {
                    let members = route.groups.iter().flat_map(|(_, members)| members);
                    let mut all: Vec<InstanceNo> =
                        route.plain.iter().chain(members).copied().collect();
                    all.sort_unstable();
                    all.dedup();
                    picks.extend(all.into_iter().map(|no| (no, None)));
                }
                Delivery::Auto => {
                    picks.extend(route.plain.iter().map(|no| (*no, None)));
                    for (queue, members) in &route.groups {
                        match self.pick(queue, members, job.sticky, None) {
                            // Who hears it as a plain subscriber need not hear it twice.
                            Some(no) if route.plain.binary_search(&no).is_err() => {
                                picks.push((no, Some(queue.clone())));
                            }
                            Some(_) => {}
                            None => waits.push(queue.clone()),
                        }
                    }
                }
                Delivery::One => {
                    let free = route.groups.iter().find_map(|(queue, members)| {
                        let no = self.pick(queue, members, job.sticky, None)?;
                        Some((no, Some(queue.clone())))
                    });
                    match free {
                        Some(pick) => picks.push(pick),
                        None => match route.groups.first() {
                            Some((queue, _)) => waits.push(queue.clone()),
                            None if durable > 0 => {}
                            None => {
                                let pick = self.pick_plain(&route.plain, job.requester, job.sticky);
                                picks.extend(pick.map(|no| (no, None)));
                                busy = picks.is_empty() && !route.plain.is_empty();
                            }
                        },
                    }
                }
            }
        }
        waits.retain(|queue| {
            let fits = self.line_has_room(queue, job.frame.len());
            busy |= !fits;
            fits
        });
        picks.retain(|(no, _)| {
            let fits = self.has_room(*no);
            busy |= !fits;
            fits
        });
        if picks.is_empty() && waits.is_empty() && durable == 0 {
            let code = match busy {
                true => Code::Overloaded,
                false => Code::NoResponders,
            };
            // Nothing happened, so the same id may be tried again.
            if job.reply != Reply::None {
                self.answer_at_once(&job, code);
                return Err(code);
            }
            return match busy {
                true => Err(code),
                false => Ok(Taken::Accepted {
                    delivered: 0,
                    queued: 0,
                }),
            };
        }
        Ok(self.begin(job, picks, waits, durable))
    }

    fn begin(
        &mut self,
        job: Job,
        picks: Vec<(InstanceNo, Option<Arc<str>>)>,
        waits: Vec<Arc<str>>,
        durable: u32,
    ) -> Taken {
        let (delivered, queued) = (picks.len(), waits.len() + durable as usize);
        let accepted = Taken::Accepted { delivered, queued };
        if job.reply == Reply::None && waits.is_empty() {
            let done = Done {
                name: job.name.clone(),
                answer: None,
                quiet: true,
            };
            self.remember(job.requester, job.request_id, done);
            for (no, _) in picks {
                self.deliver(no, &job.frame, None, &job.name, job.body.as_ref());
            }
            return accepted;
        }
        self.note(|| Note::Begun {
            no: job.requester,
            request_id: job.request_id.clone(),
            name: job.name.clone(),
            how: Begun::of(job.reply, job.retry),
        });
        let id = CallId(self.number());
        let deadline = self.now.after_ms(job.timeout_ms);
        let mut call = Call {
            requester: job.requester,
            request_id: job.request_id.clone(),
            name: job.name.clone(),
            reply: job.reply,
            retry: job.retry,
            one: job.delivery == Delivery::One,
            sticky: job.sticky,
            frame: job.frame,
            body: job.body,
            expected: u32::try_from(delivered + queued).unwrap_or(u32::MAX),
            received: 0,
            open: Vec::with_capacity(picks.len()),
            answered: Vec::new(),
            waiting: Vec::new(),
            durable,
            began: self.now,
            deadline,
            delivered: !picks.is_empty(),
            overloaded: false,
        };
        self.timers.insert((deadline, Timer::Call(id)));
        if let Some(instance) = self.instances.get_mut(&job.requester) {
            instance.memory.begin(job.request_id, Known::Open(id));
            instance.open_calls += 1;
        }
        if self.settings.tracing {
            self.effects.push(Effect::Began {
                call: id,
                name: call.name.clone(),
                request_id: call.request_id.clone(),
                trace: job.trace,
            });
        }
        for (no, queue) in picks {
            self.assign(id, &mut call, no, queue);
        }
        for queue in waits {
            // Only the order counts: a higher priority comes first, then an earlier request.
            let key = (u8::MAX - job.priority, id.0);
            self.line_bytes += call.frame.len();
            let line = self.lines.entry(queue.clone()).or_default();
            line.calls.insert(key, id);
            call.waiting.push((queue, key));
        }
        self.calls.insert(id.0, call);
        accepted
    }

    /// Delivers a call to an instance, which may answer from then on.
    pub(crate) fn assign(
        &mut self,
        id: CallId,
        call: &mut Call,
        no: InstanceNo,
        queue: Option<Arc<str>>,
    ) {
        call.delivered = true;
        let answerable = call.reply != Reply::None;
        self.deliver(
            no,
            &call.frame,
            answerable.then_some(id),
            &call.name,
            call.body.as_ref(),
        );
        if !answerable {
            return;
        }
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.in_flight += 1;
            instance.assigned.insert(id.0);
            if let Some(queue) = &queue
                && let Some(used) = instance.queues.get_mut(queue)
            {
                used.in_flight += 1;
            }
        }
        call.open.push(Open {
            instance: no,
            queue,
            counted: true,
        });
    }

    fn deliver(
        &mut self,
        no: InstanceNo,
        frame: &Frame,
        call: Option<CallId>,
        name: &Arc<str>,
        body: Option<&Arc<str>>,
    ) {
        self.counters.deliveries += 1;
        let Some(instance) = self.instances.get(&no) else {
            return;
        };
        if instance.local {
            self.effects.push(Effect::Local(Local {
                call,
                name: name.clone(),
                body: body.cloned().unwrap_or_else(|| "null".into()),
            }));
        } else if let Some(conn) = instance.conn {
            self.effects.push(Effect::Send {
                to: conn,
                frame: frame.clone(),
            });
        }
    }

    /// A free member of a group: for a sticky request always the same one, else the one with fewest
    /// unanswered deliveries, taking turns.
    pub(crate) fn pick(
        &mut self,
        queue: &Arc<str>,
        members: &[InstanceNo],
        sticky: Option<u64>,
        not: Option<InstanceNo>,
    ) -> Option<InstanceNo> {
        if let Some(key) = sticky {
            let best = self.rendezvous(members, key, not)?;
            return self.is_free(best, queue).then_some(best);
        }
        let cursor = self.lines.get(queue).map_or(0, |line| line.cursor);
        let mut best: Option<(u32, usize)> = None;
        for step in 0..members.len() {
            let place = (cursor + step) % members.len();
            let no = members[place];
            if Some(no) == not || !self.is_free(no, queue) {
                continue;
            }
            let load = self.instances.get(&no).map_or(u32::MAX, |i| i.in_flight);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, place));
            }
        }
        let (_, place) = best?;
        self.lines.entry(queue.clone()).or_default().cursor = place + 1;
        Some(members[place])
    }

    fn pick_plain(
        &mut self,
        plain: &[InstanceNo],
        requester: InstanceNo,
        sticky: Option<u64>,
    ) -> Option<InstanceNo> {
        // Whoever merely hears everything shall not be asked its own question while others can.
        if let Some(key) = sticky {
            return self.rendezvous(plain, key, None);
        }
        let mut best = None;
        for no in plain {
            let Some(instance) = self.instances.get(no) else {
                continue;
            };
            if !instance.room.has_room() {
                self.note_slow(*no, 0);
                continue;
            }
            let asks_itself = *no == requester && instance.catch_all;
            let order = (asks_itself, instance.in_flight, *no);
            if best.is_none_or(|least| order < least) {
                best = Some(order);
            }
        }
        best.map(|(_, _, no)| no)
    }

    /// The member that rendezvous hashing gives a key: the same one as long as it is there, and the
    /// others keep theirs when it goes.
    pub(crate) fn rendezvous(
        &self,
        members: &[InstanceNo],
        key: u64,
        not: Option<InstanceNo>,
    ) -> Option<InstanceNo> {
        members
            .iter()
            .copied()
            .filter(|no| Some(*no) != not)
            .max_by_key(|no| {
                let id = self.instances.get(no).map_or(&b""[..], |i| i.id.as_bytes());
                mix(id, key)
            })
    }

    fn is_free(&mut self, no: InstanceNo, queue: &str) -> bool {
        let Some(instance) = self.instances.get(&no) else {
            return false;
        };
        let used = instance.queues.get(queue).copied().unwrap_or_default();
        if instance.in_flight >= instance.in_flight_max
            || used.max.is_some_and(|max| used.in_flight >= max)
        {
            return false;
        }
        let room = instance.room.has_room();
        if !room {
            self.note_slow(no, 0);
        }
        room
    }

    /// Room for a message that is lost otherwise.
    fn has_room(&mut self, no: InstanceNo) -> bool {
        let room = self.instances.get(&no).is_some_and(|i| i.room.has_room());
        if !room {
            self.counters.dropped += 1;
            self.note_slow(no, 1);
        }
        room
    }

    fn line_has_room(&self, queue: &str, bytes: usize) -> bool {
        let waiting = self.lines.get(queue).map_or(0, |line| line.calls.len());
        waiting < self.settings.queue_max
            && self.line_bytes + bytes <= self.settings.queue_bytes_max
    }

    /// Gives what waits for a group to members that are free now.
    pub(crate) fn serve_line(&mut self, queue: &Arc<str>) {
        let Some(line) = self.lines.get(queue) else {
            return;
        };
        if line.calls.is_empty() {
            return;
        }
        let waiting: Vec<(crate::bus::WaitKey, CallId)> =
            line.calls.iter().map(|(key, id)| (*key, *id)).collect();
        // Requests of one name have the same members: when one cannot go, neither can the next.
        let mut stuck: Vec<Arc<str>> = Vec::new();
        for (key, id) in waiting {
            let Some(call) = self.calls.get(&id.0) else {
                continue;
            };
            if call.sticky.is_none() && stuck.contains(&call.name) {
                continue;
            }
            let (name, sticky) = (call.name.clone(), call.sticky);
            let members = self.members(queue, &name);
            let pick = match members.is_empty() {
                true => None,
                false => self.pick(queue, &members, sticky, None),
            };
            match pick {
                None if !members.is_empty() => {
                    stuck.push(name);
                    // A line of one name, the usual one, is not searched to its end.
                    if self.lines.get(queue).is_none_or(|l| l.calls.len() <= 1) {
                        return;
                    }
                }
                None => self.nobody_left(id, queue, key),
                Some(no) => {
                    let Some(mut call) = self.calls.remove(&id.0) else {
                        continue;
                    };
                    self.unwait(&mut call, queue, key);
                    self.assign(id, &mut call, no, Some(queue.clone()));
                    let over = call.reply == Reply::None && call.waiting.is_empty();
                    self.calls.insert(id.0, call);
                    if over {
                        self.finish_silently(id);
                    }
                }
            }
        }
    }

    fn members(&mut self, queue: &str, name: &str) -> Vec<InstanceNo> {
        if queue == LOCAL_QUEUE {
            return self.local.into_iter().collect();
        }
        let route = self.index.route(name);
        let mut groups = route.groups.iter();
        groups
            .find(|(other, _)| **other == *queue)
            .map(|(_, members)| members.clone())
            .unwrap_or_default()
    }

    pub(crate) fn unwait(&mut self, call: &mut Call, queue: &str, key: crate::bus::WaitKey) {
        call.waiting.retain(|(other, _)| **other != *queue);
        if let Some(line) = self.lines.get_mut(queue)
            && line.calls.remove(&key).is_some()
        {
            self.line_bytes -= call.frame.len();
        }
    }

    /// A group that a call waited for has no member any more.
    fn nobody_left(&mut self, id: CallId, queue: &Arc<str>, key: crate::bus::WaitKey) {
        if let Some(mut call) = self.calls.remove(&id.0) {
            self.unwait(&mut call, queue, key);
            self.calls.insert(id.0, call);
            self.end_if_hopeless(id);
        }
    }
}

/// FNV-1a over bytes, begun with a key and stirred at the end: the same on every machine.
pub(crate) fn mix(bytes: &[u8], key: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ key;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
