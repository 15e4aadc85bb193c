//! What waits to be written, and the memory that all sessions share for it.

pub mod budget;
pub mod outbox;
