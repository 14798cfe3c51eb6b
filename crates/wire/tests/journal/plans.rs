//! A plan made for one run is stored as a spec that compiles to it.
use kapell_kernel::{Entry, PlanSource};
use kapell_wire::{RecordBody, RecordRef, decode_record, encode_record};

use crate::samples::AT;
use crate::world::WORLD;

#[test]
fn a_made_plan_compiles_to_itself_again() {
    for name in ["everything", "small"] {
        let plan = WORLD.workflow(name).plan.clone();
        let entry = Entry::PlanMade { source: PlanSource::Made(plan.clone()), reasons: vec![] };
        let bytes = encode_record(AT, RecordRef::Entry(&entry));
        let (_, read) = decode_record(&bytes, &*WORLD).unwrap();
        let RecordBody::Entry(Entry::PlanMade { source: PlanSource::Made(again), .. }) = read else {
            panic!("{read:?}")
        };
        assert_eq!(again, plan);
        // Equality looks at sources; this looks at what they compiled to.
        assert_eq!(format!("{again:?}"), format!("{plan:?}"));
    }
}
