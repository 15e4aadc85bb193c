//! Another thing that random worlds seldom come to: very many servers that end at once, and leave something behind.

use std::time::Duration;

use mcp_tcp_proxy::serve::{Limits, SessionsOfOne};
use mcp_tcp_proxy::session::Spawn;
use mcp_tcp_proxy::session::idle::IdleLimits;

use crate::rng::Rng;
use crate::server::Kind;
use crate::world::{World, settings};

const MANY: usize = 300;

#[test]
fn many_wrappers_that_end_at_once_are_looked_at_a_few_at_a_time() {
    let _beside = crate::allocated::beside_others();
    let mut rng = Rng::new(1);
    let mut both = settings(false, true, &mut rng);
    both[0].spawn = Spawn::Eager;
    both[0].idle_limits = IdleLimits::default();
    let limits = Limits {
        max_sessions: MANY,
        possible_sessions: MANY,
        max_starting: MANY,
        sessions_of_one: SessionsOfOne::default(),
        places: 16,
        resume_timeout: None,
    };
    let mut world = World::build(rng, true, 1 << 20, both, (limits, 0));
    for _ in 0..MANY {
        world.below.borrow_mut().open(Kind::Process);
    }
    world.come_to_rest();
    {
        let mut below = world.below.borrow_mut();
        assert_eq!(below.servers.len(), MANY);
        let until = below.now + Duration::from_mins(1);
        for (_, server) in &mut below.servers {
            server.leave_child(until);
        }
        let slots: Vec<usize> = below.places.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            below.places[slot].socket.borrow_mut().reset();
            below.notify_client(slot);
        }
    }
    // Every iteration on the way is checked: ends, the steps of each escalation, and the rounds of the monitor.
    for _ in 0..30 {
        let keys: Vec<usize> = {
            let below = world.below.borrow();
            below.servers.iter().map(|(key, _)| key).collect()
        };
        for key in keys {
            world.below.borrow_mut().server_acts(key);
        }
        world.come_to_rest();
        let mut below = world.below.borrow_mut();
        below.now += Duration::from_secs(1);
        below.let_go();
    }
    assert_eq!(world.proxy.servers().left(), 0);
}
