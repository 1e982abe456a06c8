//! What the targets share: directories to be damaged, and what must hold of one that opens.
//!
//! `src/guide/fuzzing.md` says what each target proves and how they are run. Built without cargo-fuzz
//! the targets lack coverage and only show that they still compile.
//!
//! [`directory`] has the directory and the questions; [`log`], [`stage`] and [`store`] write its
//! kinds of file with right checksums, by the format guide; [`pieces`] cuts an input into parts; [`states`] has what
//! targets of stored states share.

pub mod directory;
#[path = "../../tests/forge/log.rs"]
pub mod log;
pub mod pieces;
#[path = "../../tests/forge/stage.rs"]
pub mod stage;
pub mod states;
#[path = "../../tests/forge/store.rs"]
pub mod store;
