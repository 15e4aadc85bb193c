//! Data structures and small policies that know nothing of the program they are used in.

pub(crate) mod about;
#[cfg(test)]
pub(crate) mod captured_log;
pub mod client_address;
pub mod counts;
pub(crate) mod defaults;
pub mod histogram;
pub mod keyed_queue;
pub mod large_slab;
pub mod log_rate_limit;
#[cfg(test)]
pub(crate) mod others_end;
pub(crate) mod pairs;
pub mod plural;
pub mod proc_text;
pub mod secret;
pub mod seldom;
pub mod service_key;
pub mod shell_words;
pub mod side_bytes;
pub mod small_queue;
pub mod time;
pub mod timer_wheel;
