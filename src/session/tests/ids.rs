//! What the ids of both sides hold: counted, charged, and let go of.

use super::World;

fn long_id(number: usize) -> String {
    format!("\"{number}{}\"", "x".repeat(500))
}

fn cancellation(id: &str) -> String {
    format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

#[test]
fn a_cancellation_of_nothing_is_passed_on_and_not_remembered() {
    let mut world = World::greeted();
    let line = cancellation(&long_id(1));
    world.client(&line);
    assert_eq!(world.session.queued.id_bytes(), 0);
    assert_eq!(world.server_got().concat(), line);
    let request = format!(r#"{{"id":{},"method":"m"}}"#, long_id(1));
    world.client(&request);
    let of_request = world.session.queued.id_bytes();
    assert_eq!(world.server_got(), [request]);
    world.client(&line);
    assert_eq!(world.session.queued.id_bytes(), of_request);
    assert_eq!(world.server_got(), [line]);
    assert_eq!(world.session.queued.id_bytes(), 0);
    assert!(world.session.in_flight.is_empty(), "it was taken back");
}

#[test]
fn a_batch_that_asks_and_takes_back_leaves_nothing() {
    let mut world = World::greeted();
    let cancelled = cancellation("7");
    let line = format!(r#"[{{"id":7,"method":"m"}},{cancelled},{cancelled}]"#);
    world.client(&line);
    assert_eq!(world.server_got(), [line]);
    assert_eq!(world.session.unanswered(), 0);
}

#[test]
fn ids_of_the_servers_requests_are_charged() {
    for client_reads_each in [false, true] {
        let mut world = World::greeted();
        for number in 0..1000 {
            let id = long_id(number);
            world.server(&format!(r#"{{"id":{id},"method":"ask"}}"#));
            if client_reads_each {
                world.client_got();
            }
        }
        world.client_got();
        assert!(world.memory.used() > 400_000, "{}", world.memory.used());
        for number in 0..1000 {
            let id = long_id(number);
            world.client(&format!(r#"{{"id":{id},"result":1}}"#));
            world.server_got();
        }
        assert_eq!(world.memory.used(), 0);
    }
}
