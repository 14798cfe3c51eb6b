//! A run to start.
use std::sync::Arc;

use kapell_kernel::ParentRef;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest};
use kapell_model::{Json, Name, RunId};
use kapell_proto::peer::v1 as proto;

use crate::entry;
use crate::error::DecodeError;
use crate::field::{self, name, required, sent_json};

/// A run to start, with the workflow by its name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its id; the same id starts it once.
    pub run: RunId,
    /// What it follows.
    pub workflow: WorkflowVersion,
    /// Runs of one key are handled in order.
    pub key: Option<Arc<str>>,
    /// The CloudEvent.
    pub event: Json,
    /// Who started it, for a subworkflow.
    pub parent: Option<ParentRef>,
    /// How many runs are above it.
    pub nesting: u32,
}

/// One version of a workflow. The digest finds it; the names are for whoever does not know the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowVersion {
    /// Of the definition.
    pub digest: DefinitionDigest,
    /// Tenant.
    pub namespace: Name,
    /// Name.
    pub name: Name,
}

impl WorkflowVersion {
    /// The version that this is.
    #[must_use]
    pub fn of(workflow: &CompiledWorkflow) -> WorkflowVersion {
        WorkflowVersion {
            digest: workflow.digest,
            namespace: workflow.namespace.clone(),
            name: workflow.name.clone(),
        }
    }
}

impl Start {
    /// As it is sent.
    #[must_use]
    pub fn to_proto(&self) -> proto::StartRun {
        proto::StartRun {
            run: self.run.to_bytes().to_vec(),
            workflow: Some(proto::WorkflowRef {
                digest: self.workflow.digest.0.to_vec(),
                namespace: self.workflow.namespace.to_string(),
                name: self.workflow.name.to_string(),
            }),
            key: self.key.as_ref().map(ToString::to_string),
            event: entry::write::text(&self.event),
            parent: self.parent.map(entry::write::parent),
            nesting: self.nesting,
        }
    }

    /// From a peer.
    pub fn from_proto(start: proto::StartRun) -> Result<Start, DecodeError> {
        let workflow = required("StartRun.workflow", start.workflow)?;
        Ok(Start {
            run: field::run("StartRun.run", &start.run)?,
            workflow: WorkflowVersion {
                digest: field::digest("WorkflowRef.digest", &workflow.digest)?,
                namespace: name("WorkflowRef.namespace", &workflow.namespace)?,
                name: name("WorkflowRef.name", &workflow.name)?,
            },
            key: start.key.map(Arc::from),
            event: sent_json("StartRun.event", &start.event)?,
            parent: start.parent.map(entry::read::parent).transpose()?,
            nesting: start.nesting,
        })
    }
}
