//! Another program goes on in the proxy's process.

use nix::sys::signal::Signal;

use super::{DEADLINE, Proxy, eventually};

/// What the log says once another program goes on.
pub(crate) const GOES_ON: &str = " goes on with ";

/// How often a program was replaced in this process.
pub(crate) fn generation(proxy: &Proxy) -> u64 {
    let line = std::fs::read(format!("/proc/{}/cmdline", proxy.pid())).unwrap();
    let mut words = line.split(|byte| *byte == 0);
    // For a moment there are none.
    if words.nth(1) != Some(b"--generation") {
        return 0;
    }
    let number = words.next().unwrap();
    str::from_utf8(number).unwrap().parse().unwrap()
}

/// Has the proxy upgraded, and waits until it was.
#[track_caller]
pub(crate) fn upgrade(proxy: &Proxy) {
    let before = generation(proxy);
    proxy.signal(Signal::SIGUSR2);
    eventually("the next program", 2 * DEADLINE, || {
        generation(proxy) > before
    });
    // The program before may have said so in its time, but not as often.
    let count = usize::try_from(before).unwrap() + 1;
    proxy.wait_for_logs(GOES_ON, count);
}
