//! New servers under living sessions (SIGUSR1). Each session is told at once; its new server is started when nobody waits for one
//! more urgently, and one after the other, as all starts are.
//!
//! A new server that is not fit ends it all for its service: whoever has not moved keeps the old one. Where the old one has to
//! end first, one session goes ahead, and the others follow once its new server has shown to be fit.

use std::collections::VecDeque;

use log::{info, warn};
use serde::{Deserialize, Serialize};

use super::put_in_force::max_restarts;
use super::server::{Server, User};
use super::system::System;
use super::{ClientSession, Proxy, Stopping};
use crate::pump::{READ_BYTES, READS_PER_RUN, Transport};
use crate::reactor::io::Input;
use crate::scheduler::SessionKey;
use crate::session::{Action, Context, Event, Session, SwapEnd};
use crate::share;
use crate::util::plural::Counted;
use crate::util::service_key::ServiceKey;

/// New servers that may live beside old ones although there are as many sessions as there may be: what descriptors are kept
/// for, whatever happens, is enough for these.
const ALWAYS_POSSIBLE: usize = 16;

/// The sessions of a service that are to get new servers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Swaps {
    /// Those that wait for their turns. Some may have left since.
    queue: VecDeque<SessionKey>,
    /// How many there are in all.
    left: usize,
    /// How many of them had their turns.
    under_way: usize,
    /// How many have moved since it began.
    moved: usize,
    /// Whether a new server has shown to be fit, or not to be.
    proof: Proof,
}

/// What is known of new servers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Proof {
    #[default]
    None,
    Fit,
    /// No more are started.
    Unfit,
}

impl Swaps {
    /// How many sessions are to move.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<S: System> Proxy<S> {
    /// The user wants new servers everywhere.
    #[inline(never)]
    pub(super) fn swap_servers(&mut self) {
        if self.stopping != Stopping::No {
            return info!("SIGUSR1: no server is replaced, as the program is being stopped");
        }
        for service in self.services.keys() {
            self.services.get_mut(service).swaps.proof = Proof::None;
            self.renew_spares(service);
            self.renew_shared(service);
        }
        let sessions = self.scheduler.iter();
        let open = sessions.filter(|(_, session, _)| !session.was_refused());
        let keys: Vec<SessionKey> = open.map(|(key, ..)| key).collect();
        for key in &keys {
            self.tell(*key, Event::SwapWanted);
        }
        let swapping = |key: &&SessionKey| {
            let session = self.scheduler.session(**key);
            session.is_some_and(Session::is_swapping)
        };
        let count = keys.iter().filter(swapping).count();
        info!(
            "SIGUSR1: servers are replaced; {} with a server of its own to be moved",
            Counted(count, "session")
        );
    }

    /// Servers that wait for sessions are outdated.
    fn renew_spares(&mut self, service: ServiceKey) {
        let max_restarts = max_restarts(&self.scheduler.settings_of(service).role);
        let timers = &mut self.reactor.timers;
        let service = self.services.get_mut(service);
        if service.is_retired {
            return;
        }
        for server in service.spares.renew(max_restarts, true, timers) {
            self.servers.stop(server, timers);
        }
    }

    /// Shared processes are replaced once they have done what they have.
    fn renew_shared(&mut self, service: ServiceKey) {
        let now = self.reactor.now();
        let Some(sharing) = self.services.sharing_mut(service) else {
            return;
        };
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing.share.renew(&mut share::Context { now, memory });
        self.carry_out_sharing(service);
    }

    /// Does what a session wants that is to get a new server.
    pub(super) fn apply_swap(&mut self, key: SessionKey, action: Action) {
        let Some(service) = self.scheduler.place(key).map(ClientSession::service) else {
            return;
        };
        let swaps = &mut self.services.get_mut(service).swaps;
        match action {
            Action::BeginSwap => {
                swaps.left += 1;
                self.services.swapping += 1;
            }
            Action::QueueSwap => swaps.queue.push_back(key),
            Action::MoveUpstream => self.move_session(key),
            Action::EndSwap(end) => self.end_swap(key, service, end),
            _ => {}
        }
    }

    /// Puts the new server in the place of the old one.
    fn move_session(&mut self, key: SessionKey) {
        let wants_move = self.scheduler.session(key).is_some_and(Session::wants_move);
        let Some(place) = self.scheduler.place_mut(key).filter(|_| wants_move) else {
            return;
        };
        let Some(new) = place.successor.take() else {
            return;
        };
        if let Some(old) = place.server.replace(new) {
            self.servers.stop(old, &mut self.reactor.timers);
            self.servers.release(old);
        }
        self.tell(key, Event::UpstreamMoved);
    }

    fn end_swap(&mut self, key: SessionKey, service: ServiceKey, end: SwapEnd) {
        let place = self.scheduler.place_mut(key);
        if let Some(server) = place.and_then(|place| place.successor.take()) {
            self.servers.stop(server, &mut self.reactor.timers);
            self.servers.release(server);
        }
        let entry = self.services.get_mut(service);
        let had_turn = match end {
            SwapEnd::Moved | SwapEnd::Again => true,
            SwapEnd::Failed { had_turn } | SwapEnd::Over { had_turn } => had_turn,
        };
        entry.swaps.under_way -= usize::from(had_turn);
        if end == SwapEnd::Again {
            return;
        }
        entry.swaps.left -= 1;
        self.services.swapping -= 1;
        match end {
            SwapEnd::Moved => self.note_moved(service),
            SwapEnd::Failed { .. } => self.swap_failed(key, service),
            SwapEnd::Over { .. } | SwapEnd::Again => {}
        }
        self.note_end_of_swaps(service);
    }

