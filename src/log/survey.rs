//! Reading the log past its damages: what `verify` lists and `repair` keeps.
//!
//! Recovery (`reader.rs`) stops at the first frame that is not valid. The survey goes on: behind a
//! damage the next valid frame at a multiple of 8 is looked for, and the positions between are lost.
//! What proves that a frame had been durable is the same as there; where nothing does, the rest is
//! the unsynced tail, which is no damage.
//!
//! Invariants
//! 1. Nothing is written, and a piece that is kept was checked: frame by both checksums, its place
//!    in the chain of positions, and, where strings are read, its content.
//! 2. The pieces of a segment lie in order and cover it from its header to its last frame.
//! 3. Of a frame that is lost the definitions are kept where they are whole: they are sealed
//!    (`record.rs`) where its body is long enough to be damaged alone.
//! 4. A frame of which exactly one bit is flipped is *mended*: of the bits of a payload of at most
//!    [`MENDED_BYTES_MAX`] the checksum says which one it was. Bytes damaged in any other way pass
//!    for that with a chance of at most 1 to 4,096, and must still be a frame's content.
//!
//! Next: `db/verify.rs`, `db/repair.rs`.

use super::Home;
use super::frame::{self, Defect, Frame, FrameKind, Header};
use super::frames::{Frames, Located};
use super::reader::{self, Applied, ReadError, Resume, Translation};
use super::segment::{self, Segment, Stray};
use crate::dictionary::Dictionary;
use crate::disk::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, Columns};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Payloads up to this length are mended (invariant 4).
const MENDED_BYTES_MAX: usize = 128 << 10;

/// A stretch of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it lies in the file; empty where positions are missing between two frames.
    pub(crate) bytes: Range<u64>,
    pub(crate) state: PieceState,
}

#[derive(Clone, Debug)]
pub(crate) enum PieceState {
    /// Valid frames.
    Kept,
    /// A valid frame, when this bit of the file is turned back.
    Mended { byte: u64, bit: u8 },
    /// These positions are lost. Of the bytes nothing more is known than that the definitions that lie
    /// here, if any, are whole.
    Damaged { positions: Range<u64>, definitions: Range<u64>, why: &'static str },
    /// The frame is intact, but its records cannot be read; what it defines is kept.
    Unreadable { positions: Range<u64>, why: &'static str },
}

/// How a segment begins.
#[derive(Clone, Debug)]
pub(crate) enum Beginning {
    Intact,
    /// The header is damaged; the frames prove which salt it had, or there is none.
    Damaged {
        salt: Option<u64>,
    },
    /// The file is not there.
    Missing,
    /// It is a file of another place: another segment of this directory, or one of another.
    Foreign {
        ours: Option<u64>,
        what: String,
    },
}

/// What was found of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Surveyed {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) beginning: Beginning,
    pub(crate) pieces: Vec<Piece>,
    /// The position that its first frame should have, or has.
    pub(crate) first: Option<u64>,
    pub(crate) sealed: bool,
    /// Not blank, behind its seal.
    pub(crate) litter: Option<Range<u64>>,
    /// Where the unsynced tail begins, and where its last byte that is not blank ends.
    pub(crate) tail: Option<Range<u64>>,
    /// The position at which the tail begins.
    pub(crate) tail_position: u64,
    pub(crate) frames: u64,
    pub(crate) records: u64,
}

impl PieceState {
    fn damaged(positions: Range<u64>, why: &'static str) -> Self {
        PieceState::Damaged { positions, definitions: 0..0, why }
    }
}

impl Surveyed {
    /// Whether recovery and replay read the segment as it is.
    pub(crate) fn is_sound(&self) -> bool {
        matches!(self.beginning, Beginning::Intact)
            && self.litter.is_none()
            && self.pieces.iter().all(|piece| matches!(piece.state, PieceState::Kept))
    }

    fn push(&mut self, bytes: Range<u64>, state: PieceState) {
        if let (PieceState::Kept, Some(Piece { bytes: last, state: PieceState::Kept })) =
            (&state, self.pieces.last_mut())
            && last.end == bytes.start
        {
            last.end = bytes.end;
            return;
        }
        self.pieces.push(Piece { bytes, state });
    }
}

/// What the whole log is.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<Surveyed>,
    /// The position behind the last one of the log, known lost ones included.
    pub(crate) next: u64,
    /// Positions that an earlier repair gave up.
    pub(crate) given_up: Vec<Range<u64>>,
    /// Files that have no place in it.
    pub(crate) strays: Vec<Stray>,
}

