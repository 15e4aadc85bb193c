//! Servers that wait: how many, who gets which, and when the next ones are started.

use std::time::Duration;

use crate::server::Kind;
use crate::standstill::world_with;

#[test]
fn servers_wait_are_handed_out_in_order_and_followed_by_others() {
    let _beside = crate::allocated::beside_others();
    let mut world = world_with(3);
    world.come_to_rest();
    assert_eq!(world.below.borrow().waiting(), [1, 2, 3]);
    for _ in 0..2 {
        world.below.borrow_mut().open(Kind::Process);
    }
    world.come_to_rest();
    assert_eq!(world.below.borrow().waiting(), [3], "not at once");
    world.below.borrow_mut().now += Duration::from_millis(11);
    world.come_to_rest();
    assert_eq!(world.below.borrow().waiting(), [3, 4, 5]);
}

#[test]
fn a_server_that_dies_while_it_waits_is_replaced() {
    let _beside = crate::allocated::beside_others();
    let mut world = world_with(1);
    world.come_to_rest();
    world.below.borrow_mut().now += Duration::from_secs(2);
    world.below.borrow_mut().kill(1);
    for _ in 0..3 {
        world.come_to_rest();
    }
    assert_eq!(world.below.borrow().waiting(), [2]);
}
