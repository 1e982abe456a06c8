//! A ring: the buckets of one grain, each a cell, of which the newest are kept.
//!
//! Invariants
//! 1. Buckets have absolute numbers ([`TimeZone::bucket`](crate::TimeZone::bucket)); the newest seen, and nothing else, decides
//!    which are kept: exactly those with `number >= keep.oldest(newest)`. So any order of events
//!    and any merge order leaves the same buckets.
//! 2. Buckets live in blocks of [`BLOCK_BUCKETS`] neighbours, sorted by number; a block is never
//!    empty. A block is what is stored, copied and written again as one; closed ones are not
//!    touched any more.
//!
//! Next: `series.rs`.

use crate::codec::{self, Malformed};
use crate::series::{Cell, Shape};
use crate::time::Keep;

/// Memory of a cell in a block.
const CELL_BYTES: usize = size_of::<(u8, Cell)>();

/// Buckets in a block.
pub(crate) const BLOCK_BUCKETS: i64 = 32;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    /// The greatest bucket number seen; `None` before the first event.
    newest: Option<i64>,
    blocks: Vec<Block>,
    /// Stored blocks that rotated out since the holder last asked.
    dropped: Vec<i64>,
    /// Bytes of blocks and cells.
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Bucket number / `BLOCK_BUCKETS`, rounded down.
    pub(crate) number: i64,
    /// The holder's mark of the last change (the tier's generation); 0 is unchanged.
    pub(crate) changed: u32,
    /// Whether the snapshot store has a row for it.
    pub(crate) stored: bool,
    /// Place in the block and cell, sorted by place.
    cells: Vec<(u8, Cell)>,
}

impl Ring {
    /// Bucket `number`, made when it is not there. `None` when it is older than what is kept.
    pub(crate) fn bucket_mut(
        &mut self,
        keep: Keep,
        number: i64,
        shape: &Shape,
        mark: u32,
    ) -> Option<&mut Cell> {
        let newest = self.newest.map_or(number, |newest| newest.max(number));
        if number < keep.oldest(newest) {
            return None;
        }
        if self.newest != Some(newest) {
            self.newest = Some(newest);
            self.rotate(keep, mark);
        }
        let at = self.block_at(number.div_euclid(BLOCK_BUCKETS));
        let block = &mut self.blocks[at];
        block.changed = mark;
        let place = number.rem_euclid(BLOCK_BUCKETS) as u8;
        let (cell, new) = block.cell_mut(place, shape);
        self.bytes += if new { CELL_BYTES + cell.heap_bytes() } else { 0 };
        Some(cell)
    }

    /// Notes that a cell that was handed out grew on the heap.
    pub(crate) fn grew(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The snapshot store is about to have a row for each block.
    pub(crate) fn note_stored(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.stored = true);
    }

    /// The place of block `number`, made when it is not there. The last block is looked at first:
    /// events come mostly in order.
    fn block_at(&mut self, number: i64) -> usize {
        match self.blocks.last() {
            Some(last) if last.number == number => return self.blocks.len() - 1,
            Some(last) if last.number > number => {}
            _ => {
                self.blocks.push(Block::new(number));
                self.bytes += size_of::<Block>();
                return self.blocks.len() - 1;
            }
        }
        self.blocks.binary_search_by_key(&number, |block| block.number).unwrap_or_else(|at| {
            self.blocks.insert(at, Block::new(number));
            self.bytes += size_of::<Block>();
            at
        })
    }

    /// Forgets what invariant 1 does not keep.
    fn rotate(&mut self, keep: Keep, mark: u32) {
        let Some(newest) = self.newest else { return };
        let oldest = keep.oldest(newest);
        if oldest == i64::MIN {
            return;
        }
        let (first, place) =
            (oldest.div_euclid(BLOCK_BUCKETS), oldest.rem_euclid(BLOCK_BUCKETS) as u8);
        let gone = self.blocks.partition_point(|block| block.number < first);
        let mut freed: usize = self.blocks[..gone].iter().map(Block::memory_bytes).sum();
        self.dropped
            .extend(self.blocks.drain(..gone).filter(|block| block.stored).map(|b| b.number));
        if let Some(block) = self.blocks.first_mut()
            && block.number == first
            && block.cells.first().is_some_and(|(at, _)| *at < place)
        {
            freed += block.memory_bytes();
            block.cells.retain(|(at, _)| *at >= place);
            block.changed = mark;
            if block.cells.is_empty() {
                let stored = block.stored;
                self.blocks.remove(0);
                self.dropped.extend(stored.then_some(first));
            } else {
                freed -= block.memory_bytes();
            }
        }
        self.bytes -= freed;
    }

    pub(crate) fn merge(&mut self, other: &Ring, keep: Keep, shape: &Shape, mark: u32) {
        let Some(newest) = self.newest.max(other.newest) else { return };
        let oldest = keep.oldest(newest);
        self.newest = Some(newest);
        self.rotate(keep, mark);
        for theirs in &other.blocks {
            for (place, cell) in &theirs.cells {
                if theirs.number * BLOCK_BUCKETS + i64::from(*place) >= oldest {
                    let at = self.block_at(theirs.number);
                    let block = &mut self.blocks[at];
                    block.changed = mark;
                    block.stored |= theirs.stored;
                    let (mine, new) = block.cell_mut(*place, shape);
                    let before = if new { 0 } else { CELL_BYTES + mine.heap_bytes() };
                    mine.merge(cell);
                    self.bytes += CELL_BYTES + mine.heap_bytes() - before;
                }
            }
        }
        // A stored block of theirs that this ring does not keep has a row to be taken away.
        for theirs in other.blocks.iter().filter(|block| block.stored) {
            if !self.blocks.iter().any(|block| block.number == theirs.number)
                && !self.dropped.contains(&theirs.number)
            {
                self.dropped.push(theirs.number);
            }
        }
        self.dropped.extend_from_slice(&other.dropped);
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    /// Forgets the blocks for which `keep` says no; whether there were any.
    pub(crate) fn keep_blocks(&mut self, keep: impl Fn(i64) -> bool) -> bool {
        let before = self.blocks.len();
        self.blocks.retain(|block| keep(block.number));
        self.bytes = self.blocks.iter().map(Block::memory_bytes).sum();
        self.blocks.len() < before
    }

    /// The rows to delete since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.dropped)
    }

