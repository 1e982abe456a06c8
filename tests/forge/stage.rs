//! Records of the stage with right checksums and any content, by `guide/format.md`.

/// The checksum of a record in a stage of this salt, whose first four bytes have it, up to the end of its event.
pub fn checksum(salt: [u8; 8], record: &[u8]) -> [u8; 4] {
    let length_and_place = u32::from_le_bytes(record[4..8].try_into().expect("four bytes"));
    let seed = u64::from_le_bytes(salt) ^ u64::from(length_and_place);
    (xxhash_rust::xxh3::xxh3_64_with_seed(&record[8..], seed) as u32).to_le_bytes()
}

/// Has the record at a place of a stage, whose event has so many bytes, have its checksum.
pub fn seal(stage: &mut [u8], at: usize, event_bytes: usize) {
    let salt = stage[32..40].try_into().expect("eight bytes");
    let sum = checksum(salt, &stage[at..at + 16 + event_bytes]);
    stage[at..at + 4].copy_from_slice(&sum);
}
