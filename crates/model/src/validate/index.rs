//! Looking up what one definition says about another, within one namespace.
//!
//! Owns: the difference between what does not exist and what is there but broken. Never: reports anything.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::shape;
use crate::definition::{Connection, Connector, Definition, Kind, Metadata, Skill, Tool, Workflow};
use crate::field::similar;
use crate::{Name, ToolRef};

/// What a look-up finds.
pub(super) enum Lookup<T> {
    /// It is there and sound.
    Found(T),
    /// It is there, but was reported already; nothing more can be said.
    Broken,
    /// It is not there.
    Missing { near: Option<String>, elsewhere: Option<Name> },
}

/// Everything of one sort, by namespace and name.
pub(super) struct Table<T> {
    sound: BTreeMap<Name, BTreeMap<String, T>>,
    broken: BTreeSet<(String, String)>,
    /// A document could not be read at all, so anything might be in it.
    unreadable: bool,
}

/// A skill with what is said about its specialist.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) specialist: &'a Name,
    pub(super) skill: &'a Skill,
}

/// All tables.
pub(super) struct Index<'a> {
    pub(super) connectors: Table<&'a Connector>,
    pub(super) connections: Table<&'a Connection>,
    pub(super) workflows: Table<&'a Workflow>,
    pub(super) skills: Table<Offer<'a>>,
}

impl<T: Copy> Table<T> {
    fn new(unreadable: bool) -> Table<T> {
        Table { sound: BTreeMap::new(), broken: BTreeSet::new(), unreadable }
    }

    /// The first of a name stays; a second is reported elsewhere.
    fn insert(&mut self, namespace: &Name, name: &str, what: T) {
        self.sound.entry(namespace.clone()).or_default().entry(name.to_owned()).or_insert(what);
    }

    fn break_off(&mut self, namespace: String, name: String) {
        self.broken.insert((namespace, name));
    }

    pub(super) fn get(&self, namespace: &Name, name: &str) -> Lookup<T> {
        let here = self.sound.get(namespace);
        if let Some(found) = here.and_then(|names| names.get(name)) {
            return Lookup::Found(*found);
        }
        if self.unreadable || self.broken.contains(&(namespace.to_string(), name.to_owned())) {
            return Lookup::Broken;
        }
        Lookup::Missing {
            near: here.and_then(|names| similar(name, names.keys().map(String::as_str))),
            elsewhere: self
                .sound
                .iter()
                .find(|(_, names)| names.contains_key(name))
                .map(|(other, _)| other.clone()),
        }
    }

    /// Names of a namespace in order, broken ones included.
    pub(super) fn names(&self, namespace: &Name) -> Vec<&str> {
        let sound = self.sound.get(namespace).into_iter().flat_map(BTreeMap::keys).map(String::as_str);
        let broken =
            self.broken.iter().filter(|(of, _)| *of == namespace.as_str()).map(|(_, name)| name.as_str());
        sound.chain(broken).collect()
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.unreadable
    }
}

impl<'a> Index<'a> {
    /// From sound definitions, and the values of documents that were read but misshapen.
    pub(super) fn new(
        sound: impl Iterator<Item = &'a Definition>,
        misshapen: &[Value],
        unreadable: bool,
    ) -> Index<'a> {
        let unreadable = unreadable || misshapen.iter().any(|document| shape::kind_of(document).is_none());
        let mut index = Index {
            connectors: Table::new(unreadable),
            connections: Table::new(unreadable),
            workflows: Table::new(unreadable),
            skills: Table::new(unreadable),
        };
        sound.for_each(|definition| index.add(definition));
        misshapen.iter().for_each(|document| index.add_broken(document));
        index
    }

    fn add(&mut self, definition: &'a Definition) {
        let Metadata { namespace, name, .. } = definition.metadata();
        match definition {
            Definition::Workflow(document) => self.workflows.insert(namespace, name.as_str(), &document.spec),
            Definition::Connector(document) => {
                self.connectors.insert(namespace, name.as_str(), &document.spec)
            }
            Definition::Connection(document) => {
                self.connections.insert(namespace, name.as_str(), &document.spec)
            }
            Definition::Specialist(document) => {
                for skill in &document.spec.skills {
                    self.skills.insert(namespace, &skill.name, Offer { specialist: name, skill });
                }
            }
            Definition::Policy(_) | Definition::Schedule(_) => {}
        }
    }

    fn add_broken(&mut self, document: &Value) {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let namespace = text("/metadata/namespace").unwrap_or_else(|| Name::default_namespace().to_string());
        let name = text("/metadata/name").unwrap_or_default();
        match shape::kind_of(document) {
            Some(Kind::Workflow) => self.workflows.break_off(namespace, name),
            Some(Kind::Connector) => self.connectors.break_off(namespace, name),
            Some(Kind::Connection) => self.connections.break_off(namespace, name),
            Some(Kind::Specialist) => {
                let skills = document.pointer("/spec/skills").and_then(Value::as_array).into_iter().flatten();
                for skill in skills.filter_map(|skill| skill.get("name")?.as_str()) {
                    self.skills.break_off(namespace.clone(), skill.to_owned());
                }
            }
            Some(Kind::Policy | Kind::Schedule) | None => {}
        }
    }

    /// A tool as far as its connection and connector are sound.
    pub(super) fn tool(&self, namespace: &Name, wanted: &ToolRef) -> Option<&'a Tool> {
        let Lookup::Found(connection) = self.connections.get(namespace, wanted.connection.as_str()) else {
            return None;
        };
        let Lookup::Found(connector) = self.connectors.get(namespace, connection.connector.as_str()) else {
            return None;
        };
        connector.tool(&wanted.tool)
    }
}
