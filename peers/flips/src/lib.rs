//! One bit of what a store had written and synced is flipped, and the store is opened as usual:
//! what becomes of the records? For Quipu, SQLite's write-ahead log, sled and redb.
//!
//! How it is done
//! 1. A store is given records one by one, each made durable before the next. A record is a name
//!    and a text.
//! 2. Its files are copied while it is open, which is what a killed process leaves
//!    ([`Left::Killed`]), and once more when it was closed ([`Left::Closed`]).
//! 3. All places of the files where a name or a text of a record stands are looked for. They are
//!    divided into as many parts of equal length as there are trials.
//! 4. A trial flips one bit, of one byte of its part, in a fresh copy of the files, opens it by the
//!    call that made it, and reads all records. A generator with a seed chooses byte and bit.
//! 5. What it was is an [`Outcome`]. A panic counts as an error.
//!
//! A store that writes a page anew for each commit leaves older copies of its records behind. They
//! are places as others are: a flip in one that is no longer in use is without consequences.
//!
//! Behind the record that was written last, right before the copy, there is nothing yet that could
//! say that it had been synced: damage to it alone looks like a write that a power cut tore, to
//! Quipu, too, until the next frame of its log. With as many trials as there are records that
//! shows: one in each record is one in the last.
//!
//! RocksDB is not among the stores: it needs a C++ build of many minutes.
//!
//! Next: `trial.rs`, the trials; `stores.rs`, how each store is opened, written and read;
//! `report.rs`, the table.

mod report;
mod stores;
mod trial;

pub use report::table;
pub use stores::{Opened, STORES, Store};
pub use trial::{Left, Outcome, Plan, Trials, trials};

use std::error::Error;

/// What can fail in a store, said by whichever it is.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is recorded: it is known by its name, and its text is what may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// By which it is known; no two records have the same.
    pub name: Vec<u8>,
    /// What is kept under the name.
    pub text: Vec<u8>,
}

/// Numbers that look like chance and are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Generator(seed)
    }

    /// The next of the numbers.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is greater than zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }
}

/// The records that each store is given: `name 000017`, `text 000017 6e0c8f7a91b2d3e4`.
pub fn records(n: usize) -> Vec<Record> {
    let mut generator = Generator::new(n as u64);
    let record = |n| Record {
        name: format!("name {n:06}").into_bytes(),
        text: format!("text {n:06} {:016x}", generator.next_u64()).into_bytes(),
    };
    (0..n).map(record).collect()
}
