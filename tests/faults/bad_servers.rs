//! Servers that write without end, read no more, close a pipe, leave daemons behind, or stand still.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::processes::{
    self, Process, Stray, cpu_time, rss_kib, send_signal, wait_until_stopped,
};
use crate::common::{Client, DEADLINE, eventually, skip_on_reference};
use crate::{DESCRIPTORS_PER_SESSION, Scene};

/// Exchanges of the bystander beside harm that goes on.
const BESIDE_HARM: u64 = 100;

#[test]
fn that_write_without_end() {
    const FLOODS: [&str; 4] = [
        r#"exec yes '{"method":"flood"}'"#,
        "exec yes 'this is no message'",
        // One line that never ends.
        r"exec tr '\0' x < /dev/zero",
        "exec yes 'this is a complaint' >&2",
    ];
    /// For each session an outbox of 64 KiB and a line of a megabyte that is not over yet, and as much again.
    const FLOODED_KIB: u64 = 2 * 2 * FLOODS.len() as u64 * (64 + 1024);
    skip_on_reference!("has no limit of what it keeps");
    let scene = Scene::open(&["--max-message-bytes", "1000000"]);
    let floods = || -> Vec<Client> {
        let flood = |code: &&str| {
            let (mut client, _) = scene.session();
            client.notify("sh", &json!({"code": code}));
            client
        };
        FLOODS.iter().map(flood).collect()
    };
    let (mut closing, resetting) = (floods(), floods());
    // The one client that gets anything reads some of it; the other reads nothing.
    for _ in 0..1000 {
        assert_eq!(closing[0].recv_json()["method"], "flood");
    }
    // Eight servers that never rest leave little of the machine for anyone.
    scene.bystander.wait_for(BESIDE_HARM / 4);
    let grown = rss_kib(scene.proxy.pid()).saturating_sub(scene.before.rss_kib);
    assert!(
        grown <= FLOODED_KIB,
        "the proxy's memory grew by {grown} KiB"
    );
    closing.into_iter().for_each(Client::close);
    resetting.into_iter().for_each(Client::reset);
    scene.end();
}

#[test]
fn that_read_no_more() {
    skip_on_reference!("waits for a server that does not read with all its sessions");
    let scene = Scene::open(&[]);
    let padding = json!({"padding": "x".repeat(10_000)});
    let stuffed = || {
        let (mut client, server) = scene.session();
        client.send_code("exec sleep 60");
        let line = format!("{}\n", json!({"id": 1, "method": "m", "params": padding}));
        let mut writer = client.writer();
        writer
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // Until everything between here and there is full.
        while writer.write_all(line.as_bytes()).is_ok() {}
        (client, server)
    };
    let (reset, _) = stuffed();
    let (killed, server) = stuffed();
    scene.bystander.wait_for(BESIDE_HARM);
    reset.reset();
    processes::kill_and_wait(server);
    // The next server is given what still waited; the client goes in the middle of that.
    killed.reset();
    scene.end();
}

#[test]
fn that_close_one_pipe() {
    skip_on_reference!("does not restart a server");
    let scene = Scene::open(&[]);
    let after_closing = |code: &str| {
        let (mut client, server) = scene.session();
        client.notify("sh", &json!({"code": code}));
        (client, server)
    };
    let lost = ["exec 0<&-; exec sleep 60", "exec 1>&-; exec sleep 60"].map(after_closing);
    // Without a stderr, a server is as good as any.
    let (mut kept, server) = after_closing("exec 2>&-");
    assert_eq!(kept.pid_of_server(), server);
    // What a closed pipe has to say, it says once.
    let (start, before) = (Instant::now(), cpu_time(scene.proxy.pid()));
    scene.bystander.wait_for(2 * BESIDE_HARM);
    let used = cpu_time(scene.proxy.pid()).saturating_sub(before);
    let time = start.elapsed();
    eprintln!("closed pipes: {used:?} of processor time in {time:?}");
    assert!(used < time / 8, "the proxy used {used:?} of {time:?}");
    for (mut client, server) in lost {
        assert_ne!(client.pid_of_server(), server);
        assert!(!processes::process_exists(server));
    }
    assert_eq!(kept.pid_of_server(), server);
    drop(kept);
    scene.end();
}

