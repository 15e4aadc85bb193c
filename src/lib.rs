//! Serves any MCP server that speaks stdio over TCP.
//!
//! Each connection gets its own server process, lines pass both ways as they came, and the session outlives crashes
//! of that process. The library holds the parts of the program; its interface is for the program, its tests and its
//! benches, and promises nothing to others.
//!
//! What may see a file descriptor or a clock is in `proxy`, `process`, `reactor` and `logger`; all else is given bytes
//! and times.

pub mod cli;
pub mod connect;
pub mod demo;
pub mod log_limit;
pub mod logger;
pub mod memory;
pub mod options;
pub mod outbox;
pub mod process;
pub mod protocol;
pub mod proxy;
pub mod reactor;
pub mod relay;
pub mod session;
pub mod small_queue;
pub mod stop_ladder;
pub mod timer_wheel;
