//! Behaviour through the public door, a module per behaviour.

mod recording;