/// Daemons that took the pipes along: one of a server that ended, one of a server whose client left, and some that are
/// over soon. None of them is in its server's process group.
#[test]
fn that_leave_daemons_behind_with_their_pipes() {
    const SHORT: usize = 30;
    skip_on_reference!("waits for ever for the end of a pipe");
    let scene = Scene::open(&[]);
    let daemon = |name: &str| {
        let code = format!(
            "setsid sh -c 'echo $$ > {0}/{name}; trap : HUP TERM; while :; do sleep 1; done' &",
            scene.scratch.path()
        );
        let (mut client, server) = scene.session();
        let id = client.send_code(&format!("{code} answer"));
        client.answer_to(id);
        let pid = scene.scratch.read(name).trim().parse().unwrap();
        (client, server, Stray(pid))
    };
    let (mut first, crashed, daemon_of_crashed) = daemon("a");
    let (second, left, daemon_of_left) = daemon("b");
    processes::kill_and_wait(crashed);
    assert_ne!(first.pid_of_server(), crashed);
    second.close();
    let (mut third, _) = scene.session();
    let id = third.send_code(&format!(
        "for i in $(seq {SHORT}); do setsid sleep 0.$i <&0 & done; answer"
    ));
    third.answer_to(id);
    drop((first, third));
    scene.bystander.wait_for(BESIDE_HARM);

    // Nothing of the sessions is kept for the sake of daemons, which are left in peace, and are reaped in the end.
    let expected = scene.before.descriptors + DESCRIPTORS_PER_SESSION;
    eventually("the descriptors to be closed", DEADLINE, || {
        processes::fd_count(scene.proxy.pid()) <= expected
    });
    eventually("the server to be gone", DEADLINE, || {
        !processes::process_exists(left)
    });
    for daemon in [&daemon_of_crashed, &daemon_of_left] {
        eventually("the daemon to be adopted", DEADLINE, || {
            Process::find(daemon.0).unwrap().parent == scene.proxy.pid()
        });
    }
    drop((daemon_of_crashed, daemon_of_left));
    scene.end();
}

#[test]
fn that_stand_still() {
    const REQUESTS: usize = 500;
    skip_on_reference!("drops what it can't write at once");
    let scene = Scene::open(&["--heartbeat-interval", "0.1"]);
    let stopped = || {
        let (client, server) = scene.session();
        send_signal(server, Signal::SIGSTOP);
        wait_until_stopped(server);
        (client, server)
    };
    // Its client goes: no end of the input, no SIGTERM reaches it.
    let (left, server_of_left) = stopped();
    left.close();
    let (mut killed, server_of_killed) = stopped();
    let (mut paused, server) = stopped();
    paused.send_line(r#"{"type":"heartbeat"}"#);
    let ids: Vec<u64> = (0..REQUESTS)
        .map(|_| paused.send_request("pid", &json!({"padding": "x".repeat(1000)})))
        .collect();
    for _ in 0..5 {
        let message = paused.recv_json();
        assert_eq!(message["type"], "heartbeat_response");
        assert_eq!(message["mcp_alive"], true, "{message}");
    }
    scene.bystander.wait_for(BESIDE_HARM);
    processes::kill_and_wait(server_of_killed);
    assert_ne!(killed.pid_of_server(), server_of_killed);

    send_signal(server, Signal::SIGCONT);
    for id in ids {
        let answer = paused.answer_to(id);
        assert_eq!(answer["result"]["pid"], server, "{answer}");
    }
    assert!(
        paused
            .aside
            .iter()
            .all(|message| message["type"] == "heartbeat_response")
    );
    drop((paused, killed));
    eventually("the stopped server to be killed", DEADLINE, || {
        !processes::process_exists(server_of_left)
    });
    scene.end();
}
