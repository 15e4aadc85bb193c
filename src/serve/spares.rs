//! Servers that were started ahead of time and wait for a session (`--prespawn`): which ones wait, in what order they
//! are handed out, and when more are started. The log calls them the pool.
//!
//! Nothing is sent to a waiting server, and what it writes to stdout is left for the session that takes it. Its stderr
//! is logged. Nothing here starts, reads or stops anything.

mod state;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub(super) use self::state::SparesState;
use super::Due;
use super::servers::{ServerKey, carried_pid};
use crate::entrance::Name;
use crate::reactor::timers::{Deadline, Timers};
use crate::session::last_words::LastWords;
use crate::session::restart::{Decision, RestartPolicy};
use crate::session::stderr::{Gate, SESSION_OUTPUT, ServerLogging, StderrLines, log_last_words};
use crate::util::about::ServerProcess;
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::plural::Counted;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// After a server was taken, the next one is started this much later: a start takes longer than the taken server's
/// first response, which it would delay.
const REFILL_DELAY: Duration = Duration::from_millis(10);

/// After a loss, one server must wait for this long without ending before more are started: as long as the shortest
/// cooldown of a session's server.
const WATCH_TIME: Duration = Duration::from_secs(1);

/// The waiting servers.
#[derive(Debug)]
pub(super) struct Spares {
    /// Whose they are.
    service: ServiceKey,
    /// What the log calls it, if it has a name.
    name: Option<Rc<Name>>,
    size: usize,
    /// Those that wait, the one that has waited longest first.
    waiting: VecDeque<Spare>,
    /// Those that are of no more use, and were not reaped.
    retired: Vec<Spare>,
    policy: RestartPolicy,
    refill: Refill,
    /// The deadline of [`Self::refill`].
    deadline: Deadline,
    log_rate_limit: LogRateLimit,
    logging: ServerLogging,
    hits: u64,
    misses: u64,
}

/// A server that has no user.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Spare {
    key: ServerKey,
    #[serde(with = "carried_pid")]
    pid: Pid,
    stderr: StderrLines,
    last_words: LastWords,
    /// It was asked to end, as it is not wanted any more.
    is_unwanted: bool,
}

impl Spare {
    /// How the log calls it.
    fn label(&self, service: Option<&Name>) -> ServerProcess {
        ServerProcess {
            what: "spare",
            server: service.map(|name| name.as_str().into()),
            pid: self.pid.as_raw(),
        }
    }

    /// Logs what it wrote to its stderr; with `None`, at the end, what has no line end.
    fn log(
        &mut self,
        service: Option<&Name>,
        bytes: Option<&[u8]>,
        limit: Option<&mut LogRateLimit>,
        now: Time,
    ) {
        let label = self.label(service);
        let mut gate = Gate {
            limit,
            shared: None,
            last_words: Some(&mut self.last_words),
        };
        let log = |line: &str| gate.log_stderr(&label, line, now);
        match bytes {
            Some(bytes) => self.stderr.push(bytes, log),
            None => self.stderr.end(log),
        }
    }
}

/// Whether servers may be started for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Refill {
    /// As many as are lacking.
    Freely,
    /// The same after the deadline.
    Soon,
    /// After a loss: none before the deadline, then one.
    Held,
    One,
    /// That one was started. If it lasts to the deadline, others may follow.
    Watched,
    /// The program is being stopped.
    Never,
}

impl Spares {
    /// A pool that is to have `size` servers waiting. Those that end by themselves are replaced under the policy of
    /// sessions with at most `max_restarts`.
    pub(super) fn new(size: usize, max_restarts: u32, logging: ServerLogging) -> Self {
        Self {
            service: ServiceKey::ONLY,
            name: None,
            size,
            waiting: VecDeque::new(),
            retired: Vec::new(),
            policy: RestartPolicy::new(max_restarts),
            refill: Refill::Freely,
            deadline: Deadline::default(),
            log_rate_limit: LogRateLimit::new(&SESSION_OUTPUT),
            logging,
            hits: 0,
            misses: 0,
        }
    }

    /// The same for one of several services.
    pub(super) fn of(self, service: ServiceKey, name: Option<Rc<Name>>) -> Self {
        Self {
            service,
            name,
            ..self
        }
    }

