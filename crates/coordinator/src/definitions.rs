//! The definitions in force, and the versions that runs are pinned to.
//!
//! Owns: turning the changes in the control shard's journal into a catalogue, and telling everybody of a new one.
//! Never: accepts a set that does not hold together.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kapell_model::catalogue::Catalogue;
use kapell_model::definition::{API_VERSION, Definition, Kind, Schedule};
use kapell_model::diagnostic::Diagnostic;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest, compile};
use kapell_model::{Json, Name, RunId, ShardId, Timestamp, validate};
use kapell_wire::{DefinitionRecord, DefinitionsImage, ScheduleSince};
use tokio::sync::watch;

/// The id under which the control shard keeps the definitions. No run has it: it has no entropy.
pub(crate) fn control_run() -> RunId {
    RunId::new(ShardId(0), 0)
}

/// One revision of all definitions.
#[derive(Debug, Default)]
pub struct InForce {
    /// Rises with every change.
    pub revision: u64,
    /// Compiled.
    pub catalogue: Catalogue,
    /// As JSON documents, in order of kind, namespace and name.
    pub documents: Vec<Json>,
    /// From when the ticks of each schedule count, by namespace and name.
    since: BTreeMap<(Name, Name), Timestamp>,
}

impl InForce {
    /// From when the ticks of a schedule count: when it was created, or its times were changed last. Known from the
    /// control shard's journal, so it is the same on every node, however late a node learns of the schedule.
    pub(crate) fn counts_from(&self, namespace: &Name, name: &Name) -> Option<Timestamp> {
        self.since.get(&(namespace.clone(), name.clone())).copied()
    }

    /// The same for all schedules.
    pub(crate) fn since(&self) -> impl Iterator<Item = ScheduleSince> {
        let of = |((namespace, name), since): (&(Name, Name), &Timestamp)| ScheduleSince {
            namespace: namespace.clone(),
            name: name.clone(),
            since: *since,
        };
        self.since.iter().map(of)
    }
}

#[cfg(test)]
impl InForce {
    /// What these documents say.
    pub(crate) fn of(documents: &[serde_json::Value]) -> Arc<InForce> {
        let definitions = Definitions::default();
        let changes: Vec<DefinitionRecord> =
            documents.iter().map(|document| change(document, Timestamp(0))).collect();
        definitions.apply(&changes).unwrap();
        assert_eq!(definitions.in_force().documents.len(), documents.len(), "one of them cannot be read");
        definitions.in_force()
    }
}

/// A definition that was applied then.
#[cfg(test)]
pub(crate) fn change(document: &serde_json::Value, at: Timestamp) -> DefinitionRecord {
    DefinitionRecord { document: Json::of(document), removed: false, revision: 1, at }
}

type Place = (Kind, Name, Name);

/// All revisions that still matter.
pub struct Definitions {
    current: watch::Sender<Arc<InForce>>,
    pinned: Mutex<BTreeMap<DefinitionDigest, Arc<CompiledWorkflow>>>,
}

impl Default for Definitions {
    fn default() -> Definitions {
        Definitions { current: watch::channel(Arc::default()).0, pinned: Mutex::default() }
    }
}

impl Definitions {
    /// What is in force now.
    pub fn in_force(&self) -> Arc<InForce> {
        self.current.borrow().clone()
    }

    /// Learns of every new revision.
    pub fn subscribe(&self) -> watch::Receiver<Arc<InForce>> {
        self.current.subscribe()
    }

