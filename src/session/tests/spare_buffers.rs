//! What was read of the client and can't be handled yet.

use super::*;

const LARGE: usize = 1024 * 1024;

/// Sends much more than may wait for the server, at once.
fn client_floods(world: &mut World) {
    let line = format!("{{\"method\":\"m\",\"params\":\"{}\"}}\n", "x".repeat(900));
    let lines = line.repeat(4 * OUTBOX_BYTES / line.len());
    world.event(|session, cx| session.handle(Event::ClientBytes(lines.as_bytes()), cx));
    assert!(world.session.client.has_unread());
}

#[test]
fn it_waits_in_a_spare_buffer_which_is_given_back() {
    let mut world = World::up();
    world.memory.give_back(Vec::with_capacity(LARGE));
    for _ in 0..2 {
        client_floods(&mut world);
        assert!(world.session.client.unread_capacity() >= LARGE);
        assert_eq!(world.memory.lend_large().capacity(), 0, "it is in use");
        while !world.server_got().is_empty() {}
        assert!(!world.session.client.has_unread());
        let spare = world.memory.lend_large();
        assert!(spare.capacity() >= LARGE);
        world.memory.give_back(spare);
    }
}
