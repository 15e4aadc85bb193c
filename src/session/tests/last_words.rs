//! What a session keeps of a server's output that the log does not show. No logger is installed, so that is all of it.

use super::*;

impl World {
    fn server_complains(&mut self, lines: usize) {
        for line in 0..lines {
            let text = format!("complaint {line}\n");
            self.event(|session, cx| {
                session.handle(Event::UpstreamStderr(text.as_bytes()), cx);
            });
        }
    }
}

#[test]
fn what_is_kept_is_charged_until_the_server_is_gone() {
    for asks_first in [false, true] {
        let mut world = World::up();
        assert_eq!(world.memory.used(), 0);
        world.server_complains(1000);
        let used = world.memory.used();
        assert!((100..16 * 1024).contains(&used), "{used}");
        if asks_first {
            world.client_ends();
            world.pass(MILLISECOND);
        }
        world.server_dies(Exit::Code(1));
        assert_eq!(world.memory.used(), 0);
    }
}

#[test]
fn nothing_is_kept_when_memory_is_short_or_nothing_is_to_be_logged() {
    let mut world = World::up();
    world.memory = BufferBudget::new(1);
    world.memory.recharge(0, 1);
    world.server_complains(1000);
    assert_eq!(world.memory.used(), 1);
    let mut world = World::with(|settings| settings.server_log = ServerLogging::None);
    world.start();
    world.server_complains(1000);
    assert_eq!(world.memory.used(), 0);
}
