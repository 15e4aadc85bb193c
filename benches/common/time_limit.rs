//! Work that may never end, on blocking descriptors: after a time, what it waits for is killed.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Does `work`; if it takes longer than `limit`, `break_off` has to make it end. Returns `None` if that was so.
///
/// The work is done by the calling thread, and the time is watched by one that sleeps, so that nothing is added to what
/// is measured.
pub(crate) fn within<T>(
    limit: Duration,
    break_off: impl FnOnce() + Send,
    work: impl FnOnce() -> T,
) -> Option<T> {
    thread::scope(|scope| {
        let (done, watched) = mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let late = watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                break_off();
            }
            late
        });
        let result = work();
        drop(done);
        let late = watch.join().expect("the watch does not panic");
        (!late).then_some(result)
    })
}
