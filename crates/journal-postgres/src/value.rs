//! Values as PostgreSQL holds them.
//!
//! Owns: run ids as `uuid`, numbers as `bigint`, and the checksum of a record. Never: sends a statement.
use std::error::Error;

use kapell_model::{RunId, Seq, ShardId};
use kapell_runtime::Entropy;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A run id; as `uuid` it takes sixteen bytes and is ordered as run ids are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunKey(pub(crate) RunId);

impl ToSql for RunKey {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for RunKey {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<RunKey, Box<dyn Error + Sync + Send>> {
        Ok(RunKey(RunId::from_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// Names an open journal in the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerId([u8; 16]);

impl OwnerId {
    /// One that nobody has.
    pub(crate) fn new(entropy: &dyn Entropy) -> OwnerId {
        OwnerId(entropy.next_u128().to_be_bytes())
    }
}

impl ToSql for OwnerId {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

/// In the text of a statement.
pub(crate) fn literal(run: RunId) -> String {
    let hex = run.to_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("'{hex}'::uuid")
}

/// `bigint` has a sign; places and epochs use only half of what they could.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from [`bigint`].
pub(crate) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// Holds a record to its place, its run and its bytes.
pub(crate) fn record_crc(shard: ShardId, seq: Seq, run: RunId, payload: &[u8]) -> i32 {
    let crc = crc32c::crc32c(&shard.0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &seq.0.to_be_bytes());
    image_of(crc, run, payload)
}

/// Holds an image to its run and its bytes.
pub(crate) fn image_crc(run: RunId, state: &[u8]) -> i32 {
    image_of(crc32c::crc32c(b"image"), run, state)
}

fn image_of(crc: u32, run: RunId, bytes: &[u8]) -> i32 {
    let crc = crc32c::crc32c_append(crc, &run.to_bytes());
    crc32c::crc32c_append(crc, bytes).cast_signed()
}
