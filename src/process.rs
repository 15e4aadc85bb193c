//! Server processes as the system has them: started, reaped, signalled; and what this process gives up so that they
//! can do less harm. Who has a server and when it is to go is not known here.

mod client_facts;
mod dumpable;
mod environment;
pub mod escalation;
pub mod facts;
mod fd_limit;
pub mod memory_limit;
mod notify;
mod program;
pub mod reap;
pub mod spawn;
mod user;
mod working_directory;

pub use self::client_facts::ClientFacts;
pub use self::dumpable::hide_memory;
pub use self::environment::{Environment, read_file};
pub use self::fd_limit::DescriptorLimit;
pub use self::notify::ServiceManager;
pub use self::spawn::{Spawned, Spawner, Surroundings, is_for_good};
pub use self::user::RunAs;
pub use self::working_directory::WorkingDirectory;
