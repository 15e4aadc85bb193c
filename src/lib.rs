//! Serves any MCP server that speaks stdio over TCP.
//!
//! Each connection gets its own server process, lines pass both ways as they came, and the session outlives crashes
//! of that process. The library holds the parts of the program; its interface is for the program, its tests and its
//! benches, and promises nothing to others.
//!
//! What may see a file descriptor or a clock is in `serve`, `connect`, `bench`, `inquiry`, `transport`, `process`, `reactor`,
//! `secret_file`, `upgrade`, `malloc` and `logger`; all else is given bytes and times.

pub mod bench;
pub mod buffers;
pub mod cli;
pub mod config;
pub mod connect;
pub mod demo;
pub mod entrance;
pub mod inquiry;
pub mod logger;
pub mod malloc;
pub mod options;
pub mod process;
pub mod protocol;
pub mod pump;
pub mod reactor;
pub mod resume;
pub mod scheduler;
pub mod secret_file;
pub mod serve;
pub mod session;
pub mod share;
pub mod status;
pub mod transport;
pub mod upgrade;
pub mod util;