impl Survey {
    /// The position of the first record of the log.
    pub(crate) fn first(&self) -> Option<u64> {
        self.segments.iter().find_map(|segment| segment.first)
    }

    /// The positions that the log has not, up to its end, in order.
    pub(crate) fn lost(&self) -> impl Iterator<Item = Range<u64>> {
        let pieces = self.segments.iter().flat_map(|segment| &segment.pieces);
        pieces.filter_map(|piece| match &piece.state {
            PieceState::Kept | PieceState::Mended { .. } => None,
            PieceState::Damaged { positions, .. } | PieceState::Unreadable { positions, .. } => {
                Some(positions.clone()).filter(|positions| !positions.is_empty())
            }
        })
    }
}

/// Reads the whole log. `apply` gets every readable record in order, if `dictionary` is there to
/// read strings with; `progress` the number of bytes that were looked at since it was last called.
pub(crate) fn survey(
    home: &Home,
    resume: Resume,
    dictionary: Option<&Arc<Dictionary>>,
    apply: &mut Applied<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Survey> {
    let strays = segment::strays(home, resume.oldest, resume.made)?;
    let mut present = segment::numbers(&*home.disk, &home.dir)?;
    present.retain(|number| strays.iter().all(|stray| stray.number != *number));
    let last = present.last().copied().unwrap_or(0).max(resume.made);
    let mut surveyor = Surveyor {
        home,
        resume,
        last,
        strings: dictionary.map(|dictionary| (Translation::new(dictionary), Columns::default())),
        apply,
        expected: (resume.oldest == 1).then_some(1),
        open_loss: None,
        in_tail: false,
        claimed: resume.position,
        claims: None,
        survey: Survey { strays, ..Survey::default() },
    };
    for number in resume.oldest..=last {
        let surveyed = surveyor.segment(number)?;
        progress(bytes_of(home, number));
        surveyor.survey.segments.push(surveyed);
    }
    let claimed = surveyor.claimed.saturating_add(1);
    let next = surveyor.expected.unwrap_or(resume.position + 1).max(claimed);
    surveyor.close_loss(next);
    surveyor.survey.next = next;
    Ok(surveyor.survey)
}

fn bytes_of(home: &Home, number: u64) -> u64 {
    let path = home.dir.join(segment::name(number));
    home.disk.open(&path, Access::Read).and_then(|file| file.len()).unwrap_or(0)
}

struct Surveyor<'a> {
    home: &'a Home,
    resume: Resume,
    last: u64,
    strings: Option<(Translation, Columns)>,
    apply: &'a mut Applied<'a>,
    /// The position of the next record; not known before the first frame of a log that was retired.
    expected: Option<u64>,
    /// Segment and piece at the end of what was read, whose lost positions end where the next
    /// valid frame begins.
    open_loss: Option<(u64, usize)>,
    in_tail: bool,
    /// The greatest position that anything proves to have been durable, met so far.
    claimed: u64,
    /// What the segments behind the first defect claim to be synced, by number.
    claims: Option<Vec<(u64, u64)>>,
    survey: Survey,
}

