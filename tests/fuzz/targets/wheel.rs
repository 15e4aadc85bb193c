//! The timer wheel against a sorted list.

use std::collections::BTreeMap;

use mcp_tcp_proxy::util::timer_wheel::{TimerId, TimerWheel};

use crate::program::Program;

/// Times that the steps of a program lie around: near the boundaries of the wheel's levels, and near its end.
const STARTS: [u64; 8] = [
    0,
    63,
    4095,
    (1 << 36) - 1,
    1 << 36,
    u64::MAX / 2,
    u64::MAX - (1 << 20),
    u64::MAX,
];

/// Up to this many bits of a delay, which is longer than a proxy runs.
const DELAY_BITS: u32 = 48;

/// The input is a start and a program of steps.
pub(crate) fn wheel(input: &[u8]) {
    let mut program = Program(input);
    let start = STARTS[usize::from(program.byte()) % STARTS.len()];
    let mut world = World {
        wheel: TimerWheel::new(start),
        now: start,
        timers: BTreeMap::new(),
        ids: Vec::new(),
        cancelled: false,
    };
    while !program.is_over() {
        world.step(&mut program);
        world.check();
    }
    world.advance(u64::MAX);
    assert!(world.wheel.is_empty() && world.timers.is_empty());
    assert_eq!(world.wheel.next_deadline(), None);
}

struct World {
    wheel: TimerWheel<usize>,
    now: u64,
    /// By deadline, and where these are equal by the order of setting.
    timers: BTreeMap<(u64, usize), TimerId>,
    ids: Vec<TimerId>,
    cancelled: bool,
}

impl World {
    fn step(&mut self, program: &mut Program<'_>) {
        match program.byte() % 9 {
            0..=2 => self.set(self.now.saturating_add(program.number(DELAY_BITS))),
            // At a time of its own, which may have passed.
            3 => self.set(program.number(64)),
            4 => self.cancel(usize::from(program.byte())),
            5 => self.advance(self.now.saturating_add(program.number(DELAY_BITS))),
            6 => self.advance_to_next(),
            // Past everything that there is.
            7 => {
                let last = self.timers.last_key_value().map_or(0, |(key, _)| key.0);
                self.advance(last.max(self.now).saturating_add(program.number(20)));
            }
            // One at a time, so that others are set and cancelled between them.
            _ => {
                let now = self.now.saturating_add(program.number(DELAY_BITS));
                self.pop(now);
            }
        }
    }

    fn set(&mut self, deadline: u64) {
        let name = self.ids.len();
        let id = self.wheel.set(deadline, name);
        self.timers.insert((deadline.max(self.now), name), id);
        self.ids.push(id);
    }

    fn cancel(&mut self, nth: usize) {
        // The latest are the most likely to be there still.
        let Some(id) = self.ids.iter().rev().nth(nth).copied() else {
            return;
        };
        let before = self.timers.len();
        self.timers.retain(|_, other| *other != id);
        let was_set = self.timers.len() < before;
        assert_eq!(self.wheel.cancel(id), was_set);
        self.cancelled |= was_set;
    }

    /// Returns whether there was one.
    fn pop(&mut self, now: u64) -> bool {
        let due = self
            .timers
            .first_entry()
            .filter(|first| first.key().0 <= now);
        let expected = due.map(|first| first.remove_entry().0);
        assert_eq!(self.wheel.pop_expired(now), expected.map(|(_, name)| name));
        self.now = match expected {
            Some((deadline, _)) => deadline,
            None => self.now.max(now),
        };
        expected.is_some()
    }

    fn advance(&mut self, now: u64) {
        while self.pop(now) {}
    }

    /// Sleeps as a caller does. Where timers were cancelled it may be woken too early, but not for ever.
    fn advance_to_next(&mut self) {
        let before = self.timers.len();
        for _ in 0..=10 * (self.ids.len() + 1) {
            let Some(next) = self.wheel.next_deadline() else {
                break;
            };
            self.advance(next);
            if self.timers.len() < before {
                break;
            }
        }
        assert!(before == 0 || self.timers.len() < before);
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.timers.len());
        assert_eq!(self.wheel.is_empty(), self.timers.is_empty());
        let next = self.timers.first_key_value().map(|(key, _)| key.0);
        let wake = self.wheel.next_deadline();
        assert_eq!(wake.is_some(), next.is_some());
        assert!(wake <= next, "{wake:?} {next:?}");
        assert!(self.cancelled || wake == next, "{wake:?} {next:?}");
    }
}
