//! Reading a log that somebody else writes: frame by frame, to where it ends now, and on from there.
//!
//! The writer may append while this reads, go on to another segment, cut a segment behind its seal,
//! retire old ones, die, and be started again. Hence:
//!
//! 1. Nothing is remembered of bytes that were not a valid frame: they are read again.
//! 2. A frame that is not valid is where the log ends now, blank or half written. It is damage only
//!    where a valid header behind it claims that it was durable, and it is still not valid when it
//!    is read again *after* that claim: what a claim vouches for was written before it.
//! 3. What was handed out stays counted: a reading that fails goes on behind the last frame that was
//!    applied.
//!
//! Next: `db/read_only.rs`.

use super::Home;
use super::frame::{Defect, FrameKind};
use super::frames::{Frames, Located};
use super::reader::{self, Applied, Resume, Translation};
use super::segment::{self, Segment};
use crate::dictionary::Dictionary;
use crate::disk::Access;
use crate::error::Result;
use crate::record::Columns;
use std::collections::VecDeque;
use std::sync::Arc;

/// Applies the records of a log as they come.
pub(crate) struct Follower {
    home: Home,
    translation: Translation,
    columns: Columns,
    /// The segment that is read; none between two.
    frames: Option<Frames>,
    /// Segments that are open already; who retires them cannot take them away any more.
    ready: VecDeque<Segment>,
    /// The number of the segment that is read, or will be next.
    number: u64,
    /// The position of the next frame, once there was one.
    expected: Option<u64>,
    resume: Resume,
    /// The greatest position that is applied, or is in the snapshot.
    position: u64,
    /// The greatest position that is known to be durable.
    durable: u64,
    /// Positions behind the snapshot's that a repair gave up, the first ones of them.
    given_up: Option<(u64, u64)>,
    /// Everything behind the end was looked at once for claims.
    looked: bool,
}

impl Follower {
    /// A follower that begins behind a snapshot. Every segment it needs is open when this returns.
    pub(crate) fn open(home: &Home, resume: Resume, dictionary: &Arc<Dictionary>) -> Result<Self> {
        reader::check_strays(home, resume)?;
        let present = segment::numbers(&*home.disk, &home.dir)?;
        let last = present.last().copied().unwrap_or(0).max(resume.made);
        let open = |number| Segment::open(home, number, Access::Read);
        let ready = (resume.segment..=last).map(open).collect::<Result<_>>()?;
        Ok(Follower {
            home: home.clone(),
            translation: Translation::new(dictionary),
            columns: Columns::default(),
            frames: None,
            ready,
            number: resume.segment,
            expected: None,
            resume,
            position: resume.position,
            durable: resume.position,
            given_up: None,
            looked: false,
        })
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn given_up(&self) -> Option<(u64, u64)> {
        self.given_up
    }

    /// Whether another file has the name of the segment that is read: a repair wrote it anew.
    pub(crate) fn is_replaced(&self) -> Result<bool> {
        let Some(Frames { segment, .. }) = &self.frames else { return Ok(false) };
        match Segment::open(&self.home, segment.number, Access::Read) {
            // Retired; what is in it can be read on.
            Err(error) if error.kind() == crate::ErrorKind::MissingSegment => Ok(false),
            named => Ok(named?.salt != segment.salt),
        }
    }

    /// The segment in which the next frame goes and its place there; 0 in one that is not there yet.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.number, self.frames.as_ref().map_or(0, Frames::at))
    }

    /// Applies what is there and was not applied yet.
    ///
    /// # Errors
    /// `MissingSegment` where the segments that come next were retired meanwhile (or lost).
    pub(crate) fn catch_up(&mut self, apply: &mut Applied<'_>) -> Result<()> {
        // The greatest claim that speaks of a frame found not valid, which is then read again.
        let mut proof: Option<u64> = None;
        loop {
            if self.frames.is_none() && !self.enter_next()? {
                return Ok(());
            }
            let Some(frames) = &mut self.frames else { return Ok(()) };
            let at = frames.at();
            let path = frames.segment.path.clone();
            let due = self.expected.unwrap_or(self.resume.position + 1);
            match frames.next()? {
                Ok(Located { frame, .. }) => {
                    proof = None;
                    let header = frame.header;
                    let first = self.expected.is_none() && header.position < due;
                    if header.position != due && !first {
                        return Err(reader::gap(&path, at, due, header.position));
                    }
                    let wanted = header.position > self.resume.position;
                    let (translation, columns) = (&mut self.translation, &mut self.columns);
                    let read = reader::read(&frame, wanted, translation, columns, apply);
                    if let Err(error) = read {
                        frames.go_to(at);
                        return Err(reader::place(error, &path, at));
                    }
                    self.expected = Some(frame.next_position);
                    if let Some(lost) = frame.lost_behind(self.resume.position) {
                        self.given_up.get_or_insert(lost);
                    }
                    self.position = self.position.max(frame.next_position - 1);
                    self.durable = self.durable.max(header.claim());
                    if header.kind == FrameKind::Seal {
                        self.frames = None;
                        self.number += 1;
                    }
                }
                Err(Defect::Unknown(kind)) => return Err(reader::newer_kind(kind, &path, at)),
                Err(defect) => {
                    if let Some(claimed) = proof {
                        return Err(reader::damage(&path, at, defect, (due, claimed)));
                    }
                    let claimed = self.claims(defect, due)?;
                    if let Some(frames) = &mut self.frames {
                        frames.go_to(at);
                    }
                    if claimed < due {
                        self.looked = true;
                        return Ok(());
                    }
                    proof = Some(claimed);
                }
            }
        }
    }

    /// Goes on to the next segment; says whether there is one.
    fn enter_next(&mut self) -> Result<bool> {
        let segment = if let Some(segment) = self.ready.pop_front() {
            segment
        } else {
            let present = segment::numbers(&*self.home.disk, &self.home.dir)?;
            if present.last().is_none_or(|last| *last < self.number) {
                return Ok(false);
            }
            Segment::open(&self.home, self.number, Access::Read)?
        };
        self.translation.forget();
        self.frames = Some(Frames::new(segment));
        Ok(true)
    }

    /// The greatest position that anything says was durable, where the frame of position `due` is
    /// not valid.
    fn claims(&self, defect: Defect, due: u64) -> Result<u64> {
        let Some(frames) = &self.frames else { return Ok(0) };
        let number = frames.segment.number;
        let mut claimed = self.resume.position;
        if number == self.resume.segment && frames.at() < self.resume.offset {
            claimed = claimed.max(due);
        }
        // What is behind the end is blank nearly always; all of it is looked at once, and then only
        // as far as it was read anyway.
        let is_blank = defect == Defect::Blank && frames.is_blank_ahead();
        let thorough = !self.looked || !is_blank;
        if thorough {
            claimed = claimed.max(frames.claims_behind()?);
        }
        let present = segment::numbers(&*self.home.disk, &self.home.dir)?;
        for later in present.into_iter().filter(|later| *later > number) {
            let later = match Segment::open(&self.home, later, Access::Read) {
                // Retired since it was listed: this is not the end of the log.
                Err(error) if error.kind() == crate::ErrorKind::MissingSegment => {
                    return Err(error);
                }
                opened => opened?,
            };
            claimed = claimed.max(if thorough {
                Frames::new(later).claims_behind()?
            } else {
                reader::first_frame(&later).ok().flatten().map_or(0, |header| header.claim())
            });
        }
        Ok(claimed)
    }
}
