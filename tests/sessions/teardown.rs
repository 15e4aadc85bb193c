//! The end of a session, and of the proxy: servers are asked to go, then told, then made to, and nothing is left of
//! them, nor of what they started.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::RESTART_NOTICE;
use crate::common::processes::{self, Process, wait_until_dead};
use crate::common::{Client, DEADLINE, NoLine, Proxy, Scratch, eventually, servers};
use nix::sys::signal::Signal;
use serde_json::json;

const TERMINATED: &str = "did not go by itself: SIGTERM";
const KILLED: &str = "did not go by itself: SIGKILL";

/// Commands after which a server does not mind SIGTERM, nor do its children.
const DEAF: &str = "trap '' TERM";

/// Commands that take no notice of the end of the input. Children are not waited for at the end.
const BLIND: &str = "while :; do sleep 1; done";

/// Has the server run these commands, which it never comes back from. Returns its process id.
#[track_caller]
fn occupy(client: &mut Client, scratch: &Scratch, code: &str) -> i32 {
    let server = client.pid_of_server();
    // By a notification, so that nothing is in flight that would have to be waited for.
    client.notify(
        "sh",
        &json!({"code": format!("echo busy > \"$dir/busy.$$\"; {code}")}),
    );
    scratch.read(&format!("busy.{server}"));
    server
}

#[track_caller]
fn wait_until_gone(pid: i32) {
    eventually(&format!("process {pid} to be gone"), DEADLINE, || {
        !processes::process_exists(pid)
    });
}

fn pid_in(scratch: &Scratch, file: &str) -> i32 {
    scratch.read(file).trim().parse().unwrap()
}

// The ladder.

#[test]
fn a_server_is_asked_then_told_then_made_to_go() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let [mut good, mut blind, mut deaf] = [(); 3].map(|()| proxy.connect());
    let good_pid = good.pid_of_server();
    let code = format!("trap 'echo told > \"$dir/told\"; exit' TERM; {BLIND}");
    let blind_pid = occupy(&mut blind, &scratch, &code);
    let deaf_pid = occupy(&mut deaf, &scratch, &format!("{DEAF}; {BLIND}"));
    let closed = Instant::now();
    for client in [good, blind, deaf] {
        client.close();
    }
    wait_until_gone(good_pid);
    // On a busy machine it may take longer to see the end of its input.
    let is_quick = closed.elapsed() < Duration::from_secs(2);

    let of = |pid: i32, what: &str| format!("server pid {pid} {what}");
    for pid in [blind_pid, deaf_pid] {
        proxy.wait_for_log(&of(pid, TERMINATED));
    }
    let told_after = closed.elapsed();
    assert!(told_after >= Duration::from_secs(2), "{told_after:?}");
    wait_until_gone(blind_pid);
    scratch.read("told");
    let lives = processes::process_exists(deaf_pid);
    assert!(lives || closed.elapsed() >= Duration::from_secs(7));

    proxy.wait_for_log(&of(deaf_pid, KILLED));
    let made_to_after = closed.elapsed();
    assert!(made_to_after >= Duration::from_secs(7), "{made_to_after:?}");
    wait_until_gone(deaf_pid);
    proxy.wait_until_childless();
    let count = |what: &str| {
        proxy
            .log()
            .iter()
            .filter(|line| line.contains(what))
            .count()
    };
    assert_eq!(count(KILLED), 1);
    let good_was_told = count(&of(good_pid, TERMINATED)) > 0;
    assert!(!(good_was_told && is_quick));
    assert_eq!(count(TERMINATED), 2 + usize::from(good_was_told));
}

#[test]
fn what_a_wrapper_leaves_behind_is_stopped() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let leave_behind = |what: &str, name: &str, end: &str| {
        let mut client = proxy.connect();
        let code = format!("({what}) > /dev/null 2>&1 & echo $! > \"$dir/{name}\"; {end}");
        client.notify("sh", &json!({"code": code}));
        let left = pid_in(&scratch, name);
        (client, left)
    };
    // A leader that dies; one that goes at the end of its input; and one that leaves someone deaf.
    let (mut first, left_by_dead) = leave_behind("exec sleep 60", "a", "kill -9 $$");
    let (second, left_by_good) = leave_behind("exec sleep 60", "b", "");
    let (third, left_deaf) = leave_behind(&format!("{DEAF}; {BLIND}"), "c", "");
    let closed = Instant::now();
    second.close();
    third.close();
    for left in [left_by_dead, left_by_good] {
        wait_until_gone(left);
    }
    // The session of the first one goes on.
    let server = first.pid_of_server();
    let lives = processes::process_exists(left_deaf);
    assert!(lives || closed.elapsed() >= Duration::from_secs(5));
    wait_until_gone(left_deaf);
    proxy.wait_for_log(KILLED);
    eventually("the orphans to be reaped", DEADLINE, || {
        proxy.servers() == [server]
    });
}

