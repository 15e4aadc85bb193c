//! What sessions survive, each measured over and over.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::end_to_end::processes::{send_signal, wait_until_quiet};
use crate::common::end_to_end::upgrades::generation;
use crate::common::end_to_end::{DEADLINE, Proxy, Scratch, eventually};
use crate::host::Host;
use crate::relay::Relay;

/// Something that happens to a session.
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// What the application waits for each time; with this server, in so many rounds.
    pub(crate) measure: fn(&[String], usize) -> Vec<Duration>,
}

/// As in the README's table of what a session survives.
pub(crate) const EVENTS: [Event; 11] = [
    Event {
        name: "nothing: the longest of 100 calls",
        measure: nothing,
    },
    Event {
        name: "crash of the server",
        measure: |server, rounds| crash(server, rounds, 0),
    },
    Event {
        name: "crash of the server, --prespawn 1",
        measure: |server, rounds| crash(server, rounds, 1),
    },
    Event {
        name: "lost connection",
        measure: drop_of_the_network,
    },
    Event {
        name: "sleep of the client, from its end",
        measure: sleep_of_the_client,
    },
    Event {
        name: "idleness, --hibernate-after",
        measure: |server, rounds| idleness(server, rounds, 0),
    },
    Event {
        name: "idleness, with --prespawn 1",
        measure: |server, rounds| idleness(server, rounds, 1),
    },
    Event {
        name: "SIGHUP with a changed configuration",
        measure: reload,
    },
    Event {
        name: "SIGUSR2: upgrade",
        measure: upgrade,
    },
    Event {
        name: "SIGUSR1: new servers",
        measure: swap,
    },
    Event {
        name: "kill -9 of the proxy, which is started again",
        measure: restart,
    },
];

/// A server that has been up for longer is restarted at once.
const COOLDOWN: Duration = Duration::from_millis(1100);

fn nothing(server: &[String], rounds: usize) -> Vec<Duration> {
    let proxy = Proxy::start(&[], server);
    let mut host = Host::start(&[], proxy.address());
    let mut calls = |_| {
        let mut left = 100;
        host.longest_wait(|| {
            left -= 1;
            left == 0
        })
    };
    (0..rounds).map(&mut calls).collect()
}

fn crash(server: &[String], rounds: usize, spares: usize) -> Vec<Duration> {
    let round = |_| {
        // A session of its own: the second restart of one would wait for its cooldown.
        let proxy = Proxy::start(&["--prespawn", &spares.to_string()], server);
        let mut host = Host::start(&[], proxy.address());
        // Not a wait for an event: what is measured is a server that has been up for a while.
        thread::sleep(COOLDOWN);
        wait_for_servers(&proxy, 1 + spares);
        let of_session = *proxy.servers_by_client().values().next().unwrap();
        send_signal(of_session, Signal::SIGKILL);
        host.next_result()
    };
    (0..rounds).map(round).collect()
}

/// Waits until there are so many, and they have nothing left to do.
fn wait_for_servers(proxy: &Proxy, count: usize) {
    eventually("the servers", DEADLINE, || proxy.servers().len() == count);
    wait_until_quiet(&proxy.servers());
}

fn drop_of_the_network(server: &[String], rounds: usize) -> Vec<Duration> {
    let proxy = Proxy::start(&[], server);
    let relay = Relay::start(proxy.address()).unwrap();
    let mut host = Host::start(&[], relay.address());
    let pid = proxy.only_server();
    let mut round = |_| {
        relay.cut();
        host.next_result()
    };
    let times = (0..rounds).map(&mut round).collect();
    assert_eq!(proxy.only_server(), pid, "it is the same session");
    times
}

fn sleep_of_the_client(server: &[String], rounds: usize) -> Vec<Duration> {
    let proxy = Proxy::start(&[], server);
    let mut host = Host::start(&["--heartbeat-interval", "0.2"], proxy.address());
    let pid = proxy.only_server();
    let round = |number| {
        host.signal(Signal::SIGSTOP);
        proxy.wait_for_logs(" lost its connection: ", number);
        host.signal(Signal::SIGCONT);
        host.next_result()
    };
    let times = (1..=rounds).map(round).collect();
    assert_eq!(proxy.only_server(), pid, "it is the same session");
    times
}

fn idleness(server: &[String], rounds: usize, spares: usize) -> Vec<Duration> {
    let spares_option = spares.to_string();
    let options = ["--hibernate-after", "0.2", "--prespawn", &spares_option];
    let proxy = Proxy::start(&options, server);
    let mut host = Host::start(&[], proxy.address());
    let round = |number| {
        proxy.wait_for_logs("] hibernates, ", number);
        wait_for_servers(&proxy, spares);
        host.next_result()
    };
    (1..=rounds).map(round).collect()
}

fn reload(server: &[String], rounds: usize) -> Vec<Duration> {
    let scratch = Scratch::new();
    let write = |number: usize| {
        let config = json!({
            "listen": ["127.0.0.1:0"],
            "logLevel": "info", "idleTimeout": 1000 + number,
            "mcpServers": {"one": {"command": server[0], "args": &server[1..]}},
        });
        scratch.write("config.json", &config.to_string());
    };
    write(0);
    let path = scratch.file("config.json");
    let options = ["--config", path.to_str().unwrap()];
    let proxy = Proxy::start_with_config(&options, |_| {});
    let mut host = Host::start(&["--server", "one"], proxy.address());
    let round = |number| {
        write(number);
        proxy.signal(Signal::SIGHUP);
        host.longest_wait(|| has_logged(&proxy, "SIGHUP: the configuration was read again", number))
    };
    (1..=rounds).map(round).collect()
}

fn has_logged(proxy: &Proxy, text: &str, count: usize) -> bool {
    let lines = proxy.log();
    lines.iter().filter(|line| line.contains(text)).count() >= count
}

fn upgrade(server: &[String], rounds: usize) -> Vec<Duration> {
    let proxy = Proxy::start(&[], server);
    let mut host = Host::start(&[], proxy.address());
    let mut round = |_| {
        let before = generation(&proxy);
        proxy.signal(Signal::SIGUSR2);
        host.longest_wait(|| generation(&proxy) > before)
    };
    (0..rounds).map(&mut round).collect()
}

fn swap(server: &[String], rounds: usize) -> Vec<Duration> {
    let proxy = Proxy::start(&[], server);
    let mut host = Host::start(&[], proxy.address());
    let round = |number| {
        proxy.signal(Signal::SIGUSR1);
        host.longest_wait(|| has_logged(&proxy, "are replaced: ", number))
    };
    (1..=rounds).map(round).collect()
}

fn restart(server: &[String], rounds: usize) -> Vec<Duration> {
    let mut proxy = Proxy::start(&[], server);
    let address: SocketAddr = proxy.address();
    let port = address.port().to_string();
    let mut host = Host::start(&[], address);
    let mut round = |_| {
        // The call is made once another proxy is there, and its time counts from before that.
        host.longest_wait(|| {
            proxy.signal(Signal::SIGKILL);
            proxy.wait_exit(DEADLINE);
            proxy = Proxy::start(&["--port", &port], server);
            true
        })
    };
    (0..rounds).map(&mut round).collect()
}
