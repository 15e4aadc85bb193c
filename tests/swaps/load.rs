//! Very many new servers, while sessions are busy: no request fails, and nothing is left.

use super::*;
use serde_json::json;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::common::{Finally, Footprint};

/// A busy session: asks without a pause, several things at a time. Returns the servers that have answered, in order.
fn busy(mut client: Client, is_over: &AtomicBool, answers: &AtomicUsize) -> Vec<i32> {
    let mut pids = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let ids: Vec<u64> = (0..3)
            .map(|_| client.send_request("pid", &json!({})))
            .collect();
        for id in ids {
            let pid = pid_in(&client.answer_to(id));
            if pids.last() != Some(&pid) {
                assert!(
                    !pids.contains(&pid),
                    "an old server answers after a new one"
                );
                pids.push(pid);
            }
        }
        answers.fetch_add(3, Ordering::Relaxed);
    }
    client.shutdown_write();
    assert!(client.read_to_end().is_empty());
    pids
}

fn swap_under_load(swaps: usize, sessions: usize) {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    // What is opened with the first session stays open.
    busy(opened(&proxy), &AtomicBool::new(true), &AtomicUsize::new(0));
    proxy.wait_until_childless();
    let before = Footprint::of(proxy.pid());
    let first = scratch.servers().len();
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let end = Finally(&is_over);
    let load: Vec<_> = (0..sessions)
        .map(|_| {
            let (is_over, answers) = (Arc::clone(&is_over), Arc::clone(&answers));
            let client = opened(&proxy);
            thread::spawn(move || busy(client, &is_over, &answers))
        })
        .collect();
    for count in 1..=swaps {
        let seen = answers.load(Ordering::Relaxed);
        swap(&proxy, count);
        eventually("the sessions to be busy", DEADLINE, || {
            answers.load(Ordering::Relaxed) > seen
        });
    }
    drop(end);
    for session in load {
        session.join().unwrap();
    }
    let started = scratch.servers().split_off(first);
    assert_eq!(started.len(), (swaps + 1) * sessions, "one for each");
    for pid in started {
        assert_eq!(handshakes(&scratch, pid), 1, "server {pid}");
    }
    before.wait_until_alone();
    let log = proxy.log();
    for word in ["] restart", "ended (", "not used", "not answered"] {
        let is_told = |line: &&String| line.contains(word);
        assert_eq!(log.iter().find(is_told), None);
    }
}

#[test]
fn thirty_swaps_under_load_lose_nothing_and_leave_nothing() {
    swap_under_load(30, 4);
}

#[test]
#[ignore = "it takes minutes"]
fn two_hundred_swaps_under_load_lose_nothing_and_leave_nothing() {
    swap_under_load(200, 20);
}