    /// Whether one more server is to be started.
    pub(super) fn wants_server(&self) -> bool {
        let retired = self.retired.iter().filter(|spare| !spare.is_unwanted);
        self.waiting.len() + retired.count() < self.size
            && matches!(self.refill, Refill::Freely | Refill::One)
    }

    /// How many servers wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a server waits.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a server in that was started.
    pub(super) fn add(&mut self, key: ServerKey, pid: Pid) {
        self.waiting.push_back(Spare {
            key,
            pid,
            stderr: StderrLines::default(),
            last_words: LastWords::default(),
            is_unwanted: false,
        });
    }

    /// A server is being started.
    pub(super) fn started(&mut self, timers: &mut Timers<Due>) {
        let now = timers.now();
        self.policy.started(now);
        if self.refill == Refill::One {
            self.set(Refill::Watched, Some(now + WATCH_TIME), timers);
        }
    }

    /// Hands out the server that has waited longest.
    pub(super) fn take(&mut self, timers: &mut Timers<Due>) -> Option<ServerKey> {
        let spare = self.waiting.pop_front()?;
        self.hits += 1;
        let key = spare.key;
        self.log_rest(spare, true, timers.now());
        if self.refill == Refill::Freely {
            let at = timers.now() + REFILL_DELAY;
            self.set(Refill::Soon, Some(at), timers);
        }
        Some(key)
    }

    /// A session had a server started because none waited.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// A server is not handed out any more. Returns whether it would have been.
    pub(super) fn retire(&mut self, key: ServerKey) -> bool {
        let at = self.waiting.iter().position(|spare| spare.key == key);
        let spare = at.and_then(|at| self.waiting.remove(at));
        let was_waiting = spare.is_some();
        self.retired.extend(spare);
        was_waiting
    }

    /// A server wrote this to its stderr.
    pub(super) fn log(&mut self, key: ServerKey, bytes: &[u8], now: Time) {
        let mut spares = self.waiting.iter_mut().chain(&mut self.retired);
        if let Some(spare) = spares.find(|spare| spare.key == key)
            && self.logging != ServerLogging::None
        {
            let limit = self.logging.limited_by(&mut self.log_rate_limit);
            spare.log(self.name.as_deref(), Some(bytes), limit, now);
        }
    }

    /// A server has ended, and was reaped. Returns whether it was one of these, and is a loss.
    pub(super) fn ended(&mut self, key: ServerKey, now: Time) -> bool {
        self.retire(key);
        let at = self.retired.iter().position(|spare| spare.key == key);
        let Some(at) = at else {
            return false;
        };
        let spare = self.retired.swap_remove(at);
        let was_asked = self.refill == Refill::Never || spare.is_unwanted;
        self.log_rest(spare, was_asked, now);
        !was_asked
    }

    /// A server ended while it waited, or could not be started: decides when there are to be others.
    pub(super) fn lost(&mut self, why: &str, timers: &mut Timers<Due>) {
        let now = timers.now();
        if matches!(self.refill, Refill::Held | Refill::One | Refill::Never) {
            // It is one of several since the last start, and counts as one with them.
            return;
        }
        let (at, next) = match self.policy.lost(now) {
            Decision::RetryAt(at) => {
                let wait = at.saturating_since(now).as_secs_f64();
                (at, format!("the next one is started in {wait:.3} s"))
            }
            Decision::GiveUp { restarts } => {
                let pause = self.policy.window();
                let text = format!(
                    "after {}, the limit (--max-restarts); for {} s sessions start their servers themselves",
                    Counted(restarts, "restart"),
                    pause.as_secs()
                );
                (now + pause, text)
            }
        };
        let pool = self.called();
        warn!("{pool}: a waiting server was lost ({why}); {next}");
        if at <= now {
            self.set(Refill::One, None, timers);
        } else {
            self.set(Refill::Held, Some(at), timers);
        }
    }

    /// The deadline has come.
    pub(super) fn timer_fired(&mut self) {
        self.deadline.fired();
        self.refill = match self.refill {
            Refill::Soon | Refill::Watched => Refill::Freely,
            Refill::Held => Refill::One,
            same => same,
        };
    }

    /// From now on there are to be so many, whose stderr is logged like this. Returns those that are too many, and are to be
    /// stopped.
    pub(super) fn resize(&mut self, size: usize, logging: ServerLogging) -> Vec<ServerKey> {
        self.size = size;
        self.logging = logging;
        self.drop_beyond(size)
    }

