//! The serving side: one loop over the listeners, the signals, and the descriptors of all sessions and servers.
//!
//! Each iteration is a row of phases, in an order that matters:
//!
//! 1. `wait`: the one place where time passes. It does not block if a phase below left something to do.
//! 2. `dispatch`: events are only noted, so that none can free what another is about. A reaped server is noted here too,
//!    before any session runs: a line that follows a crash is then not written to a dead server.
//! 3. `run_ready`: the sessions that events were about, each within its budget. Input before timers: what arrived in time
//!    must not be declared late. Around it is `run_shared`: what shared processes have said reaches the sessions before
//!    they run, and what these have for them is written when all have had their say.
//! 4. `run_visitors`: the connections in the entrance, some of them, after those that are in; and of their TLS handshakes as
//!    many steps as a millisecond is long enough for.
//! 5. `fire_timers`: before actions, as what is due may want something done.
//! 6. `apply_actions`: what sessions want done, after all of them have run. What has come to its end is freed here, when no
//!    event of this iteration can be about it any more.
//! 7. `accept_waiting`: after the frees, whose descriptors and places new connections may need.
//! 8. `start_servers`: last of what costs, as a spawn is the most expensive step; what has arrived is served first.
//! 9. `log_spares`: the output of servers that nobody uses can wait for all else.
//! 10. `run_status`: whoever asks how things are can wait for those who work, and is told a piece at a time.
//! 11. `look_at_groups`: what wrappers have left behind, a few of them; nobody waits for it.
//! 12. `wake_for_memory`: when all that was to give memory back in this iteration has done so.
//!
//! Those from 4 on, and what shared processes get, are left out of an iteration that has nothing for them (`leaves_rest`).

mod accept;
mod actions;
mod change;
mod check;
mod client;
mod counts;
mod dispatch;
mod doors;
mod due;
mod handshakes;
mod hibernation;
mod launch;
mod launcher;
mod limits;
mod listen;
mod newcomers;
mod pipe_widener;
mod plans;
mod put_in_force;
mod quotas;
pub mod reload;
mod remnants;
mod resuming;
mod resumption;
mod rules;
mod seat_side;
mod server;
mod servers;
mod services;
mod setup;
mod shared_processes;
mod sharing;
mod source;
mod spares;
mod stamps;
mod start_log;
mod start_queue;
mod state;
mod status;
mod status_answers;
mod status_facts;
mod stopping;
mod supervised;
mod surroundings;
mod swap;
pub mod system;
mod targets;
#[cfg(test)]
mod tests;
pub mod unread;
mod upgrade;
mod vanished;
mod verify;
mod visitors;

use std::io;
use std::time::Duration;

use log::info;
use mio::Events;

pub use self::accept::Door;
use self::accept::Listeners;
pub use self::client::ClientSession;
use self::client::Sides;
use self::counts::ProxyCounts;
pub use self::limits::Limits;
use self::quotas::Quotas;
pub use self::quotas::SessionsOfOne;
use self::resuming::Resuming;
pub use self::server::{Life, Server};
pub use self::servers::{ServerKey, Servers};
pub use self::services::Plan;
use self::services::Services;
pub use self::setup::SetupError;
use self::sharing::Sharing;
pub use self::source::Beginning;
use self::start_queue::StartQueue;
pub use self::state::{ProxyState, Sources};
pub use self::status::About;
use self::status::StatusService;
use self::stopping::{StopTimers, Stopping};
use self::supervised::Watchdog;
use self::system::{Linux, System};
pub use self::targets::{Channel, Due};
use self::upgrade::Upgrade;
pub use self::upgrade::{TakeOver, rehearse};
use self::vanished::Looks;
pub use self::verify::verify;
use self::visitors::Visitors;
use crate::buffers::budget::BufferBudget;
use crate::entrance::Rules;
use crate::reactor::Reactor;
use crate::reactor::poller::Poll;
use crate::reactor::timers::Deadline;
use crate::scheduler::Scheduler;
use crate::util::time::Time;

/// Events taken from the system at once: enough for one wait to serve all sessions that are active at the same time, and
/// little memory.
const EVENTS_PER_WAIT: usize = 1024;