    /// Bucket numbers and cells, oldest first.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (i64, &Cell)> {
        self.blocks.iter().flat_map(|block| {
            block
                .cells
                .iter()
                .map(|(at, cell)| (block.number * BLOCK_BUCKETS + i64::from(*at), cell))
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// The ring without its blocks' contents: `newest + 1 flag · number of blocks · their numbers`.
    pub(crate) fn encode_directory(&self, out: &mut Vec<u8>) {
        let Some(newest) = self.newest else {
            out.push(0);
            return;
        };
        out.push(1);
        codec::put_i64(out, newest);
        codec::put_u64(out, self.blocks.len() as u64);
        let mut previous = 0;
        for block in &self.blocks {
            codec::put_i64(out, block.number.wrapping_sub(previous));
            previous = block.number;
        }
    }

    /// A ring whose blocks, all stored, are still to be filled by [`Block::decode_cells`].
    pub(crate) fn decode_directory(bytes: &mut &[u8]) -> Result<Ring, Malformed> {
        match codec::take_array::<1>(bytes)? {
            [0] => return Ok(Ring::default()),
            [1] => {}
            _ => return Err(Malformed("a ring begins with neither 0 nor 1")),
        }
        let newest = codec::take_i64(bytes)?;
        let n = codec::take_count(bytes, 1)?;
        let mut blocks: Vec<Block> = Vec::with_capacity(n);
        let mut previous = 0_i64;
        for _ in 0..n {
            let number = previous.wrapping_add(codec::take_i64(bytes)?);
            if blocks.last().is_some_and(|last| last.number >= number) {
                return Err(Malformed("the blocks of a ring are not in order"));
            }
            blocks.push(Block { stored: true, ..Block::new(number) });
            previous = number;
        }
        let range = i64::MIN / BLOCK_BUCKETS + 1..=newest.div_euclid(BLOCK_BUCKETS);
        if blocks.iter().any(|block| !range.contains(&block.number)) {
            return Err(Malformed("a block of a ring lies behind its newest bucket"));
        }
        let bytes = blocks.len() * size_of::<Block>();
        Ok(Ring { newest: Some(newest), blocks, dropped: Vec::new(), bytes })
    }

    /// Fills the `at`th block of a decoded directory.
    pub(crate) fn decode_block(
        &mut self,
        at: usize,
        bytes: &[u8],
        shape: &Shape,
    ) -> Result<(), Malformed> {
        let block = &mut self.blocks[at];
        let before = block.memory_bytes();
        block.decode_cells(bytes, shape)?;
        self.bytes = self.bytes + block.memory_bytes() - before;
        Ok(())
    }
}

impl Block {
    fn new(number: i64) -> Self {
        Block { number, changed: 0, stored: false, cells: Vec::new() }
    }

    /// The cell at `place`, and whether it was made just now.
    fn cell_mut(&mut self, place: u8, shape: &Shape) -> (&mut Cell, bool) {
        let at = match self.cells.last() {
            Some((last, _)) if *last == place => Ok(self.cells.len() - 1),
            Some((last, _)) if *last < place => Err(self.cells.len()),
            None => Err(0),
            _ => self.cells.binary_search_by_key(&place, |(at, _)| *at),
        };
        let (at, new) = match at {
            Ok(at) => (at, false),
            Err(at) => {
                self.cells.insert(at, (place, Cell::empty(shape)));
                (at, true)
            }
        };
        (&mut self.cells[at].1, new)
    }

    fn memory_bytes(&self) -> usize {
        let cells = self.cells.iter().map(|(_, cell)| CELL_BYTES + cell.heap_bytes());
        size_of::<Block>() + cells.sum::<usize>()
    }

    /// `number of cells · (place · cell)*`
    pub(crate) fn encode_cells(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.cells.len() as u64);
        for (place, cell) in &self.cells {
            out.push(*place);
            cell.encode(out);
        }
    }

    pub(crate) fn decode_cells(
        &mut self,
        mut bytes: &[u8],
        shape: &Shape,
    ) -> Result<(), Malformed> {
        let n = codec::take_count(&mut bytes, 1)?;
        if n == 0 || n > BLOCK_BUCKETS as usize {
            return Err(Malformed("a block holds 1 to 32 buckets"));
        }
        self.cells = Vec::with_capacity(n);
        for _ in 0..n {
            let [place] = codec::take_array::<1>(&mut bytes)?;
            let ordered = self.cells.last().is_none_or(|(last, _)| *last < place);
            if !ordered || i64::from(place) >= BLOCK_BUCKETS {
                return Err(Malformed("the buckets of a block are not in order"));
            }
            self.cells.push((place, Cell::decode(&mut bytes, shape)?));
        }
        codec::finished(bytes)
    }
}
