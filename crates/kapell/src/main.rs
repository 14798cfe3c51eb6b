//! `kapell`: one binary that plays any role, and the command line.
//!
//! Owns: reading settings, choosing backends, running roles, exit codes. Never: decides about runs.
mod cli;
mod demo;
mod roles;
mod settings;

use std::process::ExitCode;

/// Many small values go from thread to thread; the system's allocator takes half as long again for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Some kernels give memory in pages of 2 MiB to whoever does not refuse, and an idle node then takes a third more.
    // One that cannot switch that off costs memory, nothing else.
    let _unchanged = rustix::thread::disable_transparent_huge_pages(true);
    // One TLS provider in the whole process, whatever a dependency would choose.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    cli::main()
}
