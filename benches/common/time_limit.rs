//! Work on blocking descriptors that may never end: after a time limit, what it waits for is killed.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Does `work`. If it takes longer than `limit`, `break_off` is called and has to make it end; then returns `None`.
///
/// The calling thread does the work, and one that sleeps watches the time, so that nothing is added to what is measured.
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
