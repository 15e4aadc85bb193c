//! What connections are made of: how bytes travel, and what is needed to make that safe.

pub mod secret_file;
pub mod tls;