#[test]
fn orphans_that_left_the_group_are_adopted_and_reaped() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    // timeout(1) runs in a group of its own.
    let wait = "while ! [ -e \\\"$dir/go\\\" ]; do sleep 0.02; done";
    let code = format!(
        "export dir; (timeout 60 sh -c \"echo \\$\\$ > \\\"$dir/orphan\\\"; {wait}\" > /dev/null 2>&1 &); answer"
    );
    client.send_code(&code);
    client.recv_line();
    let orphan = pid_in(&scratch, "orphan");
    let parent = Process::find(orphan).unwrap().parent;
    eventually("the orphan to be adopted by the proxy", DEADLINE, || {
        Process::find(parent).is_some_and(|timeout| timeout.parent == proxy.pid())
    });
    assert_ne!(Process::find(orphan).unwrap().group, server);
    scratch.write("go", "");
    wait_until_gone(orphan);
    wait_until_gone(parent);
    assert_eq!(
        client.pid_of_server(),
        server,
        "the session takes no notice"
    );
    assert_eq!(proxy.descendants().len(), 1);
}

/// A process in the server's group whose parent is this test: its zombie is nobody else's to reap, and no signal ends it.
#[test]
fn a_zombie_that_nobody_reaps_does_not_keep_the_proxy_alive() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let mut zombie = Command::new("true").process_group(server).spawn().unwrap();
    let pid = i32::try_from(zombie.id()).unwrap();
    eventually("the zombie", DEADLINE, || {
        Process::find(pid).is_some_and(|process| process.is_zombie() && process.group == server)
    });
    client.close();
    wait_until_gone(server);
    proxy.signal(Signal::SIGTERM);
    // The whole ladder is climbed, and a rung more.
    let status = proxy.wait_exit(2 * DEADLINE);
    assert_eq!(status.code(), Some(0));
    proxy.wait_for_log("outlived SIGKILL");
    zombie.wait().unwrap();
}

/// A process that has left its group, and takes no notice of the end of its input.
#[test]
fn a_server_that_has_left_its_process_group_is_stopped() {
    let scratch = Scratch::new();
    let leaves = format!(
        "setpgrp(0, getpgrp(getppid)); open F, '>', '{}'; print F qq($$\\n); close F; sleep 1 while 1",
        scratch.file("left").display()
    );
    let server = ["perl", "-e", &leaves].map(str::to_owned);
    let mut proxy = Proxy::start(&["--no-auto-restart"], &server);
    let client = proxy.connect();
    let pid = pid_in(&scratch, "left");
    assert_ne!(Process::find(pid).unwrap().group, pid);
    client.close();
    wait_until_gone(pid);
    proxy.wait_for_log(TERMINATED);
    let _next = proxy.connect();
    eventually("the next server", DEADLINE, || {
        pid_in(&scratch, "left") != pid
    });
    proxy.signal(Signal::SIGTERM);
    let status = proxy.wait_exit(2 * DEADLINE);
    assert_eq!(status.code(), Some(0));
}

// How clients leave.

