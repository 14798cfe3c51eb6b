//! Objects that histories are held against.
//!
//! Owns: what each does when nobody else is there. An operation that a system refuses without having done or looked at
//! anything (a full queue) is no operation of these: [`Recorder::forget`](crate::Recorder::forget) it. One of which
//! nobody knows whether it was done stays open.
pub mod key_value;
pub mod register;
pub mod run_life;
pub mod run_start;
pub mod shard_owner;
