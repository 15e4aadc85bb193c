//! Server processes as the system has them: started, reaped, signalled. Who has a server and when it is to go is not
//! known here.

pub mod escalation;
mod fd_limit;
pub mod memory_limit;
mod program;
pub mod reap;
pub mod spawn;

pub use self::fd_limit::DescriptorLimit;
pub use self::spawn::{Spawned, Spawner};
