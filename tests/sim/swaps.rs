//! What holds for sessions that get new servers because the user wants that.

use std::time::Duration;

use mcp_tcp_proxy::session::{Session, SwapEnd};

use crate::below::Below;
use crate::journal::Swap;
use crate::place::Place;
use crate::server::Kind;
use crate::standstill::world_with;
use crate::stats::Fault;
use crate::trace;
use crate::world::World;

/// Sessions of each of these worlds, of which the clients say nothing.
const SESSIONS: usize = 5;

impl Below {
    /// A server was started beside the one that a session has.
    pub fn attached_beside(&mut self, slot: usize, key: usize) {
        let place = &mut self.places[slot];
        if place.successor == Some(key) {
            return;
        }
        assert!(
            place.server.is_some() && place.successor.is_none(),
            "a server is started beside none, or beside two"
        );
        let server = &mut self.servers[key];
        assert!(server.slot.is_none() && !server.is_spare);
        self.stats.servers += 1;
        place.successor = Some(key);
        server.slot = Some(slot);
        server.index = place.journal.server_started();
        let record = &mut place.journal.servers[server.index];
        record.swap = Swap::Beside;
        record.may_be_cut_off = server.held_open_until.is_some();
        trace::note(|| {
            let (index, pid) = (server.index, server.pid);
            format!("{}: server {index} is tried, pid {pid}", place.number)
        });
    }

    /// The new server takes the place of the old one.
    pub fn moved(&mut self, slot: usize) {
        let place = &mut self.places[slot];
        let new = place.successor.take().expect("there is a new server");
        let old = place.server.replace(new).expect("there is an old server");
        let read = self.servers[old].pipes.borrow().input.read;
        let (old_index, new_index) = (self.servers[old].index, self.servers[new].index);
        place.journal.moved(old_index, read, new_index);
        let version = self.servers[new].version;
        let is_other = place.versions.iter().any(|it| *it != version);
        place.journal.servers[new_index].is_other_version = is_other;
        place.versions.push(version);
        let pipes = self.servers[new].pipes.borrow();
        let (read, written) = (pipes.input.read, pipes.output.taken);
        drop(pipes);
        place.activity.goes_on_with(read, written);
        let server = &mut self.servers[old];
        server.slot = None;
        server.replaced = true;
        self.stats.fault(Fault::Moved);
    }

    /// A session has got its new server, or never will.
    pub fn swap_ended(&mut self, slot: usize, end: SwapEnd) {
        self.stats
            .fault_if(matches!(end, SwapEnd::Failed { .. }), Fault::NotFit);
        let was_to_go = self.swaps_in_place && end == (SwapEnd::Over { had_turn: true });
        let (place, server) = self.sides(slot);
        if let Some(server) = server.filter(|_| was_to_go) {
            place.journal.replaced(server.index);
        }
        let place = &mut self.places[slot];
        let Some(new) = place.successor.take() else {
            return;
        };
        assert_ne!(
            end,
            SwapEnd::Moved,
            "there is a new server that is not used"
        );
        let server = &mut self.servers[new];
        place.journal.dropped(server.index);
        server.slot = None;
        server.replaced = true;
    }

    /// A new server that is tried is read and written to as far as that is possible.
    pub fn check_successor_rests(&self, place: &Place, session: &Session) {
        let Some(server) = place.successor.map(|key| &self.servers[key]) else {
            return;
        };
        let pipes = server.pipes.borrow();
        let number = place.number;
        let may_read = pipes.reads && pipes.input.waiting() > 0;
        assert!(
            !may_read || !session.wants_successor_output(),
            "session {number} could read its new server, and is not run"
        );
        let may_write = pipes.writes && pipes.output.has_room();
        assert!(
            !may_write || session.to_successor().is_empty(),
            "session {number} could write to its new server, and is not run"
        );
    }
}

impl World {
    /// All servers do what they have to, and time passes.
    fn servers_act(&mut self) {
        let below = &mut *self.below.borrow_mut();
        let keys: Vec<usize> = below.servers.iter().map(|(key, _)| key).collect();
        for key in keys {
            below.server_obeys(key);
        }
        below.now += Duration::from_millis(100);
        below.let_go();
    }

    /// The pids of the servers that serve.
    fn serving(&self) -> Vec<i32> {
        let below = self.below.borrow();
        let serving = below.places.iter().filter_map(|(_, place)| place.server);
        serving.map(|key| below.servers[key].pid).collect()
    }

    fn with_sessions(mut self) -> Self {
        for _ in 0..SESSIONS {
            self.below.borrow_mut().open(Kind::Process);
        }
        self.come_to_rest();
        self
    }
}

#[test]
fn every_session_gets_a_new_server_and_the_old_ones_go() {
    let _beside = crate::allocated::beside_others();
    for in_place in [false, true] {
        let mut world = world_with(0);
        if in_place {
            world.swaps_in_place();
        }
        let mut world = world.with_sessions();
        let before = world.serving();
        world.below.borrow_mut().raise_swap();
        world.come_to_rest();
        for _ in 0..100 {
            world.servers_act();
            world.come_to_rest();
        }
        let after = world.serving();
        assert_eq!(after.len(), SESSIONS);
        assert!(after.iter().all(|pid| !before.contains(pid)), "{after:?}");
        assert_eq!(world.proxy.servers().left(), SESSIONS);
        let started = world.below.borrow().stats.servers;
        assert_eq!(started, 2 * SESSIONS as u64, "one for each");
    }
}

#[test]
fn where_old_servers_go_first_one_session_goes_ahead() {
    let _beside = crate::allocated::beside_others();
    let mut world = world_with(0);
    world.swaps_in_place();
    let mut world = world.with_sessions();
    world.below.borrow_mut().raise_swap();
    for _ in 0..6 {
        world.come_to_rest();
        let below = world.below.borrow();
        let told = below.servers.iter();
        let told = told.filter(|(_, server)| !server.pipes.borrow().writes);
        assert!(told.count() <= 1, "others have to go, too");
        drop(below);
        world.servers_act();
    }
}
