//! The definitions in force, and the versions that runs are pinned to.
//!
//! Owns: turning the changes in the control shard's journal into a catalogue, and telling everybody of a new one.
//! Never: accepts a set that does not hold together.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kapell_model::catalogue::Catalogue;
use kapell_model::definition::{API_VERSION, Definition, Kind};
use kapell_model::diagnostic::Diagnostic;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest, compile};
use kapell_model::{Json, Name, RunId, ShardId, validate};
use kapell_wire::{DefinitionRecord, DefinitionsImage};
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
}

#[cfg(test)]
impl InForce {
    /// What these documents say.
    pub(crate) fn of(documents: &[serde_json::Value]) -> Arc<InForce> {
        let definitions = Definitions::default();
        let changes: Vec<DefinitionRecord> = documents
            .iter()
            .map(|document| DefinitionRecord { document: Json::of(document), removed: false, revision: 1 })
            .collect();
        definitions.apply(&changes).unwrap();
        assert_eq!(definitions.in_force().documents.len(), documents.len(), "one of them cannot be read");
        definitions.in_force()
    }
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
        let mut revision = before.revision;
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
            if change.removed {
                documents.remove(&place(&definition));
            } else {
                documents.insert(place(&definition), definition);
            }
        }
        let texts = documents.values().map(text).collect();
        let catalogue = validate::catalogue(documents.into_values().collect())?;
        self.current.send_replace(Arc::new(InForce { revision, catalogue, documents: texts }));
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

    /// Takes in what the checkpoint of the control shard holds.
    pub fn load(&self, image: DefinitionsImage) -> Result<(), Vec<Diagnostic>> {
        for document in &image.former {
            if let Some(Definition::Workflow(workflow)) = read(document)
                && let Ok(compiled) = compile(&workflow)
            {
                self.pin(Arc::new(compiled));
            }
        }
        let revision = image.revision;
        let records: Vec<DefinitionRecord> = image
            .current
            .into_iter()
            .map(|document| DefinitionRecord { document, removed: false, revision })
            .collect();
        self.apply(&records)
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
