//! Frames with right checksums and any content, behind the valid ones of a crashed directory: what
//! the checksums do not keep from the decoders of events, definitions and control records.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{EVENTS, Trust, exercise, file, template};
use quipu_fuzz::log::{self, Frame, frames, kind};

#[derive(Arbitrary, Debug)]
struct Forged {
    kind: Kind,
    records: Option<u32>,
    /// How far its first position is off the right one.
    position_error: i8,
    synced: u8,
    written_at: Option<i64>,
    body: Bytes,
    definitions: Bytes,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Kind {
    Events,
    Extended,
    Control,
    Witness,
    Seal,
    Other(u32),
}

#[derive(Arbitrary, Debug)]
enum Bytes {
    Raw(Vec<u8>),
    /// Those of the nth frame of this kind with some bytes changed: the decoder gets further.
    Changed(u8, Vec<(u8, u8)>),
}

impl Bytes {
    fn of(&self, written: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Bytes::Raw(bytes) => bytes.clone(),
            Bytes::Changed(nth, changes) => {
                let Some(nth) = usize::from(*nth).checked_rem(written.len()) else {
                    return Vec::new();
                };
                let mut bytes = written[nth].clone();
                for (place, value) in changes {
                    if let Some(place) = usize::from(*place).checked_rem(bytes.len()) {
                        bytes[place] = *value;
                    }
                }
                bytes
            }
        }
    }
}

fuzz_target!(|forged: Vec<Forged>| {
    let mut files = template().clone();
    let segment = file(&mut files, "0000000001.qlog");
    let written: Vec<Frame> =
        frames(segment).into_iter().map(|range| Frame::read(&segment[range])).collect();
    let mut next = log::next_position(segment);
    assert!(next > EVENTS, "the frames were walked over");
    let mut at = frames(segment).last().map_or(0, |last| last.end);
    for forged in forged.iter().take(4) {
        let code = match forged.kind {
            Kind::Events => kind::EVENTS,
            Kind::Extended => kind::EXTENDED,
            Kind::Control => kind::CONTROL,
            Kind::Witness => kind::WITNESS,
            Kind::Seal => kind::SEAL,
            Kind::Other(code) => code,
        };
        let like = || written.iter().filter(|frame| frame.kind == code);
        let some: Vec<Vec<u8>> = like().map(|frame| frame.body.clone()).collect();
        let definitions: Vec<Vec<u8>> = like().map(|frame| frame.definitions.clone()).collect();
        let usual = u32::from(!matches!(forged.kind, Kind::Witness | Kind::Seal));
        let frame = Frame {
            kind: code,
            records: forged.records.unwrap_or(usual),
            position: next.saturating_add_signed(forged.position_error.into()),
            synced: forged.synced.into(),
            written_at: forged.written_at.unwrap_or(1_700_000_000_000_000),
            body: forged.body.of(&some),
            definitions: forged.definitions.of(&definitions),
        };
        next = frame.position.wrapping_add(frame.records.into());
        let bytes = frame.bytes();
        let Some(room) = segment.get_mut(at..at + bytes.len()) else { break };
        room.copy_from_slice(&bytes);
        at += bytes.len();
    }
    log::mend(segment);
    exercise(&files, Trust::Log);
});
