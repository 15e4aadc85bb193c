//! What is counted while a session lasts, and told at its end.

use super::*;

impl World {
    fn summary(&self) -> String {
        self.session.summary(self.now).to_string()
    }
}

#[test]
fn errors_losses_restarts_and_refusals_are_told() {
    let mut world = World::up();
    assert!(world.summary().ends_with(" to the client"));
    for id in 1..=3 {
        world.client(&request(id));
    }
    world.server_got();
    world.pass(100 * MILLISECOND);
    world.server(&response(1));
    world.server(r#"{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"no"}}"#);
    world.client("no JSON");
    world.client(&format!("[{}]", "1,".repeat(1000)));
    world.server_dies(Exit::Code(1));
    world.pass(SECOND);
    let released = world.actions.remove(0);
    assert_eq!(released, Action::ReleaseUpstream);
    world.start();
    let summary = world.summary();
    let expected = "; responses took about 98.30 ms (median), the slowest 100.00 ms; 1 error, 1 lost request (502), \
                    1 restart, 2 refused messages";
    assert!(summary.ends_with(expected), "{summary}");
}

/// A response takes as long as the server had the request.
#[test]
fn time_in_which_a_request_waits_for_a_server_does_not_count() {
    let mut world = World::new();
    world.client(&request(1));
    world.pass(SECOND);
    world.start();
    world.server_got();
    world.server(&response(1));
    let summary = world.summary();
    assert!(summary.contains("the slowest 0.00 ms"), "{summary}");
}

#[test]
fn few_bytes_are_counted_in() {
    let before = 8 + 40;
    assert!(size_of::<Tally>() + size_of::<Refusals>() <= before);
}
