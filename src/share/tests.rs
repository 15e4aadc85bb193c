//! Clients that choose the same ids and tokens, servers that do what they should not, and nobody hears of anybody else.

mod hibernation;
mod lines;
mod model;
mod rules;
mod world;