impl Surveyor<'_> {
    fn segment(&mut self, number: u64) -> Result<Surveyed> {
        let path = self.home.dir.join(segment::name(number));
        let mut found = Surveyed {
            number,
            path,
            beginning: Beginning::Intact,
            pieces: Vec::new(),
            first: None,
            sealed: false,
            litter: None,
            tail: None,
            tail_position: 0,
            frames: 0,
            records: 0,
        };
        let header_end = segment::HEADER_BYTES as u64;
        let segment = match Segment::open(self.home, number, Access::Read) {
            Ok(segment) => segment,
            Err(error) => match error.kind() {
                ErrorKind::MissingSegment => {
                    found.beginning = Beginning::Missing;
                    self.lose_rest(&mut found, header_end..header_end, "the segment is missing");
                    return Ok(found);
                }
                ErrorKind::Corruption => {
                    let path = found.path.clone();
                    let Some(salvaged) = self.salvage(number, &path, &mut found, &error)? else {
                        let end = bytes_of(self.home, number).max(header_end);
                        let why = "the segment cannot be read without its header";
                        self.lose_rest(&mut found, header_end..end, why);
                        return Ok(found);
                    };
                    salvaged
                }
                _ => return Err(error),
            },
        };
        if let Some((translation, _)) = &mut self.strings {
            translation.forget();
        }
        let mut frames = Frames::new(segment);
        if self.in_tail {
            // Valid or not, what lies behind the beginning of the tail belongs to it.
            found.tail = Some(header_end..frames.look_behind(&mut |_, _| ())?);
            found.tail_position = self.expected.unwrap_or(self.resume.position + 1);
        } else {
            self.frames(&mut found, &mut frames)?;
        }
        Ok(found)
    }

    /// A segment whose header is damaged, by the salt that its frames prove.
    fn salvage(
        &mut self,
        number: u64,
        path: &Path,
        found: &mut Surveyed,
        error: &Error,
    ) -> Result<Option<Segment>> {
        let Home { disk, identity, .. } = self.home;
        let Some(header) = segment::RawHeader::of(&**disk, path)? else {
            found.beginning = Beginning::Damaged { salt: None };
            return Ok(None);
        };
        if header.is_whole() {
            let ours = (header.identity() == *identity).then(|| header.number());
            found.beginning = Beginning::Foreign { ours, what: error.message().to_owned() };
            return Ok(None);
        }
        let mut segment = Segment::unchecked(self.home, number, Access::Read)?;
        let mut is_blank = true;
        for salt in header.salts(*identity, number).into_iter().flatten() {
            segment.salt = salt;
            let (mut valid, frames) = (false, Frames::new(segment.clone()));
            is_blank = frames.look_behind(&mut |_, _| valid = true)? == frames.at();
            if valid {
                found.beginning = Beginning::Damaged { salt: Some(salt) };
                return Ok(Some(segment));
            }
        }
        found.beginning = Beginning::Damaged { salt: None };
        segment.salt = 0;
        Ok(is_blank.then_some(segment))
    }

    fn frames(&mut self, found: &mut Surveyed, frames: &mut Frames) -> Result<()> {
        let number = frames.segment.number;
        // The valid headers from the first defect on, and the end of what is not blank, looked for
        // once.
        let mut looked: Option<(Vec<(u64, Header)>, u64)> = None;
        while !found.sealed {
            let at = frames.at();
            let defect = match frames.next()? {
                Ok(Located { frame, .. }) => {
                    let end = at + frame.header.frame_bytes();
                    self.frame(found, &frame, at..end, None)?;
                    continue;
                }
                Err(Defect::Unknown(kind)) => {
                    return Err(reader::newer_kind(kind, &frames.segment.path, at));
                }
                Err(defect) => defect,
            };
            let (headers, used_end) = match &mut looked {
                Some(looked) => looked,
                none => {
                    let mut headers = Vec::new();
                    let end =
                        frames.look_behind(&mut |place, header| headers.push((place, *header)))?;
                    none.insert((headers, end))
                }
            };
            let used_end = (*used_end).max(at);
            let behind = &headers[headers.partition_point(|(place, _)| *place < at)..];
            let position = self.expected.unwrap_or(self.resume.position + 1);
            let synced = behind.iter().map(|(_, header)| header.claim()).max().unwrap_or(0);
            let is_damage = self.is_proved(number, at, position)
                || synced >= position
                || self.claims_of_later(number)? >= position;
            // A segment that was made and not used, behind one whose end is lost.
            let unused = self.open_loss.is_some()
                && at == segment::HEADER_BYTES as u64
                && used_end == at
                && self.claims_of_later(number)? == 0;
            if !is_damage || unused {
                self.in_tail = true;
                found.tail = Some(at..used_end);
                found.tail_position = position;
                return Ok(());
            }
            self.claimed = self.claimed.max(synced);
            if let Some((byte, bit, bytes)) = mend(frames)? {
                let frame = Frame::decode(&bytes, at, frames.segment.salt);
                if let Ok(frame) = frame
                    && self.expected.is_none_or(|expected| expected == frame.header.position)
                {
                    let end = at + frame.header.frame_bytes();
                    frames.go_to(end);
                    self.frame(found, &frame, at..end, Some((byte, bit)))?;
                    continue;
                }
            }
            let why = match defect {
                Defect::Blank => "blank, where a frame had been synced",
                Defect::Payload(_) => "a frame's content is not what its checksum says",
                Defect::Header | Defect::Unknown(_) => "no valid frame, where one had been synced",
            };
            if let Defect::Payload(header) = defect
                && matches!(header.kind, FrameKind::Events(_))
                && header.position >= position
                && self.defining(found, frames, &header, why)?
            {
                continue;
            }
            if let Some((place, header)) = next_valid(frames, behind, position)? {
                // A retired log may begin anywhere that is not behind what the snapshot has.
                let begins = header.position.min(self.resume.position + 1);
                let positions = self.expected.unwrap_or(begins)..header.position;
                found.push(at..place, PieceState::damaged(positions, why));
                found.first = found.first.or(self.expected);
                self.expected = Some(header.position);
                frames.go_to(place);
                continue;
            }
            // Positions of headers whose content is lost are known to have been.
            let known = behind.iter().map(|(_, header)| header.last_position()).max();
            self.claimed = self.claimed.max(known.unwrap_or(0));
            self.lose_rest(found, at..frames.segment.bytes.max(at), why);
            return Ok(());
        }
        let at = frames.at();
        found.litter =
            Some(at..frames.look_behind(&mut |_, _| ())?).filter(|range| !range.is_empty());
        Ok(())
    }

    /// Takes in the definitions of the frame at the present place, whose header is valid and whose
    /// content is not, if they are whole; the walk goes on behind it.
    fn defining(
        &mut self,
        found: &mut Surveyed,
        frames: &mut Frames,
        header: &Header,
        why: &'static str,
    ) -> Result<bool> {
        let (at, behind) = (frames.at(), frames.at() + header.frame_bytes());
        let begins = at + frame::HEADER_BYTES as u64 + u64::from(header.body_bytes);
        frames.go_to(begins);
        let bytes = frames.peek(header.definition_bytes as usize)?;
        let defined = bytes.len() == header.definition_bytes as usize && record::are_sealed(bytes);
        if defined && let Some((translation, _)) = &mut self.strings {
            // Sealed is what the writer wrote; should it be malformed all the same, who uses it is.
            let _ = translation.take_in(bytes);
        }
        let definitions = begins..begins + bytes.len() as u64;
        frames.go_to(if defined { behind } else { at });
        if defined {
            self.close_loss(header.position);
            let retired = header.position.min(self.resume.position + 1);
            let behind_last = header.last_position().saturating_add(1);
            let positions = self.expected.unwrap_or(retired)..behind_last;
            found.first = found.first.or(Some(positions.start));
            self.expected = Some(positions.end);
            found.push(at..behind, PieceState::Damaged { positions, definitions, why });
        }
        Ok(defined)
    }

    /// Takes in a valid frame.
    fn frame(
        &mut self,
        found: &mut Surveyed,
        frame: &Frame<'_>,
        bytes: Range<u64>,
        mended: Option<(u64, u8)>,
    ) -> Result<()> {
        let position = frame.header.position;
        self.close_loss(position);
        let expected = self.expected.unwrap_or_else(|| {
            // A retired log begins anywhere, but not behind what the snapshot has.
            position.min(self.resume.position + 1)
        });
        if position < expected {
            let why = "the frame repeats positions that are there already";
            let positions = expected..expected;
            found.push(bytes, PieceState::damaged(positions, why));
            return Ok(());
        }
        if position > expected {
            let why = "records are missing between two frames";
            let positions = expected..position;
            found.push(bytes.start..bytes.start, PieceState::damaged(positions, why));
            found.first = found.first.or(Some(expected));
        }
        found.first = found.first.or(Some(position));
        found.frames += 1;
        if frame.header.kind == FrameKind::Lost {
            match self.survey.given_up.last_mut() {
                Some(last) if last.end == position => last.end = frame.next_position,
                _ => self.survey.given_up.push(position..frame.next_position),
            }
        }
        found.sealed = frame.header.kind == FrameKind::Seal;
        self.expected = Some(frame.next_position);
        self.claimed = self.claimed.max(frame.header.claim());
        let mut state = match mended {
            Some((byte, bit)) => PieceState::Mended { byte, bit },
            None => PieceState::Kept,
        };
        if let Some((translation, columns)) = &mut self.strings {
            match reader::read(frame, true, translation, columns, self.apply) {
                Ok(()) => {}
                Err(ReadError::Failed(error)) => return Err(error),
                Err(ReadError::Malformed(why)) => {
                    let positions = position..frame.next_position;
                    state = PieceState::Unreadable { positions, why: why.0 };
                }
            }
        }
        found.records += u64::from(frame.header.records);
        found.push(bytes, state);
        Ok(())
    }

    /// Whether the checkpoint proves that a frame at `position` had been durable.
    fn is_proved(&self, number: u64, at: u64, position: u64) -> bool {
        number < self.resume.segment
            || (number == self.resume.segment && at < self.resume.offset)
            || position <= self.resume.position
    }

    /// What valid headers in segments behind `number` claim to be synced; 0 where there are none.
    fn claims_of_later(&mut self, number: u64) -> Result<u64> {
        if self.claims.is_none() {
            let mut claims = Vec::new();
            for later in number + 1..=self.last {
                // One that cannot be read is reported when its turn comes.
                let Ok(segment) = Segment::open(self.home, later, Access::Read) else { continue };
                claims.push((later, Frames::new(segment).claims_behind()?));
            }
            self.claims = Some(claims);
        }
        let later = self.claims.iter().flatten().filter(|(later, _)| *later > number);
        Ok(later.map(|(_, claim)| *claim).max().unwrap_or(0))
    }

    /// The rest of a segment is lost; which positions that are, shows when a valid frame comes.
    fn lose_rest(&mut self, found: &mut Surveyed, bytes: Range<u64>, why: &'static str) {
        let from = self.expected.unwrap_or(self.resume.position + 1);
        let positions = from..from;
        found.first = found.first.or(self.expected);
        found.pieces.push(Piece { bytes, state: PieceState::damaged(positions, why) });
        // Of several in a row the first one has them.
        self.open_loss.get_or_insert((found.number, found.pieces.len() - 1));
    }

    /// The next record that there is has this position.
    fn close_loss(&mut self, next: u64) {
        let Some((number, piece)) = self.open_loss.take() else { return };
        let segments = &mut self.survey.segments;
        let Some(found) = segments.iter_mut().find(|segment| segment.number == number) else {
            return;
        };
        let PieceState::Damaged { positions, .. } = &mut found.pieces[piece].state else { return };
        if self.expected.is_none() {
            // Where a retired log begins with the damage, nothing is known to be missing.
            *positions = next..next;
        }
        positions.end = positions.end.max(next);
        let end = positions.end;
        if self.expected.is_some() {
            self.expected = self.expected.max(Some(end));
        }
        // Those behind it that are lost as well have no positions of their own.
        for later in segments.iter_mut().filter(|segment| segment.number > number) {
            for piece in &mut later.pieces {
                if let PieceState::Damaged { positions, .. } = &mut piece.state
                    && positions.is_empty()
                {
                    *positions = end..end;
                }
            }
            later.first = later.first.map(|first| first.max(end));
        }
    }
}

