//! The serving loop over a system in memory: what comes of rare things, each by itself. What comes of many at once is for
//! the simulation.

mod limits;
mod reloading;
mod returning;
mod sharing;
pub(super) mod states;
mod status;
mod stopping;
mod tls;
mod wire;
pub(super) mod world;
