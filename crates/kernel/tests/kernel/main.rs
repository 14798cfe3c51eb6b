//! What the run machine promises, tested from outside: named behaviours, every history to a depth, random ones
//! beyond it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one variant and fails on all others")]
#![expect(clippy::print_stdout, reason = "how many states were seen, for whoever wants to know")]

mod bench;
mod calls;
mod children;
mod damaged;
mod exhaustive;
mod flow;
mod judging;
mod limits;
mod menu;
mod people;
mod random;
mod undoing;
mod waiting;
