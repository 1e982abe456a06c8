//! BACKUP: what makes a directory a backup, and which files of it are the backup.
//!
//! ```text
//! BACKUP                  magic "QUIPUBAK" (8) · a sealed value (`codec.rs`) under the key "BACKUP"
//! log/0000000007.qlog     segments, each up to where it ended; without a seal where there was none
//! state-0000000003.redb   the snapshot as of the third backup into this directory
//! stage-0000000003        the events that its owner had staged, where another process took the backup
//! ```
//! Invariants
//! 1. A backup is what `BACKUP` says and nothing else. It is replaced as a whole, when everything it
//!    names is durable; until then the backup before is there.
//! 2. No byte that it names is written to again. A segment that has grown is continued behind its
//!    named end, a snapshot is a file of another name. So an interrupted backup leaves the one before,
//!    and what is left over is neither read nor in the way.
//!
//! Next: `db/backup.rs`.

use super::replace;
use crate::codec::{self, Malformed};
use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

pub(crate) const MAGIC: [u8; 8] = *b"QUIPUBAK";
pub(crate) const NAME: &str = "BACKUP";
pub(crate) const UNFINISHED: &str = "BACKUP.new";
/// No list of files is longer than this.
const BYTES_MAX: u64 = 64 << 20;

/// A backup, as BACKUP describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupSet {
    /// Of the directory it was taken of, as in its manifest.
    pub(crate) identity: u128,
    /// When that was made, microseconds since 1970.
    pub(crate) created: i64,
    /// The number of this backup among those taken into this place, from 1.
    pub(crate) number: u64,
    /// When it was taken, microseconds since 1970.
    pub(crate) taken_at: i64,
    /// The last position in it.
    pub(crate) position: u64,
    /// The position of the snapshot in it; 0 where there is none.
    pub(crate) snapshot_position: u64,
    pub(crate) snapshot: Option<Part>,
    /// The segments, by number.
    pub(crate) segments: Vec<SegmentPart>,
    /// The stage, where its owner did not bring it into the log.
    pub(crate) stage: Option<StagePart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct StagePart {
    pub(crate) part: Part,
    /// The last position in the log; those behind are staged.
    pub(crate) log_position: u64,
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Part {
    pub(crate) bytes: u64,
    /// Their XXH3-128.
    pub(crate) hash: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct SegmentPart {
    pub(crate) number: u64,
    pub(crate) part: Part,
    /// It ends with a seal: it does not grow any more.
    pub(crate) is_sealed: bool,
}

impl BackupSet {
    /// The name of the snapshot's file.
    pub(crate) fn snapshot_name(&self) -> String {
        format!("state-{:010}.redb", self.number)
    }

    /// The name of the stage's file.
    pub(crate) fn stage_name(&self) -> String {
        format!("stage-{:010}", self.number)
    }

    /// All bytes that it names.
    pub(crate) fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.part.bytes);
        let stage = self.stage.map(|stage| stage.part);
        self.snapshot.iter().chain(&stage).map(|part| part.bytes).chain(segments).sum()
    }

    /// Reads and checks what is in `dir`; `None` when there is none.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let fail = |e| Error::io("read the list of the backup", &path, e);
        let file = match disk.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(fail)?,
        };
        let len = file.len().map_err(fail)?;
        let mut bytes = vec![0; len.min(BYTES_MAX) as usize];
        file.read_at(0, &mut bytes).map_err(fail)?;
        let damaged = |malformed: Malformed| {
            Error::corruption(&path, 0, format!("the list of the backup is damaged: {malformed}"))
        };
        let value = bytes.strip_prefix(&MAGIC);
        let value = value.ok_or_else(|| damaged(Malformed("it does not begin as one")))?;
        if codec::is_newer(NAME.as_bytes(), value) {
            let message = "the backup was written by newer software; use that";
            return Err(Error::new(ErrorKind::NewerFormat, message).at(&path, None));
        }
        let payload = codec::unseal(NAME.as_bytes(), value).map_err(damaged)?;
        let set = BackupSet::decode(payload).map_err(damaged)?;
        let follows = |pair: &[SegmentPart]| pair[0].number.checked_add(1) == Some(pair[1].number);
        if !set.segments.windows(2).all(follows) {
            return Err(damaged(Malformed("its segments are not one behind the other")));
        }
        Ok(Some(set))
    }

    /// The fields in their order; the stage only where there is one.
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { identity, created, number, taken_at, position, .. } = self;
        let Self { snapshot_position, snapshot, segments, stage, .. } = self;
        let whole = (identity, created, number, taken_at, position);
        out.extend_from_slice(&codec::encode(&(whole, snapshot_position, snapshot, segments)));
        if let Some(stage) = stage {
            out.extend_from_slice(&codec::encode(stage));
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        type Fields = ((u128, i64, u64, i64, u64), u64, Option<Part>, Vec<SegmentPart>);
        let (
            (identity, created, number, taken_at, position),
            snapshot_position,
            snapshot,
            segments,
        ): Fields = codec::take_encoded(&mut bytes)?;
        let stage = if bytes.is_empty() { None } else { Some(codec::take_encoded(&mut bytes)?) };
        codec::finished(bytes)?;
        Ok(BackupSet {
            identity,
            created,
            number,
            taken_at,
            position,
            snapshot_position,
            snapshot,
            segments,
            stage,
        })
    }

    /// Makes this the backup in `dir` (invariant 1).
    pub(crate) fn publish(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let value = codec::seal(NAME.as_bytes(), |out| self.encode(out));
        let bytes = [&MAGIC[..], &value].concat();
        replace(disk, dir, (NAME, UNFINISHED), &bytes)
            .map_err(|e| Error::io("write the list of the backup", &dir.join(NAME), e))
    }
}
