//! Whether others of the same user may look into this process.

use log::warn;
use nix::sys::prctl;

/// Keeps the memory, the descriptors and the environment of this process from other processes of its user, which servers
/// are (ptrace(2), `PR_SET_DUMPABLE` in prctl(2)): the system gives what is in `/proc` of it to root. There is no core dump
/// then either.
///
/// A new program in the same process starts without it (execve(2)).
pub fn hide_memory() {
    if let Err(error) = prctl::set_dumpable(false) {
        warn!("servers can read the memory of the proxy: {error}");
    }
}
