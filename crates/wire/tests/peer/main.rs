//! What peers say to each other: every kind of it there and back, golden bytes, damaged bytes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod commands;
mod damage;
mod golden;
#[path = "../golden_files/mod.rs"]
mod golden_files;
mod messages;
mod parts;
mod refusals;
mod values;
mod versions;
#[path = "../journal/world.rs"]
mod world;
