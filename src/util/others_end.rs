//! For tests: the end of a pipe or socket of which this process has closed the other end.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until nobody holds the other end. A test beside this one may just have started a process, which holds all
/// descriptors of this one until it runs its program.
///
/// # Panics
/// If it takes a minute.
pub(crate) fn wait_until_others_have_closed(ours: impl AsFd) {
    // Errors and ends are told without being asked for (poll(2)).
    let mut descriptors = [PollFd::new(ours.as_fd(), PollFlags::empty())];
    let ended = poll(&mut descriptors, PollTimeout::from(60_000_u16));
    assert_eq!(ended, Ok(1), "somebody holds the other end");
}
