//! What random worlds seldom come to: sessions of which one side or both take nothing.

use std::time::Duration;

use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::serve::{Limits, SessionsOfOne};
use mcp_tcp_proxy::session::backlog::LINES_PER_RUN;
use mcp_tcp_proxy::session::{Backend, Session, Spawn};

use crate::journal::{ClientSays, ServerSays};
use crate::rng::Rng;
use crate::server::Kind;
use crate::transport::End;
use crate::world::{World, settings};

/// What all sessions may hold beyond what each may hold for itself. Half of it is for those at a standstill.
const BUDGET: usize = 1_000_000;

/// A line that fits in a transport that is empty.
const LINE_BYTES: usize = 60_000;

/// Lines after which a session has come to a standstill.
const MANY: usize = 100;

fn world() -> World {
    world_with(0)
}

/// Where this many servers wait for sessions.
pub fn world_with(spares: usize) -> World {
    let mut rng = Rng::new(1);
    let mut both = settings(true, true, &mut rng);
    both[0].role = Backend::Process { max_restarts: 5 };
    both[0].spawn = Spawn::Eager;
    both[0].idle_limits = mcp_tcp_proxy::session::idle::IdleLimits::default();
    let limits = Limits {
        max_sessions: 10,
        possible_sessions: 10,
        max_starting: 10,
        sessions_of_one: SessionsOfOne::default(),
        places: 16,
        resume_timeout: None,
    };
    World::build(rng, true, BUDGET, both, (limits, spares))
}

impl World {
    fn session(&self, slot: usize) -> &Session {
        let key: Option<SessionKey> = self.below.borrow().places[slot].key;
        self.proxy.sessions().session(key.unwrap()).unwrap()
    }

