//! Has the C library's allocator give memory back after a load.
//!
//! By default glibc raises its thresholds with the buffers that are freed, up to 32 MiB, and keeps what is below them:
//! tens of megabytes after a few long messages. That the thresholds stay put can only be said by `mallopt(3)`, which
//! needs unsafe code, or by variables when a program starts. So this program starts itself once more with these, as the
//! same process, and keeps them from the servers that it starts.
//!
//! Whoever sets any of the variables decides alone, and is not started twice.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::{env, io, process};

use nix::unistd::execve;

/// What is not less than the first is got from the system and given back to it, each by itself; what is free at the end
/// of the heap is given back when it is more than the second. More would stay after a load, and makes nothing faster:
/// the buffers of a steady flow of messages are kept by [`crate::buffers::budget`], not by the allocator.
const THRESHOLDS: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
];

/// Names the process that has set the variables, so that they are told from a user's.
const SET_BY: &str = "MCP_TCP_PROXY_SET_MALLOC_IN";

/// What else a user can have set.
const USERS: [&str; 2] = ["GLIBC_TUNABLES", "MALLOC_TOP_PAD_"];

/// Starts the program once more, with the thresholds set. Returns if that is not needed or not possible: then all is as
/// it would be without this.
pub fn start_with_thresholds() {
    let is_set = |name: &str| env::var_os(name).is_some();
    let names = THRESHOLDS.iter().map(|(name, _)| *name);
    if cfg!(target_env = "gnu") && !is_set_by_us() && !names.chain(USERS).any(is_set) {
        let _ = start_again();
    }
}

/// Whether a variable is not the user's, and so not meant for servers.
pub fn is_own_variable(name: &OsStr) -> bool {
    let is_threshold = THRESHOLDS.iter().any(|(threshold, _)| name == *threshold);
    is_set_by_us() && (is_threshold || name == SET_BY)
}

/// The process stays the same when a program starts another in its place.
fn is_set_by_us() -> bool {
    env::var_os(SET_BY).is_some_and(|pid| pid == OsString::from(process::id().to_string()))
}

/// Returns only if it fails.
fn start_again() -> io::Result<()> {
    let program = CString::new(env::current_exe()?.into_os_string().into_vec())?;
    let words = env::args_os()
        .map(|word| CString::new(word.into_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    let own = THRESHOLDS
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .chain([(SET_BY.into(), process::id().to_string().into())]);
    let environment = env::vars_os()
        .filter(|(name, _)| name != SET_BY)
        .chain(own)
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    execve(&program, &words, &environment)?;
    Ok(())
}
