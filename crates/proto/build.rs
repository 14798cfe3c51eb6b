//! Compiles `proto/` with protox, so that nobody needs a protoc.
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message as _;

const FILES: [&str; 13] = [
    "io/cloudevents/v1/cloudevents.proto",
    "kapell/v1/task.proto",
    "kapell/v1/worker.proto",
    "kapell/v1/connector.proto",
    "kapell/v1/events.proto",
    "kapell/v1/runs.proto",
    "kapell/v1/approvals.proto",
    "kapell/v1/resources.proto",
    "kapell/v1/schedules.proto",
    "kapell/v1/admin.proto",
    "kapell/journal/v1/image.proto",
    "kapell/peer/v1/peer.proto",
    "externalscaler/externalscaler.proto",
];

fn main() -> io::Result<()> {
    let root = Path::new("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [root]).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    fs::write(out.join("kapell.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)
}