#[test]
fn a_reset_ends_the_input_at_once_and_the_output_is_read_on() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    // A request that is never answered does not hold up the end of the input, and a farewell that is more than a pipe
    // holds does not hold up the server.
    client.send_code(
        "trap '' TERM; echo busy > \"$dir/busy\"; cat > /dev/null; echo > \"$dir/eof\"; head -c 1000000 /dev/zero; echo > \"$dir/done\"; exit",
    );
    scratch.read("busy");
    client.reset();
    for file in ["eof", "done"] {
        scratch.read(file);
    }
    wait_until_gone(server);
    proxy.wait_until_childless();
    proxy.wait_for_log("closed: the connection to the client broke");
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_answers() {
    let scratch = Scratch::new();
    let options = ["--heartbeat-interval", "0.05"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_line(r#"{"type":"heartbeat"}"#);
    // `eof` tells when the input has come to its end.
    let slow = client.send_code(
        "trap '' TERM; exec 3<&0; (cat <&3 > /dev/null; echo > \"$dir/eof\") & while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; [ -e \"$dir/eof\" ] || answer; wait; exit",
    );
    scratch.wait_for_lines(server, 2);
    client.shutdown_write();
    // By the time of a few heartbeats the end has been noticed.
    for _ in 0..5 {
        assert_eq!(client.recv_json()["type"], "heartbeat_response");
    }
    scratch.write("go", "");
    let answer = client.answer_to(slow);
    assert_eq!(answer["result"]["pid"], server, "{answer}");
    scratch.read("eof");
    loop {
        match client.try_recv(DEADLINE) {
            Ok(line) => assert!(line.starts_with(br#"{"type":"heartbeat_response""#)),
            Err(end) => break assert_eq!(end, NoLine::End { unfinished: vec![] }),
        }
    }
    wait_until_gone(server);
}

#[test]
fn a_client_that_has_ended_its_side_is_served_by_the_next_server_too() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    let id = client.send_request("pid", &json!({}));
    client.shutdown_write();
    let answer = client.answer_to(id);
    assert_eq!(answer["result"]["pid"], scratch.wait_for_server(2));
    // At most it is told of the restart, if all took half a second.
    let rest = client.read_to_end();
    assert!(
        rest.iter().all(|line| line.contains(RESTART_NOTICE)),
        "{rest:?}"
    );
    proxy.wait_until_childless();
}

// The end of the proxy.

#[test]
fn a_stop_signal_leaves_nothing_behind() {
    let attempt = |signal: Signal| {
        let scratch = Scratch::new();
        let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
        let [mut idle, mut wrapped, mut blind] = [(); 3].map(|()| proxy.connect());
        let mut pids = vec![idle.pid_of_server()];
        wrapped.notify(
            "sh",
            &json!({"code": "sleep 60 > /dev/null 2>&1 & echo $! > \"$dir/left\""}),
        );
        pids.extend([wrapped.pid_of_server(), pid_in(&scratch, "left")]);
        pids.push(occupy(&mut blind, &scratch, BLIND));
        proxy.signal(signal);
        for client in [&mut idle, &mut wrapped, &mut blind] {
            assert_eq!(
                client.try_recv(DEADLINE),
                Err(NoLine::End { unfinished: vec![] })
            );
        }
        let status = proxy.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{signal}");
        for pid in pids {
            wait_until_dead(pid);
        }
    };
    thread::scope(|scope| {
        let signals = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGALRM,
            Signal::SIGXCPU,
            Signal::SIGPWR,
        ];
        for signal in signals {
            // Under nohup(1), for example, the proxy ignores SIGHUP, as it should.
            if !processes::ignores(signal) {
                scope.spawn(move || attempt(signal));
            }
        }
    });
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let scratch = Scratch::new();
    let server = servers::scripted(&scratch);
    // nohup(1), and what the shell has a command with a `&` ignore.
    let mut proxy = Proxy::start_after("trap '' HUP INT QUIT", &[], &server);
    let mut client = proxy.connect();
    let pid = client.pid_of_server();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        proxy.signal(signal);
        assert_eq!(client.pid_of_server(), pid);
    }
    proxy.connect().pid_of_server();
    client.close();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    proxy.wait_for_log("shutting down");
}

#[test]
fn servers_that_read_their_input_do_not_outlive_a_killed_proxy() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    // No server holds the pipes of another.
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    let mut pids: Vec<i32> = clients.iter_mut().map(Client::pid_of_server).collect();
    processes::kill_and_wait(pids[0]);
    pids[0] = clients[0].pid_of_server();
    proxy.signal(Signal::SIGKILL);
    assert!(!proxy.wait_exit(DEADLINE).success());
    for pid in pids {
        wait_until_dead(pid);
    }
}

// Whatever servers may do.

#[test]
fn a_death_by_a_realtime_signal_is_noticed() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let [mut client, mut other] = [(); 2].map(|()| proxy.connect());
    let kept = other.pid_of_server();
    let server = client.pid_of_server();
    let id = client.send_code("kill -40 $$");
    // Its number is known to the system, but not by name; the status does not have it.
    assert_eq!(client.recv_error(502, "process_terminated").0, id);
    wait_until_gone(server);
    assert_ne!(client.pid_of_server(), server);
    assert_eq!(other.pid_of_server(), kept);
}

#[test]
fn crashes_leave_no_descriptors_and_no_processes() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    proxy.connect().pid_of_server();
    proxy.wait_until_childless();
    let settled = processes::fd_count(proxy.pid());
    let ways = [
        "exit 3",
        "kill -9 $$",
        "exec 1>&-",
        "exec 0<&-; exit",
        "exec 2>&-; exit",
        "sleep 60 & exit 3",
        "(exec sleep 60) > /dev/null 2>&1 & exit 3",
        "head -c 10 /dev/zero; exit 3",
    ];
    let mut clients: Vec<Client> = ways
        .iter()
        .map(|way| {
            let mut client = proxy.connect();
            client.send_code(way);
            client
        })
        .collect();
    for client in &mut clients {
        client.recv_error(502, "process_terminated");
        client.pid_of_server();
    }
    eventually("as many descriptors as sessions need", DEADLINE, || {
        processes::fd_count(proxy.pid()) <= settled + 4 * ways.len()
    });
    drop(clients);
    proxy.wait_until_childless();
    eventually("the descriptors to be closed", DEADLINE, || {
        processes::fd_count(proxy.pid()) <= settled
    });
}
