//! The definitions in force, and the versions that runs are pinned to.
//!
//! Owns: turning the changes in the control shard's journal into a catalogue, and telling everybody of a new one.
//! Never: accepts a set that does not hold together.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use kapell_journal::{Journal, ReadError};
use kapell_model::catalogue::Catalogue;
use kapell_model::definition::{API_VERSION, Definition, Kind, Schedule};
use kapell_model::diagnostic::Diagnostic;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest, compile};
use kapell_model::{Json, Name, RunId, ShardId, Timestamp, validate};
use kapell_wire::{
    DecodeError, DefinitionRecord, DefinitionsImage, Image, RecordBody, ScheduleSince, decode_image,
    decode_record,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// The shard that keeps the definitions.
pub(crate) const CONTROL: ShardId = ShardId(0);

/// The id under which the control shard keeps the definitions. No run has it: it has no entropy.
pub(crate) fn control_run() -> RunId {
    RunId::new(CONTROL, 0)
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
    since: Since,
}

impl InForce {
    /// From when the ticks of a schedule count: when it was created, or its times were changed last. Known from the
    /// control shard's journal, so it is the same on every node, however late a node learns of the schedule. `None`: it
    /// is from before anybody kept that.
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

/// From when the ticks of each schedule count, by namespace and name.
type Since = BTreeMap<(Name, Name), Timestamp>;

/// All revisions that still matter.
pub struct Definitions {
    current: watch::Sender<Arc<InForce>>,
    pinned: Mutex<Pinned>,
    /// When the control shard was read last: the moment before.
    followed: tokio::sync::Mutex<Option<Instant>>,
}

/// Every version of a workflow that was ever in force and may have runs.
#[derive(Default)]
struct Pinned {
    workflows: BTreeMap<DefinitionDigest, Arc<CompiledWorkflow>>,
    /// Types of events that some run may wait for, in each namespace.
    awaited: BTreeMap<Name, BTreeSet<String>>,
}

impl Default for Definitions {
    fn default() -> Definitions {
        Definitions {
            current: watch::channel(Arc::default()).0,
            pinned: Mutex::default(),
            followed: tokio::sync::Mutex::default(),
        }
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
        let mut base = Base::of(before.revision, &before.documents, before.since.clone());
        changes.iter().for_each(|change| self.change(&mut base, change));
        self.current.send_replace(Arc::new(base.in_force()?));
        Ok(())
    }

    /// Puts one change on top.
    fn change(&self, base: &mut Base, change: &DefinitionRecord) {
        base.revision = base.revision.max(change.revision);
        let Some(definition) = read_stored(change.revision, &change.document) else { return };
        self.pin_if_workflow(&definition);
        let place = place(&definition);
        let replaced = base.documents.remove(&place);
        if let Definition::Schedule(schedule) = &definition {
            let at = (place.1.clone(), place.2.clone());
            if change.removed {
                base.since.remove(&at);
            } else if !base.since.contains_key(&at) || !is_same_time(replaced.as_ref(), &schedule.spec) {
                base.since.insert(at, change.at);
            }
        }
        if !change.removed {
            base.documents.insert(place, definition);
        }
    }

    fn pin_if_workflow(&self, definition: &Definition) {
        if let Definition::Workflow(workflow) = definition
            && let Ok(compiled) = compile(workflow)
        {
            self.pin(Arc::new(compiled));
        }
    }

    fn pin(&self, workflow: Arc<CompiledWorkflow>) {
        let mut pinned = self.pinned();
        let awaited = pinned.awaited.entry(workflow.namespace.clone()).or_default();
        awaited.extend(workflow.awaited().map(str::to_owned));
        pinned.workflows.insert(workflow.digest, workflow);
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run may wait for events of the type. Most events only start runs, and need not be shown to every shard.
    pub(crate) fn awaits(&self, namespace: &Name, event_type: &str) -> bool {
        self.pinned().awaited.get(namespace).is_some_and(|types| types.contains(event_type))
    }

    /// The versions of workflows that are not in force any more, as documents.
    pub fn former(&self) -> Vec<Json> {
        let in_force = self.in_force();
        let pinned = self.pinned();
        let former = pinned
            .workflows
            .values()
            .filter(|workflow| in_force.catalogue.by_digest(workflow.digest).is_none());
        former.map(|workflow| document_of(workflow)).collect()
    }

    /// Reads what the control shard holds by now.
    pub(crate) async fn follow(&self, journal: &dyn Journal) -> Result<(), Unreadable> {
        let (mut stored, mut changes) = (DefinitionsImage::default(), Vec::new());
        let mut images = journal.images(CONTROL);
        while let Some(image) = images.next().await {
            let image = image?;
            let Some(bytes) = image.state.filter(|_| image.run == control_run()) else { continue };
            if let Image::Definitions(found) = decode_image(image.run, &bytes, self)? {
                stored = found;
            }
        }
        for placed in journal.history(control_run()).await? {
            if let (_, RecordBody::Definition(change)) = decode_record(&placed.record.payload, self)? {
                changes.push(change);
            }
        }
        self.adopt(stored, changes)
    }

    /// The same, unless this revision or a later one is known.
    pub(crate) async fn follow_to(&self, revision: u64, journal: &dyn Journal) -> Result<(), Unreadable> {
        if self.in_force().revision < revision { self.follow(journal).await } else { Ok(()) }
    }

    /// As [`Definitions::follow`], unless that was done after this moment already: shards that come together do it once.
    pub(crate) async fn follow_after(
        &self,
        moment: Instant,
        journal: &dyn Journal,
    ) -> Result<(), Unreadable> {
        let mut followed = self.followed.lock().await;
        if followed.is_none_or(|followed| followed < moment) {
            let now = Instant::now();
            self.follow(journal).await?;
            *followed = Some(now);
        }
        Ok(())
    }

    /// Puts in force what the control shard holds: its checkpoint, and what came after. What is known already stays as
    /// it is when it is as new.
    pub(crate) fn adopt(
        &self,
        stored: DefinitionsImage,
        changes: Vec<DefinitionRecord>,
    ) -> Result<(), Unreadable> {
        for document in stored.former.iter().chain(&stored.current) {
            if let Some(definition) = read(document) {
                self.pin_if_workflow(&definition);
            }
        }
        let since = stored.since.into_iter().map(|known| ((known.namespace, known.name), known.since));
        let mut base = Base::of(stored.revision, &stored.current, since.collect());
        changes.iter().for_each(|change| self.change(&mut base, change));
        let read = base.in_force()?;
        self.current.send_if_modified(|current| {
            let is_newer = read.revision > current.revision;
            if is_newer {
                *current = Arc::new(read);
            }
            is_newer
        });
        Ok(())
    }
}

/// What changes come on top of.
struct Base {
    revision: u64,
    documents: BTreeMap<Place, Definition>,
    since: Since,
}

impl Base {
    fn of(revision: u64, documents: &[Json], since: Since) -> Base {
        let stored = documents.iter().filter_map(|document| read_stored(revision, document));
        Base {
            revision,
            documents: stored.map(|definition| (place(&definition), definition)).collect(),
            since,
        }
    }

    /// What follows, if it holds together.
    fn in_force(self) -> Result<InForce, Vec<Diagnostic>> {
        let Base { revision, documents, since } = self;
        let texts = documents.values().map(text).collect();
        let catalogue = validate::catalogue(documents.into_values().collect())?;
        Ok(InForce { revision, catalogue, documents: texts, since })
    }
}

/// Whether a schedule's ticks are those of the one that it replaces.
fn is_same_time(replaced: Option<&Definition>, schedule: &Schedule) -> bool {
    let Some(Definition::Schedule(replaced)) = replaced else { return false };
    let times = |schedule: &Schedule| (schedule.cron.clone(), schedule.time_zone.clone(), schedule.suspend);
    times(&replaced.spec) == times(schedule)
}

/// Why the definitions in the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// What is stored does not mean anything to this program.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// They do not hold together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsound(Vec<Diagnostic>),
}

impl From<Vec<Diagnostic>> for Unreadable {
    fn from(found: Vec<Diagnostic>) -> Unreadable {
        Unreadable::Unsound(found)
    }
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
        self.pinned().workflows.get(&digest).cloned()
    }
}

fn read(document: &Json) -> Option<Definition> {
    serde_json::from_str(document.as_str()).ok()
}

fn read_stored(revision: u64, document: &Json) -> Option<Definition> {
    let definition = read(document);
    if definition.is_none() {
        tracing::error!(revision, "a stored definition cannot be read; it is left out");
    }
    definition
}

/// The canonical text of a definition.
pub(crate) fn text(definition: &Definition) -> Json {
    Json::of(&serde_json::to_value(definition).unwrap_or_default())
}

pub(crate) fn place(definition: &Definition) -> Place {
    let metadata = definition.metadata();
    (definition.kind(), metadata.namespace.clone(), metadata.name.clone())
}
