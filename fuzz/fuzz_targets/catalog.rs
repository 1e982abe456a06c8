//! A catalog of any bytes with a right checksum, over the rows and the log of a crashed directory.
//! The input is the catalog without the identity of the directory, which comes first in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, file, identity, template};
use quipu_fuzz::store::{self, CATALOG, META};

fuzz_target!(|input: &[u8]| {
    let mut files = template().clone();
    let state = file(&mut files, "state.redb");
    let payload = [&[254], &identity()[..], input].concat();
    let change = (META, CATALOG.to_vec(), Some(store::seal(CATALOG, &payload)));
    *state = store::changed(state, &[change]);
    exercise(&files, Trust::Nothing);
});
