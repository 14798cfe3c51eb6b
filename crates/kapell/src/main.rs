//! Kapell.
fn main() {}
