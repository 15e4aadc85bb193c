//! Clients that choose the same ids and tokens, servers that do what they should not, and nobody hears of anybody else.

mod bounds;
mod choice;
mod copy;
mod hibernation;
mod legacy;
mod legacy_model;
mod lines;
mod model;
mod recycling;
mod rules;
mod world;
