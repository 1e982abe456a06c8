//! A cursor: up to where somebody has what a replica knows.

use super::ReplicaId;
use crate::error::{Error, Result};
use crate::log::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Up to where an export went: a replica and a position of its log. The next export goes on from there.
///
/// It is shown and read as `REPLICA:POSITION`, that of the beginning as `beginning`.
///
/// ```
/// use quipu::Cursor;
///
/// let cursor: Cursor = "0123456789abcdef0123456789abcdef:120".parse()?;
/// assert_eq!(cursor.position().get(), 120);
/// assert_eq!(cursor.to_string().parse::<Cursor>()?, cursor);
/// assert_eq!("beginning".parse::<Cursor>()?, Cursor::beginning());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// None at the beginning, which is the same for all.
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) position: u64,
}

impl Cursor {
    /// Before the first record.
    pub fn beginning() -> Self {
        Cursor { replica: None, position: 0 }
    }

    /// Behind the record of a replica's log at this position.
    pub(crate) fn at(replica: ReplicaId, position: u64) -> Self {
        let replica = (position > 0).then_some(replica);
        Cursor { replica, position }
    }

    /// The replica whose log it is of; `None` for the beginning.
    pub fn replica(&self) -> Option<ReplicaId> {
        self.replica
    }

    /// The last position that was exported.
    pub fn position(&self) -> Position {
        Position(self.position)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            None => f.write_str("beginning"),
            Some(replica) => write!(f, "{replica}:{}", self.position),
        }
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "beginning" {
            return Ok(Cursor::beginning());
        }
        let parts = text.split_once(':').and_then(|(replica, position)| {
            Some(Cursor::at(replica.parse().ok()?, position.parse().ok()?))
        });
        parts.ok_or_else(|| {
            let message = format!("{text:?} is no cursor: REPLICA:POSITION, or beginning");
            Error::invalid(message)
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
