//! `kapell`: one binary that plays any role, and the command line.
//!
//! Owns: reading settings, choosing backends, running roles, exit codes. Never: decides about runs.
mod cli;
mod demo;
mod roles;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS provider in the whole process, whatever a dependency would choose.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    cli::main()
}
