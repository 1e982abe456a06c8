//! Exchange between replicas: what one has recorded, as a value that can be carried to another.
//!
//! A record of a replica is named by the replica's id and its position there. A [`Bundle`] has records with
//! these names; who imports it takes those that it has not, and passes over the others. So importing is
//! idempotent, and bundles may come in any order, with gaps, by way of others, and from replicas that
//! have never met. Views hold merged values, to which the order of records does not matter; that is
//! why replicas that know the same records answer the same.
//!
//! In reading order: [`replicas`] (names, and which of them are here), [`cursor`], [`bundle`] (the value and
//! its bytes), [`json`] (the same as text), [`tiny_counter`] (of what another one has kept). Next:
//! `db/exchange.rs`.

mod bundle;
mod cursor;
mod json;
mod replicas;
mod tiny_counter;

pub use bundle::Bundle;
pub(crate) use bundle::Packer;
pub use cursor::Cursor;
pub use replicas::ReplicaId;
pub(crate) use replicas::{Known, Replicas};
pub use tiny_counter::TinyCounter;
