//! The definitions that the tests run on.
use std::sync::{Arc, LazyLock};

use kapell_model::catalogue::Catalogue;
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest};
use kapell_model::source::SourceFile;
use kapell_model::validate::load;
use kapell_model::{Name, RunId, ShardId};
use kapell_wire::Definitions;

/// Definitions in force.
pub(crate) struct World(pub(crate) Catalogue);

impl Definitions for World {
    fn by_digest(&self, digest: DefinitionDigest) -> Option<Arc<CompiledWorkflow>> {
        self.0.by_digest(digest).cloned()
    }
}

impl World {
    pub(crate) fn workflow(&self, workflow: &str) -> Arc<CompiledWorkflow> {
        self.0.workflow(&name("retail"), &name(workflow)).unwrap().clone()
    }
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let text = include_str!("definitions.yaml").to_owned();
    let loaded = load(&[SourceFile { name: "definitions.yaml".to_owned(), text }]);
    World(loaded.unwrap_or_else(|wrong| panic!("{wrong:#?}")).catalogue)
});

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn run_id(low: u128) -> RunId {
    RunId::new(ShardId(3), low)
}
