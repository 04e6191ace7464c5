//! What an operator may look at (service bus, section 9).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{bus::Bus, durable::Dead, index::Entry};

/// Entries of each list of an overview: what a page can show. Whole lists are pages of their own.
const OVERVIEW_ENTRIES_MAX: usize = 200;

/// One instance.
#[derive(Clone, Debug)]
pub struct ServiceReport {
    /// Its id.
    pub id: String,
    /// Everything about it, for `GET /services`.
    pub json: Value,
}

/// One name or pattern.
#[derive(Clone, Debug)]
pub struct SubjectReport {
    /// The name or pattern.
    pub name: String,
    /// Who listens, for `GET /subjects`.
    pub json: Value,
}

/// One dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// For `GET /dead/:name`. The request keeps its spelling, so it is text.
    pub json: String,
}

/// Numbers of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Report {
    pub connections: usize,
    pub online: usize,
    pub away: usize,
    pub open_calls: usize,
    pub waiting: usize,
    pub waiting_bytes: usize,
    pub remembered_bytes: usize,
    pub durable_subscriptions: usize,
    pub durable_messages: usize,
    pub durable_bytes: usize,
    pub dead_letters: usize,
    pub timers: usize,
}

impl Bus {
    /// Numbers of this moment.
    pub fn report(&self) -> Report {
        Report {
            connections: self.conns.len(),
            online: self
                .instances
                .values()
                .filter(|i| i.online && !i.local)
                .count(),
            away: self.away.len(),
            open_calls: self.calls.len(),
            waiting: self.lines.values().map(|line| line.calls.len()).sum(),
            waiting_bytes: self.line_bytes,
            remembered_bytes: self.remembered_bytes,
            durable_subscriptions: self.durables.all.len(),
            durable_messages: self.durables.messages,
            durable_bytes: self.durables.bytes,
            dead_letters: self.durables.dead.len(),
            timers: self.timers.len(),
        }
    }

    /// What is going on, on one page: who is online, how much is called, where requests wait, and what
    /// nobody could do. Lists are cut after 200 entries; the numbers beside them are whole.
    pub fn overview(&self) -> Value {
        let report = self.report();
        let mut services = self.services();
        services.truncate(OVERVIEW_ENTRIES_MAX);
        let mut queues: Vec<(&str, usize)> = self
            .lines
            .iter()
            .filter(|(name, line)| !name.is_empty() && !line.calls.is_empty())
            .map(|(name, line)| (&**name, line.calls.len()))
            .collect();
        // The longest first, so that it is never cut away.
        queues.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        queues.truncate(OVERVIEW_ENTRIES_MAX);
        let mut durable: Vec<_> = self.durables.all.values().collect();
        durable.sort_by_key(|place| std::cmp::Reverse(place.messages.len()));
        durable.truncate(OVERVIEW_ENTRIES_MAX);
        let mut dead: BTreeMap<&str, (usize, &Dead)> = BTreeMap::new();
        for letter in self.durables.dead.values() {
            let entry = dead.entry(&letter.name).or_insert((0, letter));
            // They are kept in the order in which they died.
            *entry = (entry.0 + 1, letter);
        }
        let refused: serde_json::Map<String, Value> = self
            .counters
            .refused
            .iter()
            .map(|(code, count)| (code.code().to_owned(), (*count).into()))
            .collect();
        json!({
            "online": report.online,
            "away": report.away,
            "connections": report.connections,
            "calls_per_second": self.pace.per_second(self.now),
            "open_calls": report.open_calls,
            "waiting": report.waiting,
            "waiting_bytes": report.waiting_bytes,
            "totals": {
                "requests": self.counters.requests,
                "repeated": self.counters.repeated,
                "deliveries": self.counters.deliveries,
                "redeliveries": self.counters.redeliveries,
                "responses": self.counters.responses,
                "late": self.counters.late,
                "orphans": self.counters.orphans,
                "dropped": self.counters.dropped,
                "refused": refused,
            },
            "services": services.into_iter().map(|service| service.json).collect::<Vec<_>>(),
            "queues": queues
                .into_iter()
                .map(|(name, waiting)| json!({"queue": name, "waiting": waiting}))
                .collect::<Vec<_>>(),
            "durable": durable
                .into_iter()
                .map(|place| json!({
                    "name": place.pattern.as_str(),
                    "owner": place.owner,
                    "queue": place.group,
                    "waiting": place.messages.len(),
                    "members": place.members.len(),
                }))
                .collect::<Vec<_>>(),
            "durable_messages": report.durable_messages,
            "dead_letters": report.dead_letters,
            "dead": dead
                .into_iter()
                .take(OVERVIEW_ENTRIES_MAX)
                .map(|(name, (count, newest))| json!({
                    "name": name,
                    "count": count,
                    "newest": {
                        "at": newest.at_ms,
                        "attempts": newest.attempts,
                        "error": newest.error,
                    },
                }))
                .collect::<Vec<_>>(),
        })
    }

