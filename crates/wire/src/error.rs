//! Why what was stored or sent cannot be read.
use kapell_kernel::BadImage;
use kapell_model::plan::DefinitionDigest;

/// Why what was stored, or sent by a peer, cannot be read. Nothing is ever skipped: a shard whose journal holds such
/// bytes is not served, and an ask that holds such a value is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No protobuf, or text in it that is not UTF-8; the source says where.
    #[error("the stored bytes cannot be read")]
    Malformed(#[source] prost::DecodeError),
    /// A newer program wrote it. Only a program at least as new may go on from here.
    #[error("{what}, which only a newer program knows; run the version that wrote it, or a later one")]
    Newer {
        /// What is not known.
        what: String,
    },
    /// A field that every version writes is not there.
    #[error("{field} is missing")]
    Missing {
        /// `Message.field`.
        field: &'static str,
    },
    /// A number that stands for nothing that this program knows.
    #[error("{field} has the value {value}, which only a newer program knows")]
    UnknownValue {
        /// `Message.field`.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A text that must be JSON is not.
    #[error("{field} is not JSON")]
    NotJson {
        /// `Message.field`.
        field: &'static str,
    },
    /// A value that cannot be what it should be.
    #[error("{field} is damaged: {reason}")]
    Damaged {
        /// `Message.field`.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The run is pinned to a definition that the journal did not tell before.
    #[error("the run is pinned to definition {digest}, which is not known")]
    UnknownDefinition {
        /// Of the definition.
        digest: DefinitionDigest,
    },
    /// The parts of a run's image do not belong together.
    #[error("the image of a run is damaged")]
    Image(#[source] BadImage),
}