    /// What has gone wrong before does not count any more. If those that wait are outdated, others take their places. Returns
    /// those that are to be stopped.
    pub(super) fn renew(
        &mut self,
        max_restarts: u32,
        are_outdated: bool,
        timers: &mut Timers<Due>,
    ) -> Vec<ServerKey> {
        self.policy = RestartPolicy::new(max_restarts);
        self.set(Refill::Freely, None, timers);
        let kept = if are_outdated { 0 } else { self.size };
        self.drop_beyond(kept)
    }

    fn drop_beyond(&mut self, size: usize) -> Vec<ServerKey> {
        let kept = size.min(self.waiting.len());
        let mut unwanted = self.waiting.split_off(kept);
        for spare in &mut unwanted {
            spare.is_unwanted = true;
        }
        let keys = unwanted.iter().map(|spare| spare.key).collect();
        self.retired.extend(unwanted);
        keys
    }

    /// Lets no server come any more. Returns those that are to be stopped.
    pub(super) fn close(&mut self, timers: &mut Timers<Due>) -> Vec<ServerKey> {
        self.set(Refill::Never, None, timers);
        self.retired.extend(self.waiting.drain(..));
        self.retired.iter().map(|spare| spare.key).collect()
    }

    /// All that have not ended.
    pub(super) fn keys(&self) -> impl Iterator<Item = ServerKey> {
        let all = self.waiting.iter().chain(&self.retired);
        all.map(|spare| spare.key)
    }