    fn note_moved(&mut self, service: ServiceKey) {
        let service = self.services.get_mut(service);
        service.swaps.moved += 1;
        service.swaps.proof = Proof::Fit;
        service.counts.swapped += 1;
        service.counts.swap_failure = None;
    }

    /// A new server is not fit, so no others are started.
    fn swap_failed(&mut self, key: SessionKey, service: ServiceKey) {
        let session = self.scheduler.session(key);
        let words = session.and_then(Session::swap_failure).unwrap_or_default();
        let words = words.to_owned();
        self.tell(key, Event::SwapOver);
        let swaps = &mut self.services.get_mut(service).swaps;
        swaps.queue.clear();
        // Several may show that at once.
        if std::mem::replace(&mut swaps.proof, Proof::Unfit) == Proof::Unfit {
            return;
        }
        warn!("{}", self.words_about_failure(service, &words));
        let counts = &mut self.services.get_mut(service).counts;
        counts.failed_swaps += 1;
        counts.swap_failure = Some(words);
        let of_service = self.scheduler.iter();
        let of_service = of_service
            .filter(|(_, session, place)| place.service() == service && session.is_swapping());
        let keys: Vec<SessionKey> = of_service.map(|(key, ..)| key).collect();
        for key in keys {
            self.tell(key, Event::SwapOver);
        }
    }

    fn words_about_failure(&self, service: ServiceKey, words: &str) -> String {
        let service = self.services.get(service);
        let of = service.of();
        let (left, moved) = (service.swaps.left, service.swaps.moved);
        let left = Counted(left + 1, "session");
        format!(
            "the servers{of} are not replaced any more, as a new one is not fit: {words}; {moved} moved before, and \
             {left} keep the old ones"
        )
    }

    fn note_end_of_swaps(&mut self, service: ServiceKey) {
        let service = self.services.get_mut(service);
        if service.swaps.left > 0 {
            return;
        }
        let moved = std::mem::take(&mut service.swaps.moved);
        service.swaps.queue.clear();
        if moved > 0 {
            let (of, sessions) = (service.of(), Counted(moved, "session"));
            info!("the servers{of} are replaced: {sessions} moved to new ones");
        }
    }

    /// The service of which a session is to get a new server, and can.
    pub(super) fn next_to_swap(&self) -> Option<ServiceKey> {
        if self.services.swapping == 0
            || self.stopping != Stopping::No
            || !self.start_queue.is_empty()
            || self.is_paused()
            || !self.start_queue.has_room(self.now())
        {
            return None;
        }
        let places = self.limits.possible_sessions;
        let beside = ALWAYS_POSSIBLE + places.saturating_sub(self.scheduler.len());
        self.services.keys().find(|key| {
            let service = self.services.get(*key);
            let swaps = &service.swaps;
            let most = match (service.swaps_in_place, swaps.proof) {
                (false, _) => beside,
                (true, Proof::Fit) => self.limits.max_starting,
                (true, _) => 1,
            };
            !swaps.queue.is_empty() && swaps.under_way < most
        })
    }

    /// It is the turn of a session. Returns whether a server was started for it, or should have been.
    pub(super) fn start_successor(&mut self, service: ServiceKey) -> bool {
        while let Some(key) = self.services.get_mut(service).swaps.queue.pop_front() {
            let session = self.scheduler.session(key);
            let place = self.scheduler.place(key);
            let is_of_service = place.is_some_and(|place| place.service() == service);
            if session.is_some_and(Session::waits_for_turn) && is_of_service {
                return self.give_turn(service, key);
            }
        }
        false
    }

    fn give_turn(&mut self, service: ServiceKey, key: SessionKey) -> bool {
        let entry = self.services.get_mut(service);
        if entry.swaps_in_place {
            entry.swaps.under_way += 1;
            self.tell(key, Event::SwapInPlace);
            return false;
        }
        match self.spawn(service, Some(key)) {
            Ok(server_key) => {
                self.services.get_mut(service).swaps.under_way += 1;
                let (Some(server), Some(place)) = (
                    self.servers.get_mut(server_key),
                    self.scheduler.place_mut(key),
                ) else {
                    return true;
                };
                server.user = Some(User::Session(key));
                place.successor = Some(server_key);
                let pid = u32::try_from(server.pid.as_raw()).ok();
                self.tell(key, Event::SuccessorStarted { pid });
            }
            Err(error) => {
                let words = format!("it could not be started: {error}");
                self.tell(key, Event::SuccessorFailed(&words));
            }
        }
        true
    }
}

/// Has a new server that is tried hear and say what it can, within a budget. Returns whether there is more.
#[inline(never)]
pub(super) fn run_successor<S: System>(
    server: &mut Server<S>,
    session: &mut Session,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    server.read_stderr(scratch, |bytes| {
        session.handle(Event::SuccessorStderr(bytes), cx);
    });
    while server.is_writable() && !session.to_successor().is_empty() {
        match server.write(session.to_successor()) {
            Ok(0) | Err(_) => break,
            Ok(count) => session.handle(Event::SuccessorWritten(count), cx),
        }
    }
    for _ in 0..READS_PER_RUN {
        if !server.is_readable() || !session.wants_successor_output() {
            break;
        }
        match server.read(&mut scratch[..READ_BYTES]) {
            Input::Bytes(count) => session.handle(Event::SuccessorBytes(&scratch[..count]), cx),
            Input::End | Input::Broken(_) | Input::Blocked => break,
        }
    }
    let may_say_more = server.is_readable() && session.wants_successor_output();
    if may_say_more || server.has_stderr() {
        return true;
    }
    // Until it has answered its exit is waited for, which says more.
    let is_useless = server.is_useless() && !session.wants_successor_output();
    if server.exit.is_some() || is_useless {
        session.handle(Event::SuccessorEnded(server.exit.as_deref().copied()), cx);
    }
    false
}
