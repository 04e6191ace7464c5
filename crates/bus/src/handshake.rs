//! From a connection to an instance that is online, and back (service bus, sections 3 and 4).

use std::{fmt::Write, sync::Arc};

use serde_json::json;

use crate::{
    Code, ConnId, Effect, Fault, KeyVerdict, Rooms,
    bus::{Bus, Conn, Instance, InstanceNo, Introduced, Phase, Secret, Timer},
    message::{Introduction, fields, text_of},
    name::is_service_name,
    packet::packet_text,
};

impl Bus {
    pub(crate) fn connected(&mut self, conn: ConnId, protocol: u8, room: Arc<dyn Rooms>) {
        let deadline = self.now.after_ms(self.settings.introduce_ms);
        self.timers.insert((deadline, Timer::Handshake(conn)));
        self.conns.insert(
            conn.0,
            Conn {
                phase: Phase::Silent,
                protocol,
                room,
                timer: Some(deadline),
                instance: None,
                introduced: None,
            },
        );
        self.send(conn, packet_text("\"shake_who\"", None));
    }

    pub(crate) fn introduced(&mut self, conn: ConnId, argument: Option<&str>) {
        let Some(state) = self.conns.get_mut(&conn.0) else {
            return;
        };
        if state.phase != Phase::Silent {
            return self.refuse_handshake(conn, Code::AlreadyIdentified);
        }
        let introduction = Introduction::read(argument);
        let name: Arc<str> = match &introduction.name {
            Some(name) if is_service_name(name) => (&**name).into(),
            _ => return self.refuse_handshake(conn, Code::InvalidName),
        };
        let Some(key) = introduction.key else {
            return self.refuse_handshake(conn, Code::InvalidKey);
        };
        state.phase = Phase::Checking;
        state.introduced = Some(Introduced {
            name: name.clone(),
            version: introduction.version,
            subscribes: introduction.subscribes,
            max_in_flight: introduction.max_in_flight,
            resume: introduction.resume,
        });
        // From here on it is the broker that takes its time.
        self.stop_handshake_timer(conn);
        self.effects.push(Effect::CheckKey {
            conn,
            name: name.to_string(),
            key: Secret(key.into_owned()),
        });
    }

    pub(crate) fn key_checked(&mut self, conn: ConnId, verdict: KeyVerdict, random: &[u8; 32]) {
        let Some(state) = self.conns.get_mut(&conn.0) else {
            return;
        };
        if state.phase != Phase::Checking {
            return;
        }
        let grant = match verdict {
            KeyVerdict::Granted(grant) => grant,
            KeyVerdict::Wrong => return self.refuse_handshake(conn, Code::InvalidKey),
            KeyVerdict::Busy => return self.refuse_handshake(conn, Code::Overloaded),
        };
        let Some(introduced) = state.introduced.take() else {
            return;
        };
        let (protocol, room) = (state.protocol, state.room.clone());
        if self.draining {
            return self.refuse_handshake(conn, Code::Overloaded);
        }
        let token = hexadecimal(&random[16..]);
        let asked = introduced.max_in_flight.unwrap_or(u32::MAX);
        let in_flight_max = asked
            .min(
                grant
                    .limits
                    .max_in_flight
                    .unwrap_or(self.settings.in_flight_max),
            )
            .max(1);
        let catch_all = self.settings.legacy_broadcast && !introduced.subscribes;
        let no = match self.resumed(&introduced) {
            Some(no) => {
                let now = self.now;
                if let Some(instance) = self.instances.get_mut(&no) {
                    instance.conn = Some(conn);
                    instance.room = room;
                    instance.grant = grant;
                    instance.token.clone_from(&token);
                    instance.version = introduced.version;
                    instance.protocol = protocol;
                    instance.connected_at = now;
                    instance.catch_all = catch_all;
                    instance.in_flight_max = in_flight_max;
                }
                no
            }
            None => {
                let no = self.number();
                let id: Arc<str> = format!(
                    "{}.{}.{}",
                    introduced.name,
                    self.now.millis(),
                    hexadecimal(&random[..16])
                )
                .into();
                let instance = Instance {
                    conn: Some(conn),
                    token: token.clone(),
                    version: introduced.version,
                    protocol,
                    connected_at: self.now,
                    catch_all,
                    in_flight_max,
                    ..Instance::new(id.clone(), introduced.name, grant, room)
                };
                self.instances.insert(no, instance);
                self.by_id.insert(id, no);
                no
            }
        };
        let deadline = self.now.after_ms(self.settings.ready_ms);
        self.timers.insert((deadline, Timer::Handshake(conn)));
        if let Some(state) = self.conns.get_mut(&conn.0) {
            state.phase = Phase::Named;
            state.instance = Some(no);
            state.timer = Some(deadline);
        }
        let instance = &self.instances[&no];
        let id = instance.id.clone();
        if self.settings.notes {
            self.effects.push(Effect::Note(instance.note(no)));
        }
        let body = json!({
            "id": &*id,
            "resume_token": token,
            "features": ["subscribe", "queue", "durable", "reply", "retry", "sticky", "priority", "resume", "presence"],
            "limits": {
                "max_payload": self.settings.payload_bytes_max,
                "max_in_flight": in_flight_max,
                "max_queue": self.settings.queue_max,
            },
        });
        self.send(conn, packet_text("\"shake_id\"", Some(&body.to_string())));
    }

