//! The time to start a process, from a small process and from a large one: the size must not matter.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mcp_tcp_proxy::process::{DescriptorLimit, Spawner, Surroundings};
use nix::sys::wait::waitpid;

use crate::{Times, ms, ratio};

const ROUNDS: usize = 100;
const HEAP_BYTES: usize = 1024 * 1024 * 1024;
const PROGRAM: &str = "/bin/true";

pub(crate) fn measure() {
    let limit = DescriptorLimit::raise().expect("limits can be read");
    let spawner = Spawner::new(&[PROGRAM.into()], Surroundings::inherited(), limit)
        .expect("every system has it");
    let (small, small_fork) = (spawn_time(&spawner), fork_time());
    let heap = vec![1_u8; HEAP_BYTES];
    let (large, large_fork) = (spawn_time(&spawner), fork_time());
    assert_eq!(heap.iter().step_by(4096).max(), Some(&1));
    drop(heap);
    let gib = HEAP_BYTES >> 30;
    println!(
        "start of a process, p50: {} from a small process, {} from one of {gib} GiB ({:.2} ×)",
        ms(small),
        ms(large),
        ratio(large, small)
    );
    println!(
        "the same by fork and exec: {} and {} ({:.2} ×)",
        ms(small_fork),
        ms(large_fork),
        ratio(large_fork, small_fork)
    );
}

fn spawn_time(spawner: &Spawner) -> Duration {
    median(|| {
        let begin = Instant::now();
        let child = spawner.spawn(None).expect("the program starts");
        let time = begin.elapsed();
        waitpid(child.pid, None).expect("it is a child");
        time
    })
}

/// The standard library does not use `posix_spawn` when a user is set.
fn fork_time() -> Duration {
    let own = std::fs::metadata("/proc/self").expect("there is a /proc");
    median(|| {
        let mut command = Command::new(PROGRAM);
        command
            .uid(own.uid())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().expect("the program starts");
        let time = begin.elapsed();
        child.wait().expect("it is a child");
        time
    })
}

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    Times::new((0..ROUNDS).map(|_| measure()).collect()).median()
}
