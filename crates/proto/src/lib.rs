//! Generated from `proto/`: the only schema language, wire and disk.
//!
//! Owns: nothing but the generated code. Never: a conversion (that is `wire`).
#![allow(clippy::all, missing_docs, reason = "generated")]

// The modules nest as the proto packages do: generated code reaches across them by `super`.
mod generated {
    pub mod kapell {
        pub mod v1 {
            tonic::include_proto!("kapell.v1");
        }
        pub mod journal {
            pub mod v1 {
                tonic::include_proto!("kapell.journal.v1");
            }
        }
        pub mod peer {
            pub mod v1 {
                tonic::include_proto!("kapell.peer.v1");
            }
        }
    }
    pub mod externalscaler {
        tonic::include_proto!("externalscaler");
    }
    pub mod io {
        pub mod cloudevents {
            pub mod v1 {
                tonic::include_proto!("io.cloudevents.v1");
            }
        }
    }
}

/// What KEDA asks.
pub use generated::externalscaler;
/// CloudEvents 1.0 in their protobuf format.
pub use generated::io::cloudevents::v1 as cloudevents;
/// What is on disk.
pub use generated::kapell::journal::v1 as journal;
/// What coordinators of one cluster say to each other.
pub use generated::kapell::peer;
/// The API, the worker stream and the connector stream.
pub use generated::kapell::v1;

/// All of `proto/` for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kapell.bin"));
