//! Servers and clients are killed at random, under load.

use crate::Scene;
use crate::common::crowd::crowd;
use crate::common::{Random, servers, skip_on_reference};

const VISITORS: u64 = 8;

/// The sessions of each visitor, one after the other.
const VISITS: u64 = 4;

#[test]
fn of_servers_and_clients() {
    skip_on_reference!("does not restart a server");
    let mut random = Random::seeded();
    // Sessions are not to end because a server was killed too often.
    let options = ["--max-restarts", "1000", "--heartbeat-interval", "2"];
    let scene = Scene::open_with(&options, |_| servers::demo());
    let spared = scene.proxy.only_server();
    let tally = crowd(&scene.proxy, VISITORS, spared, &mut random, |visits| {
        visits == VISITS
    });
    eprintln!("{tally}");
    assert!(tally.count("requests answered") > 100, "{tally}");
    assert!(tally.count("servers killed") > 0, "{tally}");
    scene.end();
}
