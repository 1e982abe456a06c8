//! Behaviour through the public door, a module per behaviour.

mod corruption;
mod crash;
mod model;
mod oracles;
mod recording;