    /// Every instance that is online, in the order of their ids.
    pub fn services(&self) -> Vec<ServiceReport> {
        let mut all: Vec<ServiceReport> = self
            .instances
            .values()
            .filter(|instance| instance.online)
            .map(|instance| {
                let mut subscribed: Vec<&str> = instance
                    .subscriptions
                    .iter()
                    .map(|s| s.pattern.as_str())
                    .collect();
                if instance.local {
                    subscribed.extend(self.settings.local.iter());
                }
                subscribed.sort_unstable();
                subscribed.dedup();
                let waiting = instance
                    .queues
                    .keys()
                    .filter_map(|queue| self.lines.get(queue))
                    .map(|line| line.calls.len())
                    .sum::<usize>();
                let queues: Vec<&str> = instance
                    .queues
                    .keys()
                    .map(|queue| &**queue)
                    .filter(|queue| !queue.is_empty())
                    .collect();
                ServiceReport {
                    id: instance.id.to_string(),
                    json: json!({
                        "id": &*instance.id,
                        "name": &*instance.name,
                        "subscribed_events": subscribed,
                        "state": "online",
                        "connected_at": instance.connected_at.millis(),
                        "protocol": instance.protocol,
                        "queue_depth": waiting,
                        "in_flight": instance.in_flight,
                        "version": instance.version,
                        "catch_all": instance.catch_all,
                        "queues": queues,
                        "slow": instance.slow.is_some(),
                        "key": instance.grant.key_id,
                    }),
                }
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Every name and pattern that somebody listens to.
    pub fn subjects(&self) -> Vec<SubjectReport> {
        let id = |no: &u64| self.instances.get(no).map(|i| i.id.to_string());
        self.index
            .subjects()
            .into_iter()
            .map(|name| {
                let mut plain = Vec::new();
                let mut groups = serde_json::Map::new();
                let mut durable = Vec::new();
                for entry in self.index.entries(&name) {
                    match entry {
                        Entry::Plain(no) => plain.extend(id(&no)),
                        Entry::Group(queue, no) => {
                            let list = groups.entry(&*queue).or_insert_with(|| json!([]));
                            if let (Value::Array(list), Some(id)) = (list, id(&no)) {
                                list.push(id.into());
                            }
                        }
                        Entry::Durable(no) => {
                            if let Some(place) = self.durables.all.get(&no) {
                                let members: Vec<String> =
                                    place.members.iter().filter_map(|m| id(&m.no)).collect();
                                durable.push(json!({
                                    "owner": place.owner,
                                    "waiting": place.messages.len(),
                                    "members": members,
                                }));
                            }
                        }
                    }
                }
                let json = json!({"plain": plain, "groups": groups, "durable": durable});
                SubjectReport { name, json }
            })
            .collect()
    }

    /// The dead letters of a name, the oldest first.
    pub fn dead(&self, name: &str) -> Vec<DeadLetter> {
        self.durables
            .dead
            .iter()
            .filter(|(_, dead)| dead.name == name)
            .map(|(number, dead)| DeadLetter {
                json: format!(
                    "{{\"id\":{number},\"attempts\":{},\"at\":{},\"error\":{},\"request\":{}}}",
                    dead.attempts,
                    dead.at_ms,
                    json!(dead.error),
                    dead.body,
                ),
            })
            .collect()
    }
}
