//! Images: what a checkpoint holds for one id.
//!
//! Owns: their outermost message. The parts of a run are in `run` and `unit`.
mod run;
mod unit;

use bytes::Bytes;
use kapell_kernel::RunImage;
use kapell_kernel::schedule::ScheduleState;
use kapell_model::{Json, Name, RunId, Timestamp};
use kapell_proto::journal as proto;
use prost::Message as _;

use crate::error::DecodeError;
use crate::field::{json_list, name};
use crate::record::{Definitions, read_whole};
use crate::schedule;

/// What a checkpoint holds for one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A run.
    Run(Box<RunImage>),
    /// A run that is over; only that it was there is remembered, to meet duplicates.
    Ended {
        /// When it ended.
        at: Timestamp,
    },
    /// The definitions, in the control shard.
    Definitions(DefinitionsImage),
    /// A schedule.
    Schedule(Box<ScheduleState>),
}

/// The definitions of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionsImage {
    /// Of all definitions.
    pub revision: u64,
    /// Those in force.
    pub current: Vec<Json>,
    /// Those in force no longer that a run may be pinned to.
    pub former: Vec<Json>,
    /// From when the ticks of each schedule count.
    pub since: Vec<ScheduleSince>,
}

/// From when the ticks of a schedule count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSince {
    /// Tenant.
    pub namespace: Name,
    /// The schedule.
    pub name: Name,
    /// When it was created, or its times were changed.
    pub since: Timestamp,
}

/// Writes one image.
#[must_use]
pub fn encode_image(image: &Image) -> Bytes {
    let texts = |list: &[Json]| list.iter().map(|json| json.as_str().to_owned()).collect();
    let kind = match image {
        Image::Run(run) => proto::image::Kind::Run(run::to_proto(run)),
        Image::Ended { at } => proto::image::Kind::Ended(proto::EndedImage { at_ms: at.0 }),
        Image::Definitions(definitions) => proto::image::Kind::Definitions(proto::DefinitionsImage {
            revision: definitions.revision,
            current: texts(&definitions.current),
            former: texts(&definitions.former),
            since: definitions.since.iter().map(since_to).collect(),
        }),
        Image::Schedule(state) => proto::image::Kind::Schedule(schedule::image_to(state)),
    };
    proto::Image { kind: Some(kind) }.encode_to_vec().into()
}

/// Reads the image that a checkpoint holds under `id`.
pub fn decode_image(id: RunId, bytes: &[u8], definitions: &dyn Definitions) -> Result<Image, DecodeError> {
    let image = read_whole::<proto::Image>(bytes, "Image")?;
    Ok(match image.kind.ok_or(DecodeError::Missing { field: "Image.kind" })? {
        proto::image::Kind::Run(run) => Image::Run(Box::new(run::from_proto(id, run, definitions)?)),
        proto::image::Kind::Ended(ended) => Image::Ended { at: Timestamp(ended.at_ms) },
        proto::image::Kind::Definitions(stored) => Image::Definitions(DefinitionsImage {
            revision: stored.revision,
            current: json_list("DefinitionsImage.current", &stored.current)?,
            former: json_list("DefinitionsImage.former", &stored.former)?,
            since: stored.since.iter().map(since_from).collect::<Result<_, _>>()?,
        }),
        proto::image::Kind::Schedule(state) => {
            Image::Schedule(Box::new(schedule::image_from(state, definitions)?))
        }
    })
}

fn since_to(since: &ScheduleSince) -> proto::ScheduleSince {
    proto::ScheduleSince {
        namespace: since.namespace.to_string(),
        name: since.name.to_string(),
        since_ms: since.since.0,
    }
}

fn since_from(since: &proto::ScheduleSince) -> Result<ScheduleSince, DecodeError> {
    Ok(ScheduleSince {
        namespace: name("ScheduleSince.namespace", &since.namespace)?,
        name: name("ScheduleSince.name", &since.name)?,
        since: Timestamp(since.since_ms),
    })
}
