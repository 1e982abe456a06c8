//! A directory with any of its files damaged: opening refuses, or every answer agrees with the
//! others. Never a panic.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quipu_fuzz::{exercise, lay, scratch, template};

#[derive(Arbitrary, Debug)]
struct Damage {
    file: u8,
    edit: Edit,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip { offset: u32, mask: u8 },
    Write { offset: u32, bytes: Vec<u8> },
    Zero { offset: u32, many: u16 },
    Truncate { bytes: u32 },
    Append { bytes: Vec<u8> },
    Copy { from: u32, to: u32, many: u16 },
    Remove,
}

fuzz_target!(|damages: Vec<Damage>| {
    let mut files = template().clone();
    for Damage { file, edit } in damages.iter().take(8) {
        let at = usize::from(*file) % files.len();
        let bytes = &mut files[at].1;
        // Most of a file is zeros; what is written lies in front.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        let place = |offset: &u32| *offset as usize % (used + 64).min(bytes.len()).max(1);
        match edit {
            Edit::Flip { offset, mask } => {
                let place = place(offset);
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= mask;
                }
            }
            Edit::Write { offset, bytes: new } => {
                let place = place(offset);
                for (old, new) in bytes.iter_mut().skip(place).zip(new) {
                    *old = *new;
                }
            }
            Edit::Zero { offset, many } => {
                let place = place(offset);
                bytes.iter_mut().skip(place).take((*many).into()).for_each(|byte| *byte = 0);
            }
            Edit::Truncate { bytes: length } => {
                let length = place(length);
                bytes.truncate(length);
            }
            Edit::Append { bytes: new } => bytes.extend(new),
            Edit::Copy { from, to, many } => {
                let (from, to) = (place(from), place(to));
                let end = (from + usize::from(*many)).min(bytes.len());
                let many = (end - from).min(bytes.len() - to);
                bytes.copy_within(from..from + many, to);
            }
            Edit::Remove => {
                files.remove(at);
            }
        }
        if files.is_empty() {
            return;
        }
    }
    let home = scratch();
    let root = home.path().join("db");
    lay(&root, &files);
    if root.is_dir() {
        let _ = exercise(&root);
    }
});
