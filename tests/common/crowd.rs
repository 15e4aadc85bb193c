//! Many visitors at a time, whose servers are killed and stopped at random.

use std::thread;

use nix::sys::signal::Signal;

use super::processes::send_signal;
use super::proxy::Proxy;
use super::random::Random;
use super::visitor::{Tally, visit};

/// For each visitor there is a fault in about half of this time, in milliseconds: most servers live to see their
/// session's end.
const LONGEST_PAUSE_MS: u64 = 1200;

/// How long a server is stopped at most, in milliseconds.
const LONGEST_STOP_MS: u64 = 100;

/// Has so many visitors at a time come and go until each of them has nothing more to do, as `is_over` says by the number
/// of its visits. The `spared` server is left alone. Returns what happened.
pub(crate) fn crowd(
    proxy: &Proxy,
    visitors: u64,
    spared: i32,
    random: &mut Random,
    is_over: impl Fn(u64) -> bool + Sync,
) -> Tally {
    let mut tally = Tally::default();
    let visitor = |mut random: Random| {
        let mut tally = Tally::default();
        for visits in 1.. {
            visit(proxy.address(), &mut random, &mut tally);
            if is_over(visits) {
                break;
            }
        }
        tally
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..visitors)
            .map(|_| {
                let random = random.fork();
                let visitor = &visitor;
                scope.spawn(move || visitor(random))
            })
            .collect();
        while threads.iter().any(|visitor| !visitor.is_finished()) {
            thread::sleep(random.milliseconds(LONGEST_PAUSE_MS / visitors));
            let mut servers = proxy.servers();
            servers.retain(|server| *server != spared);
            let Some(server) = random.pick(&servers) else {
                continue;
            };
            if random.once_in(4) {
                tally.note("servers stopped for a while");
                send_signal(*server, Signal::SIGSTOP);
                thread::sleep(random.milliseconds(LONGEST_STOP_MS));
                send_signal(*server, Signal::SIGCONT);
            } else {
                tally.note("servers killed");
                send_signal(*server, Signal::SIGKILL);
            }
        }
        for visitor in threads {
            tally.add(visitor.join().unwrap());
        }
    });
    tally
}