    /// When more may be started, if that is to wait.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.at()
    }

    /// How the log calls the pool.
    pub(super) fn called(&self) -> String {
        let name = self.name.as_deref();
        name.map_or_else(|| "pool".to_owned(), |name| format!("pool of {name}"))
    }

    /// What there is to say at the end, if there was a pool.
    pub(super) fn summary(&self) -> Option<String> {
        let Self {
            size, hits, misses, ..
        } = self;
        let (hits, es) = (Counted(*hits, "hit"), if *misses == 1 { "" } else { "es" });
        let pool = self.called();
        (*size > 0).then(|| format!("{pool}: size {size}, {hits}, {misses} miss{es}"))
    }

    fn set(&mut self, refill: Refill, at: Option<Time>, timers: &mut Timers<Due>) {
        self.refill = refill;
        self.deadline.set(at, Due::Spares(self.service), timers);
    }

    /// Logs what has no line end; of one that ended by itself, also the last of what was left out of the log.
    fn log_rest(&mut self, mut spare: Spare, was_asked: bool, now: Time) {
        let limit = self.logging.limited_by(&mut self.log_rate_limit);
        let name = self.name.as_deref();
        spare.log(name, None, limit, now);
        if !was_asked {
            let label = spare.label(name);
            log_last_words(&mut spare.last_words, &label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8;

    const START: Time = Time::from_nanos(1 << 40);

    struct Pool {
        spares: Spares,
        timers: Timers<Due>,
    }

    impl Pool {
        fn new() -> Self {
            let (spares, timers) = (
                Spares::new(SIZE, 5, ServerLogging::Limited),
                Timers::new(START),
            );
            Self { spares, timers }
        }

        /// Starts as many as are wanted. Returns how many.
        fn fill(&mut self) -> usize {
            let mut count = 0;
            while self.spares.wants_server() {
                self.spares.started(&mut self.timers);
                self.spares.add(ServerKey::at(count), Pid::from_raw(7));
                count += 1;
            }
            count
        }

        fn lose(&mut self, count: usize) {
            for _ in 0..count {
                self.spares.lost("killed", &mut self.timers);
            }
        }

        fn take(&mut self) -> Option<usize> {
            self.spares.take(&mut self.timers).map(ServerKey::index)
        }

        /// Lets the time of the next deadline come.
        fn wait(&mut self) -> Duration {
            let at = self.timers.next().unwrap();
            let waited = at.saturating_since(self.timers.now());
            self.timers.advance(at);
            assert_eq!(self.timers.pop(), Some(Due::Spares(ServiceKey::ONLY)));
            self.spares.timer_fired();
            waited
        }
    }

    #[test]
    fn as_many_wait_as_are_wanted_and_the_first_is_handed_out_first_and_once() {
        let mut pool = Pool::new();
        assert!(!pool.spares.has_waiting());
        assert_eq!(pool.fill(), SIZE);
        assert!(pool.spares.has_waiting());
        assert_eq!((pool.take(), pool.take()), (Some(0), Some(1)));
        for key in 2..SIZE {
            assert_eq!(pool.take(), Some(key));
        }
        assert_eq!((pool.take(), pool.spares.has_waiting()), (None, false));
        pool.spares.missed();
        let summary = pool.spares.summary().unwrap();
        assert_eq!(summary, "pool: size 8, 8 hits, 1 miss");
        assert_eq!(Spares::new(0, 5, ServerLogging::Limited).summary(), None);
    }

    #[test]
    fn the_next_one_is_started_a_little_later_than_one_is_taken() {
        let mut pool = Pool::new();
        pool.fill();
        pool.take();
        pool.take();
        assert!(!pool.spares.wants_server());
        assert_eq!(pool.wait(), REFILL_DELAY);
        assert_eq!(pool.fill(), 2);
    }

    #[test]
    fn one_that_is_of_no_use_is_not_handed_out_and_counts_until_it_was_reaped() {
        let mut pool = Pool::new();
        pool.fill();
        assert!(pool.spares.retire(ServerKey(0)) && !pool.spares.retire(ServerKey(0)));
        assert!(!pool.spares.wants_server());
        assert_eq!(pool.take(), Some(1));
        assert!(pool.spares.ended(ServerKey(0), START), "it is a loss");
        assert!(
            !pool.spares.ended(ServerKey(0), START),
            "it is none of these"
        );
        assert!(!pool.spares.ended(ServerKey(1), START), "it was taken");
        assert!(pool.spares.ended(ServerKey(7), START));
        assert_eq!(
            pool.spares.waiting.len() + pool.spares.retired.len(),
            SIZE - 3
        );
    }

    #[test]
    fn servers_that_are_lost_together_are_one_loss() {
        let mut pool = Pool::new();
        pool.spares.started(&mut pool.timers);
        let later = START + Duration::from_mins(10);
        pool.timers.advance(later);
        pool.lose(SIZE);
        assert!(pool.spares.wants_server(), "{:?}", pool.spares);
        pool.spares.started(&mut pool.timers);
        assert!(!pool.spares.wants_server(), "that one is watched");
        pool.lose(SIZE);
        assert_eq!(pool.wait(), Duration::from_secs(5));
        assert!(pool.spares.wants_server(), "{:?}", pool.spares);
    }

    #[test]
    fn one_that_lasts_a_while_after_a_loss_is_followed_by_the_others() {
        let mut pool = Pool::new();
        pool.spares.started(&mut pool.timers);
        pool.lose(1);
        assert_eq!(pool.wait(), Duration::from_secs(1), "the cooldown");
        assert_eq!(pool.fill(), 1);
        assert_eq!(pool.wait(), WATCH_TIME);
        assert_eq!(pool.fill(), SIZE - 1);
    }

    #[test]
    fn after_too_many_losses_there_is_a_pause() {
        let mut pool = Pool::new();
        for _ in 0..5 {
            pool.spares.started(&mut pool.timers);
            pool.lose(1);
            if !pool.spares.wants_server() {
                assert!(pool.wait() <= Duration::from_secs(5));
            }
        }
        pool.spares.started(&mut pool.timers);
        pool.lose(1);
        assert!(!pool.spares.wants_server());
        assert_eq!(pool.wait(), Duration::from_mins(1));
        assert!(pool.spares.wants_server());
    }

    #[test]
    fn a_closed_pool_wants_nothing_and_loses_nothing() {
        let mut pool = Pool::new();
        pool.fill();
        pool.take();
        pool.spares.retire(ServerKey(3));
        let mut stopped = pool.spares.close(&mut pool.timers);
        stopped.sort_unstable();
        let all = (1..SIZE).map(ServerKey::at);
        assert_eq!(stopped, all.collect::<Vec<_>>());
        assert!(!pool.spares.has_waiting() && !pool.spares.ended(ServerKey(1), START));
        pool.lose(1);
        assert!(pool.timers.is_empty() && !pool.spares.wants_server());
    }
}