    /// The instance that comes back, if its name and token are right and its window is open.
    fn resumed(&mut self, introduced: &Introduced) -> Option<InstanceNo> {
        let (id, token) = introduced.resume.as_ref()?;
        let no = *self.by_id.get(id.as_str())?;
        let instance = self.instances.get_mut(&no)?;
        // The old connection may be dead without anybody having noticed.
        if instance.local
            || instance.name != introduced.name
            || !same(token.as_bytes(), instance.token.as_bytes())
        {
            return None;
        }
        if let Some(old) = instance.conn {
            self.effects.push(Effect::Close {
                conn: old,
                reason: "its instance came back on another connection",
            });
            self.gone(old, true);
        }
        let instance = self.instances.get_mut(&no)?;
        if let Some(at) = instance.forget_at.take() {
            self.timers.remove(&(at, Timer::Forget(no)));
        }
        self.away.retain(|other| *other != no);
        Some(no)
    }

    pub(crate) fn ready(&mut self, conn: ConnId, argument: Option<&str>) {
        let Some(state) = self.conns.get(&conn.0) else {
            return;
        };
        let (phase, instance) = (state.phase, state.instance);
        if phase == Phase::Online {
            return self.refuse_handshake(conn, Code::AlreadyIdentified);
        }
        let id = fields(argument, &["id"])
            .ok()
            .and_then(|[id]| id)
            .and_then(text_of)
            .filter(|id| !id.is_empty());
        let Some(id) = id else {
            return self.refuse_handshake(conn, Code::NoId);
        };
        let Some(no) = instance.filter(|no| {
            phase == Phase::Named && self.instances.get(no).is_some_and(|i| *i.id == *id)
        }) else {
            return self.refuse_handshake(conn, Code::InvalidId);
        };
        self.stop_handshake_timer(conn);
        if let Some(state) = self.conns.get_mut(&conn.0) {
            state.phase = Phase::Online;
        }
        self.send(conn, packet_text("\"shake_online\"", None));
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.online = true;
        let parked = std::mem::take(&mut instance.parked);
        if instance.catch_all {
            let grant = instance.grant.clone();
            self.index.set_catch_all(no, Some(grant));
        }
        for frame in parked {
            self.send_to(no, frame);
        }
        self.announce(no, "_service:joined");
    }

    pub(crate) fn handshake_late(&mut self, conn: ConnId) {
        let waiting = self
            .conns
            .get(&conn.0)
            .is_some_and(|state| matches!(state.phase, Phase::Silent | Phase::Named));
        if waiting {
            self.refuse_handshake(conn, Code::RequestTimeout);
        }
    }

    fn refuse_handshake(&mut self, conn: ConnId, code: Code) {
        *self.counters.refused.entry(code).or_default() += 1;
        self.farewell(conn, Fault::new(code));
    }

    fn stop_handshake_timer(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn.0)
            && let Some(at) = state.timer.take()
        {
            self.timers.remove(&(at, Timer::Handshake(conn)));
        }
    }

    /// Says what is wrong, then good-bye. The error goes first, or nobody would see it.
    pub(crate) fn farewell(&mut self, conn: ConnId, fault: Fault) {
        let body = fault.wrapped(self.settings.code_dialect).to_string();
        self.send(conn, packet_text("\"shake_error\"", Some(&body)));
        self.leave(conn, false);
    }

    /// Says good-bye. The transport is closed a little later, unless the client does it first.
    pub(crate) fn leave(&mut self, conn: ConnId, resumable: bool) {
        let here = |state: &Conn| state.phase != Phase::Leaving;
        if !self.conns.get(&conn.0).is_some_and(here) {
            return;
        }
        self.gone(conn, resumable);
        self.effects.push(Effect::Farewell { conn });
        let at = self.now.after_ms(self.settings.farewell_ms);
        self.timers.insert((at, Timer::Close(conn)));
    }

    pub(crate) fn disconnected(&mut self, conn: ConnId) {
        self.gone(conn, true);
        self.stop_handshake_timer(conn);
        self.conns.remove(&conn.0);
    }

    /// A connection is there no longer, or soon: its instance hears and answers nothing more. It may
    /// come back if `resumable`.
    pub(crate) fn gone(&mut self, conn: ConnId, resumable: bool) {
        self.stop_handshake_timer(conn);
        let Some(state) = self.conns.get_mut(&conn.0) else {
            return;
        };
        let was_online = state.phase == Phase::Online;
        state.phase = Phase::Leaving;
        let Some(no) = state.instance.take() else {
            return;
        };
        if was_online {
            self.announce(no, "_service:left");
        }
        self.drop_subscriptions(no);
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.conn = None;
        instance.online = false;
        let feed = std::mem::take(&mut instance.feed);
        if let Some(slow) = instance.slow.take() {
            self.timers.remove(&(slow.deadline, Timer::Slow(no)));
        }
        let assigned: Vec<u64> = instance.assigned.drain().collect();
        instance.in_flight = 0;
        instance.queues.clear();
        if feed {
            self.effects.push(Effect::EndFeed { conn });
        }
        // After a stop nobody comes back, unless it is to the next run.
        if resumable && (!self.draining || self.settings.notes) {
            self.keep_away(no);
        } else {
            self.forget_instance(no);
        }
        // In the order in which the requests came, so that it does not depend on a hash.
        let mut assigned = assigned;
        assigned.sort_unstable();
        for call in assigned {
            self.lost(crate::CallId(call), no);
        }
    }
}

/// Compares in a time that tells nothing about the secret.
fn same(shown: &[u8], secret: &[u8]) -> bool {
    let mut difference = shown.len() ^ secret.len();
    for (a, b) in shown.iter().zip(secret) {
        difference |= usize::from(a ^ b);
    }
    difference == 0
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
