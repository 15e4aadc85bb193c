//! What the serving loop holds, by an allocator that counts, against its account in the shared budget.
//!
//! The allocator counts for the whole process. So whoever measures does so [alone](alone), and what the world below the
//! loop allocates while it is called is [left out](Outside).

use std::alloc::System;
use std::cell::Cell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cap::Cap;
use mcp_tcp_proxy::buffers::budget::UNCHARGED_BYTES;

use crate::world::World;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a session may hold without a charge: the free parts of its buffers, and tables that are limited in number, such as
/// those of 1,024 requests of either side.
const SESSION_BYTES: isize = 10 * UNCHARGED_BYTES.cast_signed();

/// What is held for all sessions: spare buffers, small and large, and tables of the loop.
const LOOP_BYTES: isize = 4 * 128 * 1024 + 4 * 4 * 1024 * 1024 + 256 * 1024;

/// Seeds of which the memory is measured. The others run beside other tests.
const MEASURED_SEEDS: u64 = 60;

static TURNS: RwLock<()> = RwLock::new(());

thread_local! {
    /// Set while the loop runs and is measured.
    static IS_MEASURED: Cell<bool> = const { Cell::new(false) };
    /// What the world has allocated while the loop ran.
    static OUTSIDE: Cell<isize> = const { Cell::new(0) };
}

/// Nobody measures meanwhile.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURNS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody else allocates meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURNS.write().unwrap_or_else(PoisonError::into_inner)
}

fn allocated() -> isize {
    ALLOCATOR.allocated().cast_signed()
}

/// While it is there, the world allocates, and not the loop.
pub struct Outside(Option<isize>);

impl Outside {
    pub fn new() -> Self {
        let is_outermost = IS_MEASURED.replace(false);
        Self(is_outermost.then(allocated))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            OUTSIDE.set(OUTSIDE.get() + allocated() - before);
            IS_MEASURED.set(true);
        }
    }
}

/// What the loop has allocated and not freed, in bytes.
#[derive(Debug, Default)]
pub struct Held {
    pub bytes: isize,
    /// The most that it was beyond what is charged.
    pub most: isize,
}

impl Held {
    /// Counts what the loop allocates.
    pub fn measure<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let before = allocated();
        OUTSIDE.set(0);
        IS_MEASURED.set(true);
        let result = run();
        IS_MEASURED.set(false);
        self.bytes += allocated() - before - OUTSIDE.get();
        result
    }

    /// Checks it after an iteration.
    pub fn check(&mut self, sessions: usize, charged: usize) {
        let uncharged = self.bytes - charged.cast_signed();
        self.most = self.most.max(uncharged);
        let most = LOOP_BYTES + sessions.cast_signed() * SESSION_BYTES;
        assert!(
            uncharged <= most,
            "{} bytes are held, {charged} are charged, for {sessions} sessions",
            self.bytes
        );
    }
}

#[test]
fn what_the_loop_holds_is_charged_but_for_a_constant_for_each_session() {
    let _alone = alone();
    let first = crate::seeds::setting("SEED", 0);
    let mut most = 0;
    for seed in first..first + MEASURED_SEEDS {
        let held = World::new(seed).measured().run_measured(500);
        most = held.most.max(most);
        // Spare buffers, and the tables of the loop in the size that they have come to.
        assert!(
            (0..=LOOP_BYTES).contains(&held.bytes),
            "at the end of seed {seed} {held:?}"
        );
    }
    println!("at most {} KiB were held without a charge", most / 1024);
}
