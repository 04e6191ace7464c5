//! Subscriptions (service bus, sections 6 and 14).

use std::sync::Arc;

use serde_json::json;

use crate::{
    Code, ConnId, Effect, Fault, Subscription,
    bus::{Bus, InstanceNo, QueueUse},
    index::Entry,
    presence::PRESENCE,
};

/// Subscriptions to what the broker itself tells begin like this.
const DEAD_PREFIX: &str = "_dead.";
const SERVICE_PREFIX: &str = "_service.";

impl Bus {
    pub(crate) fn subscribe(&mut self, conn: ConnId, argument: Option<&str>, ack: Option<u64>) {
        match self.try_subscribe(conn, argument, ack) {
            Ok(Some(name)) => self.acknowledge_packet(conn, ack, json!({"ok": true, "name": name})),
            // It is being written; the acknowledgement follows.
            Ok(None) => {}
            Err(fault) => self.refuse(conn, "_service:subscribe", fault, ack),
        }
    }

    pub(crate) fn unsubscribe(&mut self, conn: ConnId, argument: Option<&str>, ack: Option<u64>) {
        let done = self.online(conn).map_err(Fault::new).and_then(|no| {
            let wanted = Subscription::read(argument, Code::InvalidUnsubscribe)?;
            let name = wanted.pattern.to_string();
            self.remove_subscription(no, conn, &wanted);
            Ok(name)
        });
        match done {
            Ok(name) => self.acknowledge_packet(conn, ack, json!({"ok": true, "name": name})),
            Err(fault) => self.refuse(conn, "_service:unsubscribe", fault, ack),
        }
    }

    fn try_subscribe(
        &mut self,
        conn: ConnId,
        argument: Option<&str>,
        ack: Option<u64>,
    ) -> Result<Option<String>, Fault> {
        let no = self.online(conn)?;
        let wanted = Subscription::read(argument, Code::InvalidSubscribe)?;
        let name = wanted.pattern.to_string();
        let subscriptions_max = self.settings.subscriptions_max;
        let feed = self.settings.feed == Some(name.as_str());
        let Some(instance) = self.instances.get_mut(&no) else {
            return Err(Code::NotOnline.into());
        };
        if !instance.grant.may_subscribe(&wanted.pattern) {
            return Err(Code::Forbidden.into());
        }
        if std::mem::take(&mut instance.catch_all) {
            self.index.set_catch_all(no, None);
        }
        if feed {
            instance.feed = true;
            let arguments = argument.unwrap_or_default().to_owned();
            self.effects.push(Effect::Feed { conn, arguments });
            return Ok(Some(name));
        }
        let same = |other: &Subscription| {
            other.pattern == wanted.pattern
                && other.queue == wanted.queue
                && other.durable == wanted.durable
        };
        if instance.subscriptions.iter().any(same) {
            if wanted.durable {
                // The first one may still be on its way to the disk.
                let on_disk = self.subscribe_durable(no, &wanted, conn, ack)?;
                return Ok(on_disk.then_some(name));
            }
            return Ok(Some(name));
        }
        if instance.subscriptions.len() >= subscriptions_max {
            return Err(Fault::because(Code::Overloaded, "too many subscriptions"));
        }
        if name.starts_with(SERVICE_PREFIX) {
            if name != PRESENCE {
                return Err(Code::ReservedName.into());
            }
            instance.subscriptions.push(wanted);
            self.presence.insert(no);
        } else if name.starts_with(DEAD_PREFIX) {
            instance.subscriptions.push(wanted);
            self.dead_listeners.insert(no);
        } else if wanted.durable {
            let on_disk = self.subscribe_durable(no, &wanted, conn, ack)?;
            self.capacity_returned(no);
            return Ok(on_disk.then_some(name));
        } else {
            let entry = match &wanted.queue {
                None => Entry::Plain(no),
                Some(queue) => {
                    let queue: Arc<str> = queue.as_str().into();
                    let place = instance.queues.entry(queue.clone()).or_default();
                    *place = QueueUse {
                        in_flight: place.in_flight,
                        max: wanted.max_in_flight.or(place.max),
                    };
                    Entry::Group(queue, no)
                }
            };
            self.index.add(&wanted.pattern, entry);
            instance.subscriptions.push(wanted);
        }
        self.capacity_returned(no);
        Ok(Some(name))
    }

    fn remove_subscription(&mut self, no: InstanceNo, conn: ConnId, wanted: &Subscription) {
        let feed = self.settings.feed == Some(wanted.pattern.as_str());
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        if feed && std::mem::take(&mut instance.feed) {
            self.effects.push(Effect::EndFeed { conn });
        }
        // Without a queue, whatever this instance has under the name stops.
        let (removed, kept) = std::mem::take(&mut instance.subscriptions)
            .into_iter()
            .partition(|s| {
                s.pattern == wanted.pattern && (wanted.queue.is_none() || s.queue == wanted.queue)
            });
        instance.subscriptions = kept;
        self.unlink(no, removed, wanted.forget);
    }

    /// An instance loses one subscription; `forget` ends a durable one for all.
    pub(crate) fn withdraw(&mut self, no: InstanceNo, wanted: &Subscription, forget: bool) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        let (removed, kept) = std::mem::take(&mut instance.subscriptions)
            .into_iter()
            .partition(|s| {
                s.pattern == wanted.pattern
                    && s.queue == wanted.queue
                    && s.durable == wanted.durable
            });
        instance.subscriptions = kept;
        self.unlink(no, removed, forget);
    }

    /// An instance listens to nothing any more.
    pub(crate) fn drop_subscriptions(&mut self, no: InstanceNo) {
        self.index.set_catch_all(no, None);
        if let Some(instance) = self.instances.get_mut(&no) {
            let removed = std::mem::take(&mut instance.subscriptions);
            self.unlink(no, removed, false);
        }
    }

    fn unlink(&mut self, no: InstanceNo, removed: Vec<Subscription>, forget: bool) {
        let mut queues = Vec::new();
        for subscription in removed {
            let name = subscription.pattern.as_str();
            if name.starts_with(SERVICE_PREFIX) {
                self.presence.remove(&no);
            } else if name.starts_with(DEAD_PREFIX) {
                let others = self.instances.get(&no).is_some_and(|instance| {
                    let mut all = instance.subscriptions.iter();
                    all.any(|s| s.pattern.as_str().starts_with(DEAD_PREFIX))
                });
                if !others {
                    self.dead_listeners.remove(&no);
                }
            } else if subscription.durable {
                self.unsubscribe_durable(no, &subscription, forget);
            } else {
                let entry = match &subscription.queue {
                    None => Entry::Plain(no),
                    Some(queue) => {
                        let queue: Arc<str> = queue.as_str().into();
                        queues.push(queue.clone());
                        Entry::Group(queue, no)
                    }
                };
                self.index.remove(&subscription.pattern, &entry);
            }
        }
        // What waits for a group without members will not be answered.
        for queue in queues {
            self.serve_line(&queue);
        }
    }
}