    /// The client says a line, if there is room for it.
    fn client_floods(&self, slot: usize) {
        let place = &mut self.below.borrow_mut().places[slot];
        let input = &mut place.socket.borrow_mut().input;
        input.make_roomy();
        if input.waiting() > 0 {
            return;
        }
        let (serial, pad) = (place.journal.lines.len(), "x".repeat(LINE_BYTES));
        let text = format!(r#"{{"n":{serial},"method":"m","params":["{pad}"]}}"#);
        input.write(format!("{text}\n").as_bytes());
        let line = place
            .journal
            .client_says(text.into(), ClientSays::Other, Vec::new());
        place.journal.lines[line].text_end = input.written - 1;
        place.journal.lines[line].end = input.written;
    }

    /// So does its server.
    fn server_floods(&self, slot: usize) {
        let below = &mut *self.below.borrow_mut();
        let place = &mut below.places[slot];
        let server = &below.servers[place.server.unwrap()];
        let input = &mut server.pipes.borrow_mut().input;
        input.make_roomy();
        if input.waiting() > 0 {
            return;
        }
        let (serial, pad) = (place.journal.said.len(), "x".repeat(LINE_BYTES));
        let text = format!(r#"{{"m":{serial},"method":"m","params":["{pad}"]}}"#);
        input.write(format!("{text}\n").as_bytes());
        let end = input.written - 1;
        place
            .journal
            .server_says(server.index, text.into(), end, ServerSays::Other);
    }

    /// A session whose server is up.
    fn open_one(&mut self) -> usize {
        let slot = self.below.borrow_mut().open(Kind::Process);
        self.come_to_rest();
        slot
    }

    /// A session whose client says much, and whose server takes nothing.
    fn flood_by_client(&mut self) -> usize {
        let slot = self.open_one();
        for _ in 0..MANY {
            self.client_floods(slot);
            self.come_to_rest();
        }
        assert!(!self.session(slot).wants_client_input());
        slot
    }

    /// A session of which neither side takes anything, although both say much.
    fn come_to_standstill(&mut self) -> usize {
        let slot = self.flood_by_client();
        for _ in 0..MANY {
            self.server_floods(slot);
            self.come_to_rest();
        }
        slot
    }
}

#[test]
fn whoever_waits_for_memory_goes_on_when_another_gives_it_back() {
    let _beside = crate::allocated::beside_others();
    let mut world = world();
    let greedy = world.come_to_standstill();
    let modest = world.come_to_standstill();
    let memory = world.proxy.sessions().memory();
    assert!(world.session(modest).waits_for_memory(memory));
    let held = world.session(modest).to_client().len();
    world.below.borrow_mut().places[greedy]
        .socket
        .borrow_mut()
        .reset();
    world.come_to_rest();
    assert!(world.session(modest).to_client().len() > held);
}

/// What a client sends of a line that it does not end.
const PART_BYTES: usize = 190_000;

#[test]
fn the_line_that_has_stood_still_longest_makes_room_for_a_newcomer() {
    let _beside = crate::allocated::beside_others();
    let mut world = world();
    let mut slots = Vec::new();
    for _ in 0..8 {
        let slot = world.below.borrow_mut().open(Kind::Process);
        world.come_to_rest();
        for _ in 0..PART_BYTES / 10_000 {
            {
                let below = world.below.borrow();
                let input = &mut below.places[slot].socket.borrow_mut().input;
                input.make_roomy();
                input.write(&[b'x'; 10_000]);
            }
            world.come_to_rest();
        }
        world.below.borrow_mut().now += Duration::from_secs(1);
        slots.push(slot);
    }
    let now = world.below.borrow().now;
    let is_kept = |slot: &usize| world.session(*slot).unfinished_weight(now).is_some();
    let kept: Vec<bool> = slots.iter().map(is_kept).collect();
    let dropped = kept.iter().filter(|is_kept| !**is_kept).count();
    assert!((1..8).contains(&dropped), "{kept:?}");
    assert!(kept[dropped..].iter().all(|is_kept| *is_kept), "{kept:?}");
    let memory = world.proxy.sessions().memory();
    assert!(!memory.is_short());
}

#[test]
fn a_client_that_breaks_off_is_noticed_although_it_is_neither_read_nor_written_to() {
    let _beside = crate::allocated::beside_others();
    let mut world = world();
    let slot = world.flood_by_client();
    world.below.borrow().places[slot]
        .socket
        .borrow_mut()
        .reset();
    // It is checked at rest that nobody keeps a broken connection.
    world.come_to_rest();
}

#[test]
fn a_client_that_hangs_up_while_it_can_not_be_read_is_waited_for_half_a_minute() {
    let _beside = crate::allocated::beside_others();
    let mut world = world();
    let slot = world.flood_by_client();
    let socket = world.below.borrow().places[slot].socket.clone();
    socket.borrow_mut().input.end(End::Closed);
    for (seconds, is_there) in [(0, true), (1, true), (28, true), (3, false)] {
        world.below.borrow_mut().now += Duration::from_secs(seconds);
        world.come_to_rest();
        assert_eq!(socket.borrow().reads, is_there, "after {seconds} s more");
    }
}

/// A short line, as often as the client says it at once.
const SHORT: &str = r#"{"n":0,"method":"m"}"#;
const SHORT_LINES: usize = 4 * LINES_PER_RUN;

impl World {
    /// What its server has been sent, or is to be, in bytes.
    fn forwarded(&self, slot: usize) -> usize {
        let below = self.below.borrow();
        let server = &below.servers[below.places[slot].server.unwrap()];
        let taken = server.pipes.borrow().output.taken;
        taken as usize + self.session(slot).to_upstream().len()
    }
}

#[test]
fn others_are_served_between_the_many_short_lines_of_one() {
    let _beside = crate::allocated::beside_others();
    let mut world = world();
    let (greedy, modest) = (world.open_one(), world.open_one());
    {
        let below = &mut *world.below.borrow_mut();
        let place = &mut below.places[greedy];
        let input = &mut place.socket.borrow_mut().input;
        input.make_roomy();
        for number in 1..=SHORT_LINES as u64 {
            input.write(format!("{SHORT}\n").as_bytes());
            let line = place
                .journal
                .client_says(SHORT.into(), ClientSays::Other, Vec::new());
            place.journal.lines[line].end = number * (SHORT.len() as u64 + 1);
            place.journal.lines[line].text_end = place.journal.lines[line].end - 1;
        }
    }
    world.client_floods(modest);
    world.below.borrow_mut().notify_all();
    for turn in 1..=4 {
        world.iterate_proxy();
        let lines = world.forwarded(greedy) / (SHORT.len() + 1);
        assert_eq!(lines, turn * LINES_PER_RUN, "in turn {turn}");
        assert!(world.forwarded(modest) >= LINE_BYTES);
    }
}