/// A look at what no event may tell: processes whose SIGCHLD was lost, groups that have become empty. Few of them, so
/// seldom enough to cost nothing.
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);

/// The serving side of the program.
pub struct Proxy<S: System = Linux> {
    system: S,
    reactor: Reactor<Channel, Due, S::Poller>,
    listeners: Listeners<S::Listener>,
    limits: Limits,

    scheduler: Scheduler<ClientSession<S>>,
    sessions_so_far: u64,
    /// Sessions that were turned away and are not freed yet.
    refused: usize,

    /// Sessions by whose they are.
    quotas: Quotas,
    /// What there is for sessions that can be resumed, if any can be.
    resuming: Option<Box<Resuming<S::Client>>>,
    /// The entrance, if anything is asked of connections.
    visitors: Option<Box<Visitors<S::Client>>>,

    servers: Servers<S>,
    start_queue: StartQueue,
    services: Services,
    /// Spares of which stderr is to be read.
    talking_spares: Vec<ServerKey>,

    counts: ProxyCounts,
    /// Who is told how things are, if anybody may ask.
    status: Option<Box<StatusService<S>>>,
    watchdog: Watchdog,
    /// When the files are next looked at.
    file_watch: Deadline,

    looks: Looks,
    /// Whether there was anything for the last phases of the last iteration. If not, nothing is left to do.
    has_rest: bool,
    /// While something has run out: when the next attempt is made.
    pause: Deadline,
    /// Whether it was logged that something has run out, since there was last enough for everyone.
    exhaustion_logged: bool,
    stopping: Stopping,
    stop_timers: StopTimers,
    /// One that is under way.
    upgrade: Option<Box<Upgrade<S>>>,
}

impl Proxy {
    /// Serves until a signal ends it and nothing is left to be served. What another program has left goes once whatever has
    /// waited meanwhile is served, if anything has.
    pub fn run(mut self, mut left: Option<TakeOver>) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        self.tell_ready();
        if !self.is_busy() {
            left = None;
        }
        while !self.is_done() {
            self.iterate(&mut events)?;
            // It is asked first, as this is done in each iteration.
            if left.is_some() {
                left = None;
            }
            if self.upgrade.is_some() {
                self.go_on_with_upgrade();
            }
        }
        debug_assert!(self.only_own_timers_are_left());
        self.scheduler.report_left_out();
        for service in self.services.iter() {
            let shared = service.sharing.as_ref().and_then(Sharing::summary);
            for summary in shared.into_iter().chain(service.spares.summary()) {
                info!("{summary}");
            }
        }
        let longest = self.reactor.longest_iteration();
        if longest.is_zero() {
            info!("the longest iteration of the loop took less than a tick of the kernel's clock");
        } else {
            let millis = longest.as_secs_f64() * 1000.0;
            info!("the longest iteration of the loop took {millis:.3} ms");
        }
        info!("stopped");
        Ok(())
    }
}

impl<S: System> Proxy<S> {
    /// A loop over this system that serves one service. What `reactor` watches under [`Channel::Signals`] and [`Channel::Listener`] is registered.
    pub fn new(
        system: S,
        mut reactor: Reactor<Channel, Due, S::Poller>,
        listeners: Vec<Door<S::Listener>>,
        limits: Limits,
        rules: Rules,
        plan: Plan,
        memory: BufferBudget,
    ) -> Self {
        let now = reactor.now();
        reactor.timers.set(now + MONITOR_INTERVAL, Due::Monitor);
        let scheduler = Scheduler::new(plan.settings.clone(), memory);
        let mut services = Services::default();
        services.add(plan);
        Self {
            system,
            reactor,
            listeners: Listeners::new(listeners),
            limits,
            scheduler,
            sessions_so_far: 0,
            refused: 0,
            quotas: Quotas::new(limits.sessions_of_one),
            resuming: limits.resume_timeout.map(Resuming::new).map(Box::new),
            visitors: Visitors::new(rules, limits.places).map(Box::new),
            servers: Servers::default(),
            start_queue: StartQueue::new(limits.max_starting),
            services,
            talking_spares: Vec::new(),
            counts: ProxyCounts::default(),
            status: None,
            watchdog: Watchdog::default(),
            file_watch: Deadline::default(),
            looks: Looks::new(now),
            has_rest: true,
            pause: Deadline::default(),
            exhaustion_logged: false,
            stopping: Stopping::No,
            stop_timers: StopTimers::default(),
            upgrade: None,
        }
    }

