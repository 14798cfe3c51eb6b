//! What is on disk: golden bytes, every state of a run, damaged bytes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod damage;
mod driver;
mod golden;
#[path = "../golden_files/mod.rs"]
mod golden_files;
mod images;
mod plans;
mod samples;
mod schedules;
mod world;
