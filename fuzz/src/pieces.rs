//! An input as pieces, each with a byte of flags: `(flags (1) · length (2) · bytes)*`.
//!
//! The bytes of a piece are those of a file, so a seed is what the engine has written and a mutation
//! of the input is one of the file. Every input has a meaning: a length that says too much means
//! what is left, and what is too short for a piece is none.

/// A byte of flags and some bytes.
pub type Piece<'a> = (u8, &'a [u8]);

/// The pieces of an input.
pub fn pieces(mut input: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let [flags, low, high, rest @ ..] = input {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, behind) = rest.split_at(length);
        pieces.push((*flags, bytes));
        input = behind;
    }
    pieces
}

/// The input that has these pieces, each of less than 64 KiB.
pub fn input(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut input = Vec::new();
    for (flags, bytes) in pieces {
        let length = u16::try_from(bytes.len()).expect("a piece is that short");
        input.push(*flags);
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(bytes);
    }
    input
}