    /// Serves one more.
    fn add_service(&mut self, plan: Plan) {
        let key = self.scheduler.add_service(plan.settings.clone());
        let added = self.services.add(plan);
        debug_assert_eq!(key, added);
    }

    /// One iteration of the loop.
    pub fn iterate(&mut self, events: &mut <S::Poller as Poll>::Events) -> io::Result<()> {
        self.wait(events)?;
        let only_sessions = self.dispatch(events);
        if self.services.share_anything() {
            self.run_shared();
        }
        self.run_ready();
        self.has_rest = self.leaves_rest(only_sessions);
        if self.has_rest {
            self.do_rest();
        }
        Ok(())
    }

    /// Whether there may be anything for the phases after `run_ready`. Most iterations pass a message on, and that is all:
    /// where nothing was left before, and all events were about sessions, whoever else could have something to do is not
    /// asked.
    fn leaves_rest(&self, only_sessions: bool) -> bool {
        if self.has_rest || !only_sessions {
            return self.may_have_rest();
        }
        let leaves = self.scheduler.is_busy()
            || self.reactor.timers.is_due()
            || self.scheduler.has_waiting_for_memory();
        debug_assert_eq!(leaves, self.may_have_rest());
        leaves
    }

    /// The same, of whatever has happened. To be asked once is cheaper than to be asked by each phase, and then by the next
    /// wait.
    #[inline(never)]
    fn may_have_rest(&self) -> bool {
        self.is_busy()
            || self.services.share_anything()
            || self.visitors.is_some()
            || self.reactor.timers.is_due()
            || self.is_starting()
            || self.scheduler.has_waiting_for_memory()
    }

    #[inline(never)]
    fn do_rest(&mut self) {
        if self.services.share_anything() {
            self.run_shared();
        }
        if self.visitors.is_some() {
            self.run_visitors();
        }
        if self.resuming.is_some() {
            self.run_newcomers();
            self.limit_detached();
        }
        self.fire_timers();
        self.apply_actions();
        self.accept_waiting();
        self.start_servers();
        self.log_spares();
        if self.status.is_some() {
            self.run_status();
        }
        self.look_at_groups();
        self.scheduler.wake_for_memory();
        self.settle_sharing();
    }

    /// The sessions.
    pub fn sessions(&self) -> &Scheduler<ClientSession<S>> {
        &self.scheduler
    }

    /// The servers.
    pub fn servers(&self) -> &Servers<S> {
        &self.servers
    }

    /// What this loop waits with.
    pub fn reactor(&self) -> &Reactor<Channel, Due, S::Poller> {
        &self.reactor
    }

    /// Whether there is something to do although no event tells.
    pub fn is_busy(&self) -> bool {
        self.scheduler.is_busy()
            || self.has_ready_visitors()
            || self
                .resuming
                .as_ref()
                .is_some_and(|it| it.newcomers.is_busy())
            || self.can_accept()
            || self.can_start()
            || self.can_prespawn()
            || self.next_to_share().is_some()
            || self.next_to_swap().is_some()
            || self.services.all_sharing().any(Sharing::is_busy)
            || !self.talking_spares.is_empty()
            || self.status.as_ref().is_some_and(|it| it.is_busy())
            || self.servers.has_groups_to_look_at()
    }

    fn now(&self) -> Time {
        self.reactor.now()
    }

    /// Sleeps until something happens, unless something is left to do.
    fn wait(&mut self, events: &mut <S::Poller as Poll>::Events) -> io::Result<()> {
        let is_busy = self.has_rest && self.is_busy();
        self.reactor.wait(events, is_busy)
    }

    #[inline(never)]
    fn run_ready(&mut self) {
        let mut sides = Sides {
            servers: &mut self.servers,
            start_queue: &mut self.start_queue,
            services: &mut self.services,
            resuming: self.resuming.as_deref_mut(),
        };
        self.scheduler
            .run_ready(&mut sides, &mut self.reactor.timers);
    }
}
