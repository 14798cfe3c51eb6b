//! The stores that several simulated coordinators share.
//!
//! Owns: a journal and a cluster as far as a network makes them: late, cut off, with lost answers. Never: knows the
//! simulation that is built around them, so that the contract suites hold them to the same promises as real ones.
pub mod shared;