    /// Puts changes in force that are on disk.
    pub fn apply(&self, changes: &[DefinitionRecord]) -> Result<(), Vec<Diagnostic>> {
        let before = self.in_force();
        let mut documents: BTreeMap<Place, Definition> = BTreeMap::new();
        for document in &before.documents {
            if let Some(definition) = read(document) {
                documents.insert(place(&definition), definition);
            }
        }
        let (mut revision, mut since) = (before.revision, before.since.clone());
        for change in changes {
            revision = revision.max(change.revision);
            let Some(definition) = read(&change.document) else {
                tracing::error!(
                    revision = change.revision,
                    "a stored definition cannot be read; it is left out"
                );
                continue;
            };
            if let Definition::Workflow(workflow) = &definition
                && let Ok(compiled) = compile(workflow)
            {
                self.pin(Arc::new(compiled));
            }
            let place = place(&definition);
            let replaced = documents.remove(&place);
            if let Definition::Schedule(schedule) = &definition
                && (change.removed || !is_same_time(replaced.as_ref(), &schedule.spec))
            {
                since.insert((place.1.clone(), place.2.clone()), change.at);
            }
            if !change.removed {
                documents.insert(place, definition);
            }
        }
        since.retain(|(namespace, name), _| {
            documents.contains_key(&(Kind::Schedule, namespace.clone(), name.clone()))
        });
        let texts = documents.values().map(text).collect();
        let catalogue = validate::catalogue(documents.into_values().collect())?;
        self.current.send_replace(Arc::new(InForce { revision, catalogue, documents: texts, since }));
        Ok(())
    }

    fn pin(&self, workflow: Arc<CompiledWorkflow>) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.insert(workflow.digest, workflow);
    }

    /// The versions of workflows that are not in force any more, as documents.
    pub fn former(&self) -> Vec<Json> {
        let in_force = self.in_force();
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let former =
            pinned.values().filter(|workflow| in_force.catalogue.by_digest(workflow.digest).is_none());
        former.map(|workflow| document_of(workflow)).collect()
    }

    /// Takes in what the checkpoint of the control shard holds. The ticks of a schedule of which it does not say from when
    /// they count, count from `now`.
    pub fn load(&self, image: DefinitionsImage, now: Timestamp) -> Result<(), Vec<Diagnostic>> {
        for document in &image.former {
            if let Some(Definition::Workflow(workflow)) = read(document)
                && let Ok(compiled) = compile(&workflow)
            {
                self.pin(Arc::new(compiled));
            }
        }
        let since: BTreeMap<(Name, Name), Timestamp> =
            image.since.into_iter().map(|known| ((known.namespace, known.name), known.since)).collect();
        let at = |document: &Json| match read(document) {
            Some(Definition::Schedule(schedule)) => {
                let place = (schedule.metadata.namespace, schedule.metadata.name);
                since.get(&place).copied().unwrap_or(now)
            }
            Some(_) | None => now,
        };
        let revision = image.revision;
        let records: Vec<DefinitionRecord> = image
            .current
            .into_iter()
            .map(|document| DefinitionRecord { at: at(&document), document, removed: false, revision })
            .collect();
        self.apply(&records)
    }
}

/// Whether a schedule's ticks are those of the one that it replaces.
fn is_same_time(replaced: Option<&Definition>, schedule: &Schedule) -> bool {
    let Some(Definition::Schedule(replaced)) = replaced else { return false };
    let times = |schedule: &Schedule| (schedule.cron.clone(), schedule.time_zone.clone(), schedule.suspend);
    times(&replaced.spec) == times(schedule)
}

fn document_of(workflow: &CompiledWorkflow) -> Json {
    Json::of(&serde_json::json!({
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": { "name": workflow.name.as_str(), "namespace": workflow.namespace.as_str() },
        "spec": workflow.source.value(),
    }))
}

impl kapell_wire::Definitions for Definitions {
    fn by_digest(&self, digest: DefinitionDigest) -> Option<Arc<CompiledWorkflow>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }
}

fn read(document: &Json) -> Option<Definition> {
    serde_json::from_str(document.as_str()).ok()
}

/// The canonical text of a definition.
pub(crate) fn text(definition: &Definition) -> Json {
    Json::of(&serde_json::to_value(definition).unwrap_or_default())
}

pub(crate) fn place(definition: &Definition) -> Place {
    let metadata = definition.metadata();
    (definition.kind(), metadata.namespace.clone(), metadata.name.clone())
}
