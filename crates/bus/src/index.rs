//! Who listens to a name (service bus, sections 6, 10 and 14).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{Grant, Pattern, bus::InstanceNo};

/// Names whose listeners are kept looked up. Requests use few names; a sender of many only makes the
/// table be made anew.
const CACHED_NAMES_MAX: usize = 4_096;

/// Everyone who listens to one name.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) plain: Vec<InstanceNo>,
    pub(crate) groups: Vec<(Arc<str>, Vec<InstanceNo>)>,
    pub(crate) durables: Vec<u64>,
}

#[derive(Default)]
pub(crate) struct Index {
    exact: HashMap<Arc<str>, BTreeSet<Entry>>,
    wild: BTreeSet<(Pattern, Entry)>,
    catch_all: BTreeMap<InstanceNo, Arc<Grant>>,
    cache: HashMap<Arc<str>, Arc<Route>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Plain(InstanceNo),
    Group(Arc<str>, InstanceNo),
    Durable(u64),
}

impl Index {
    pub(crate) fn add(&mut self, pattern: &Pattern, entry: Entry) {
        self.cache.clear();
        if pattern.is_plain() {
            let entries = self.exact.entry(pattern.as_str().into()).or_default();
            entries.insert(entry);
        } else {
            self.wild.insert((pattern.clone(), entry));
        }
    }

    pub(crate) fn remove(&mut self, pattern: &Pattern, entry: &Entry) {
        self.cache.clear();
        if let Some(entries) = self.exact.get_mut(pattern.as_str()) {
            entries.remove(entry);
            if entries.is_empty() {
                self.exact.remove(pattern.as_str());
            }
        }
        self.wild.remove(&(pattern.clone(), entry.clone()));
    }

    pub(crate) fn set_catch_all(&mut self, no: InstanceNo, grant: Option<Arc<Grant>>) {
        self.cache.clear();
        match grant {
            Some(grant) => drop(self.catch_all.insert(no, grant)),
            None => drop(self.catch_all.remove(&no)),
        }
    }

    /// Everyone who listens to `name`, each once in its role.
    pub(crate) fn route(&mut self, name: &str) -> Arc<Route> {
        if let Some(route) = self.cache.get(name) {
            return route.clone();
        }
        let mut entries: BTreeSet<Entry> = self.exact.get(name).cloned().unwrap_or_default();
        for (pattern, entry) in &self.wild {
            if pattern.matches(name) {
                entries.insert(entry.clone());
            }
        }
        for (no, grant) in &self.catch_all {
            if grant.may_hear(name) {
                entries.insert(Entry::Plain(*no));
            }
        }
        let mut route = Route::default();
        for entry in entries {
            match entry {
                Entry::Plain(no) => route.plain.push(no),
                Entry::Durable(no) => route.durables.push(no),
                // The set is ordered, so a group's members stand together.
                Entry::Group(queue, no) => match route.groups.last_mut() {
                    Some((last, members)) if *last == queue => members.push(no),
                    _ => route.groups.push((queue, vec![no])),
                },
            }
        }
        let route = Arc::new(route);
        if self.cache.len() >= CACHED_NAMES_MAX {
            self.cache.clear();
        }
        self.cache.insert(name.into(), route.clone());
        route
    }

    /// Every exact name and pattern that somebody listens to.
    pub(crate) fn subjects(&self) -> BTreeSet<String> {
        let exact = self.exact.keys().map(|name| name.to_string());
        let wild = self.wild.iter().map(|(pattern, _)| pattern.to_string());
        exact.chain(wild).collect()
    }

    pub(crate) fn entries(&self, subject: &str) -> Vec<Entry> {
        let exact = self.exact.get(subject).into_iter().flatten().cloned();
        let wild = self
            .wild
            .iter()
            .filter(|(pattern, _)| pattern.as_str() == subject)
            .map(|(_, entry)| entry.clone());
        exact.chain(wild).collect()
    }
}
