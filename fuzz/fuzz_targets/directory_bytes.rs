//! A directory with any of its files damaged: opening refuses, or there are the first events of it,
//! in every view, and nothing else.
//!
//! No edit brings in more than two bytes of the fuzzer's choice, so none makes a checksum right.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, template};

#[derive(Arbitrary, Debug)]
struct Damage {
    file: u8,
    edit: Edit,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip { place: Place, mask: u8 },
    Write { place: Place, bytes: [u8; 2] },
    Fill { place: Place, byte: u8, many: u16 },
    Truncate { place: Place },
    Append { byte: u8, many: u16 },
    Copy { from: Place, to: Place, many: u16 },
    CopyFile { from: u8 },
    Remove,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Place {
    /// Among the bytes that are not zero: those that mean most.
    Written(u16),
    Any(u32),
}

impl Place {
    fn of(self, bytes: &[u8]) -> usize {
        let written = || bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        match self {
            Place::Any(offset) => offset as usize % (bytes.len() + 1),
            Place::Written(n) => {
                let n = usize::from(n) % written().count().max(1);
                written().nth(n).map_or(0, |(at, _)| at)
            }
        }
    }
}

fuzz_target!(|damages: Vec<Damage>| {
    let mut files = template().clone();
    for Damage { file, edit } in damages.iter().take(6) {
        let at = usize::from(*file) % files.len();
        let other = match edit {
            Edit::CopyFile { from } => files[usize::from(*from) % files.len()].1.clone(),
            _ => Vec::new(),
        };
        let bytes = &mut files[at].1;
        match edit {
            Edit::Flip { place, mask } => {
                let place = place.of(bytes);
                bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= mask);
            }
            Edit::Write { place, bytes: new } => {
                let place = place.of(bytes);
                bytes.iter_mut().skip(place).zip(new).for_each(|(old, new)| *old = *new);
            }
            Edit::Fill { place, byte, many } => {
                let place = place.of(bytes);
                bytes.iter_mut().skip(place).take((*many).into()).for_each(|old| *old = *byte);
            }
            Edit::Truncate { place } => {
                let place = place.of(bytes);
                bytes.truncate(place);
            }
            Edit::Append { byte, many } => {
                bytes.resize(bytes.len() + usize::from(*many), *byte);
            }
            Edit::Copy { from, to, many } => {
                let (from, to) = (from.of(bytes), to.of(bytes));
                let many = usize::from(*many).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + many, to);
            }
            Edit::CopyFile { .. } => *bytes = other,
            Edit::Remove => {
                files.remove(at);
            }
        }
        if files.is_empty() {
            return;
        }
    }
    exercise(&files, Trust::Prefix);
});
