//! What a simulated file holds: its bytes, and what of them a sync has reached.
//!
//! Invariants
//! 1. `durable` is what a power cut leaves for certain, `volatile` what reads see. `pending` are
//!    the changes between them, in their order.
//! 2. A sync carries the sectors that `pending` touches, and nothing else. So what a failed sync
//!    gave up stays lost although a later one succeeds, unless it is written again.
//! 3. What a power cut leaves of a sector is its content at some moment since the last sync; or,
//!    torn, the beginning of one moment's and the end of another's. So bytes outside of what was
//!    written keep their value. The length is one that the file had since then.

use super::random::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk writes at once, if it is not torn.
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4_096;

type Page = [u8; PAGE_BYTES as usize];

/// Bytes in pages that copies share. A missing page reads as zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    pages: Vec<Option<Arc<Page>>>,
    len: u64,
}

/// The parts of `offset..offset + len` in each page: page, place in it, place in the range, length.
fn pages(offset: u64, len: u64) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut at = offset;
    std::iter::from_fn(move || {
        let inside = at % PAGE_BYTES;
        let n = (PAGE_BYTES - inside).min(offset + len - at);
        let part =
            ((at / PAGE_BYTES) as usize, inside as usize, (at - offset) as usize, n as usize);
        at += n;
        (n > 0).then_some(part)
    })
}

impl Content {
    /// Reads what there is; gives how much.
    fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let len = (out.len() as u64).min(self.len.saturating_sub(offset));
        for (page, inside, at, n) in pages(offset, len) {
            let out = &mut out[at..at + n];
            match self.pages.get(page) {
                Some(Some(page)) => out.copy_from_slice(&page[inside..inside + n]),
                _ => out.fill(0),
            }
        }
        len as usize
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, inside, at, n) in pages(offset, bytes.len() as u64) {
            if page >= self.pages.len() {
                self.pages.resize(page + 1, None);
            }
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[inside..inside + n].copy_from_slice(&bytes[at..at + n]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.truncate(len.div_ceil(PAGE_BYTES) as usize);
            // What is cut off reads as zeros should the file grow again.
            if let Some(Some(page)) = self.pages.get_mut((len / PAGE_BYTES) as usize) {
                Arc::make_mut(page)[(len % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    fn copy(&mut self, from: &Content, offset: u64, len: u64) {
        let mut bytes = vec![0; len as usize];
        let n = from.read(offset, &mut bytes);
        self.write(offset, &bytes[..n]);
    }

    /// Pages that a write into `offset..offset + len` has to find room for.
    fn missing_pages(&self, offset: u64, len: u64) -> u64 {
        let missing = |page: &usize| !matches!(self.pages.get(*page), Some(Some(_)));
        pages(offset, len).map(|(page, ..)| page).filter(missing).count() as u64
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileContent {
    durable: Content,
    volatile: Content,
    pending: Vec<Change>,
    /// Every block up to its length has its place on the disk.
    reserved: bool,
}

/// What becomes of the changes that no sync has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of them is there.
    None,
    /// All of them are.
    All,
    /// A choice of them that this seed makes: by sector, some torn, by directory entry.
    Some(u64),
}

/// Of one sector: how many of the changes each of its two parts has seen, and where they meet.
struct SectorState {
    first: usize,
    second: usize,
    torn_at: u64,
}

impl SectorState {
    fn choose(random: &mut Random, changes: usize) -> Self {
        let version = |random: &mut Random| match random.below(3) {
            0 => 0,
            1 => changes,
            _ => random.below(changes as u64 + 1) as usize,
        };
        let first = version(random);
        if random.one_in(4) {
            let second = version(random);
            return SectorState { first, second, torn_at: 1 + random.below(SECTOR_BYTES - 1) };
        }
        SectorState { first, second: first, torn_at: SECTOR_BYTES }
    }
}

impl FileContent {
    pub(super) fn len(&self) -> u64 {
        self.volatile.len
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        self.volatile.read(offset, out)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.volatile.write(offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.into() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.volatile.set_len(len);
        self.pending.push(Change::Length(len));
    }

    /// `len` zeros, with room for each of them.
    pub(super) fn fill(&mut self, len: u64) {
        self.set_len(len);
        self.reserved = true;
    }

    /// The room that it takes.
    pub(super) fn allocated(&self) -> u64 {
        if self.reserved {
            return self.volatile.len.next_multiple_of(PAGE_BYTES);
        }
        self.volatile.pages.iter().flatten().count() as u64 * PAGE_BYTES
    }

    /// The room that a write needs beside what the file has.
    pub(super) fn room_for_write(&self, offset: u64, len: u64) -> u64 {
        if self.reserved && offset + len <= self.volatile.len.next_multiple_of(PAGE_BYTES) {
            return 0;
        }
        self.volatile.missing_pages(offset, len) * PAGE_BYTES
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.synced();
        self.pending.clear();
    }

    /// A sync that fails: some of it was written, the rest will never be (invariant 2).
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.durable = self.after_power_cut(Survival::Some(random.number()));
        self.pending.clear();
    }

    fn synced(&self) -> Content {
        let mut durable = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Length(len) => durable.set_len(*len),
                Change::Write { offset, bytes } => {
                    let from = offset / SECTOR_BYTES * SECTOR_BYTES;
                    let to = (offset + bytes.len() as u64).next_multiple_of(SECTOR_BYTES);
                    durable.copy(&self.volatile, from, to - from);
                }
            }
        }
        if !self.pending.is_empty() {
            durable.set_len(self.volatile.len);
        }
        durable
    }

    /// The file as a power cut leaves it.
    pub(super) fn cut(&self, survival: Survival) -> Self {
        let durable = self.after_power_cut(survival);
        FileContent {
            volatile: durable.clone(),
            durable,
            pending: Vec::new(),
            reserved: self.reserved,
        }
    }

    fn after_power_cut(&self, survival: Survival) -> Content {
        let seed = match survival {
            Survival::None => return self.durable.clone(),
            Survival::All => return self.synced(),
            Survival::Some(seed) => seed,
        };
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let mut random = Random::new(seed);
        let changes = self.pending.len();
        // How many of the changes of length the file system's own journal has.
        let lengths = SectorState::choose(&mut random, changes).first;
        let mut len = self.durable.len;
        let mut left = self.durable.clone();
        let mut sectors: BTreeMap<u64, SectorState> = BTreeMap::new();
        for (i, change) in self.pending.iter().enumerate() {
            match change {
                Change::Length(new) if i < lengths => {
                    left.set_len(*new);
                    len = *new;
                }
                Change::Length(_) => {}
                Change::Write { offset, bytes } => {
                    let end = offset + bytes.len() as u64;
                    if i < lengths {
                        len = len.max(end);
                    }
                    for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                        let state = sectors
                            .entry(sector)
                            .or_insert_with(|| SectorState::choose(&mut random, changes));
                        let begin = sector * SECTOR_BYTES;
                        let parts = [
                            (state.first, begin, begin + state.torn_at),
                            (state.second, begin + state.torn_at, begin + SECTOR_BYTES),
                        ];
                        for (seen, from, to) in parts {
                            let (from, to) = (from.max(*offset), to.min(end));
                            if i < seen && from < to {
                                let part = (from - offset) as usize..(to - offset) as usize;
                                left.write(from, &bytes[part]);
                            }
                        }
                    }
                }
            }
        }
        left.set_len(len);
        left
    }
}