/// The first of these headers behind the present place that a valid frame has, of this position or a
/// later one. Where the walk stands afterwards is left open.
fn next_valid(
    frames: &mut Frames,
    headers: &[(u64, Header)],
    position: u64,
) -> Result<Option<(u64, Header)>> {
    let at = frames.at();
    for (place, header) in headers {
        if *place > at && header.position >= position {
            frames.go_to(*place);
            if frames.next()?.is_ok() {
                return Ok(Some((*place, *header)));
            }
        }
    }
    Ok(None)
}

/// The one flipped bit of the frame at the present place: byte and bit in the file, and the frame as
/// it was.
fn mend(frames: &mut Frames) -> Result<Option<(u64, u8, Vec<u8>)>> {
    let (at, salt) = (frames.at(), frames.segment.salt);
    let Some(header) = frames.peek(frame::HEADER_BYTES)?.first_chunk().copied() else {
        return Ok(None);
    };
    let decode = |header: &[u8; frame::HEADER_BYTES]| Header::decode(header, at, salt).ok();
    let Some(valid) = decode(&header) else {
        let mended = (0..frame::HEADER_BYTES * 8).find_map(|bit| {
            let (mut header, byte, bit) = (header, bit / 8, (bit % 8) as u8);
            header[byte] ^= 1 << bit;
            decode(&header).map(|valid| (header, valid.frame_bytes(), byte, bit))
        });
        let Some((header, frame_bytes, byte, bit)) = mended else { return Ok(None) };
        let mut bytes = frames.peek(frame_bytes as usize)?.to_vec();
        bytes[..frame::HEADER_BYTES].copy_from_slice(&header);
        return Ok(Some((at + byte as u64, bit, bytes)));
    };
    let payload = frame::HEADER_BYTES + valid.body_bytes as usize + valid.definition_bytes as usize;
    if payload > MENDED_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = frames.peek(valid.frame_bytes() as usize)?.to_vec();
    if (bytes.len() as u64) < valid.frame_bytes() {
        return Ok(None);
    }
    let padding = bytes[payload..].iter().position(|byte| *byte != 0);
    let flipped = match padding.map(|padding| payload + padding) {
        // Whatever is in the padding, it was zero.
        Some(byte) => Some((byte, bytes[byte].trailing_zeros() as u8)),
        None => frame::flipped_bit(&bytes[frame::HEADER_BYTES..payload], &valid)
            .map(|(byte, bit)| (frame::HEADER_BYTES + byte, bit)),
    };
    Ok(flipped.map(|(byte, bit)| {
        bytes[byte] ^= 1 << bit;
        (at + byte as u64, bit, bytes)
    }))
}
