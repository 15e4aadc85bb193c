//! A server dies: what it said is delivered, what it owed is answered, what it was not sent goes to the next one.

use std::collections::BTreeMap;
use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::{LEGACY_VERSION, result_of};
use crate::common::{
    Client, DEADLINE, NoLine, Proxy, Scratch, eventually, eventually_some, processes, servers,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What a process leaves unread in a pipe of the default size is less than this.
const PIPE_BYTES: usize = 64 * 1024;

/// Waits until so many bytes can be read from stdin (`ioctl_tty(2)`, `FIONREAD`), and reads none.
const UNREAD: &str = concat!(
    r#"do { select(undef, undef, undef, 0.02); ioctl(STDIN, 0x541B, $count = pack("L", 0)) } "#,
    r#"until unpack("L", $count) >= $ARGV[0]"#
);

/// The answers to this request and to the one before it are the proxy's; returns how the server is said to have ended.
#[track_caller]
fn recv_deaths(client: &mut Client, ids: &[u64]) -> String {
    let mut statuses = Vec::new();
    for id in ids {
        let (failed, data) = client.recv_error(502, "process_terminated");
        assert_eq!(failed, *id);
        statuses.push(data["status"].as_str().unwrap().to_owned());
    }
    statuses.dedup();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    statuses.remove(0)
}

/// The next line has to be this notification.
#[track_caller]
fn recv_note(client: &mut Client, method: &str) {
    let message = client.recv_json();
    assert_eq!(message["method"], method, "{message}");
}

// Signs of death.

#[test]
fn every_way_to_die_fails_what_is_in_flight_and_the_session_goes_on() {
    let deaths = [
        ("exit 3", "exit code 3"),
        ("exit 0", "exit code 0"),
        ("kill -9 $$", "signal 9 (SIGKILL)"),
        ("kill -TERM $$", "signal 15 (SIGTERM)"),
        ("kill -SEGV $$", "signal 11 (SIGSEGV)"),
        // All signs at once, in the order that one can give them.
        ("exec 0<&-; exec 1>&-; exit 4", "exit code 4"),
        ("exec 1>&-; exec 0<&-; exit 4", "exit code 4"),
        ("exec 2>&-; exit 4", "exit code 4"),
        // `exec` so that the process that lives on is the server.
        ("exec 1>&-; exec sleep 60", "stdout closed"),
        ("exec 0<&-; exec 1>&-; exec sleep 60", "stdout closed"),
        ("exec 0<&-; exec sleep 60", "signal 15 (SIGTERM)"),
    ];
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut clients: Vec<(Client, i32)> = Vec::new();
    for (code, status) in deaths {
        let mut client = proxy.connect();
        let pid = client.pid_of_server();
        let ids = [
            client.send_request("unanswered", &json!({})),
            client.send_code(code),
        ];
        if status == "signal 15 (SIGTERM)" && code.contains("sleep") {
            // Only the stop ladder ends this one; the others need not wait for that.
            clients.push((client, pid));
            continue;
        }
        let actual = recv_deaths(&mut client, &ids);
        // On a busy machine the exit can come later than the end of stdout is waited for.
        let late = code.contains("1>&-") && actual == "stdout closed";
        assert!(actual == status || late, "{code}: {actual}");
        clients.push((client, pid));
    }
    for ((code, status), (client, before)) in deaths.iter().zip(&mut clients) {
        if code.ends_with("exec 0<&-; exec sleep 60") {
            assert_eq!(recv_deaths(client, &[2, 3]), *status, "{code}");
        }
        let after = client.pid_of_server();
        assert_ne!(after, *before, "{code}");
        assert!(!processes::process_exists(*before), "{code}");
    }
    assert_eq!(proxy.servers().len(), deaths.len());
}

#[test]
fn the_next_server_waits_until_a_half_dead_one_is_gone() {
    let attempt = |code: &str| {
        let scratch = Scratch::new();
        let proxy = Proxy::start(&[], &servers::scripted(&scratch));
        let mut client = proxy.connect();
        let before = client.pid_of_server();
        client.send_code(code);
        // The stop ladder takes longer than the cooldown.
        let id = client.send_request("pid", &json!({}));
        eventually("the next server", DEADLINE, || {
            // In this order: the old one may be gone between the two looks, but not come back.
            let count = scratch.servers().len();
            let old_lives = processes::Process::find(before).is_some_and(|old| !old.is_zombie());
            assert!(!(old_lives && count > 1), "two at a time");
            count > 1
        });
        client.answer_to(id);
        proxy.wait_for_log("did not go by itself: SIGTERM");
    };
    thread::scope(|scope| {
        for code in ["exec 1>&-; exec sleep 60", "exec 0<&-; exec sleep 60"] {
            scope.spawn(move || attempt(code));
        }
    });
}

#[test]
fn a_server_that_reads_no_more_may_still_answer() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let [first, second] = [(); 2].map(|()| client.send_request("unanswered", &json!({})));
    let third = client.send_code(&format!(
        "trap '' TERM; exec 0<&-; while ! [ -e {0}/go ]; do sleep 0.02; done; reply {first}; exit 3",
        scratch.path()
    ));
    // It is told to stop: the proxy has noticed that nobody reads.
    proxy.wait_for_log("closed a pipe but does not exit");
    scratch.write("go", "");
    let answer = client.recv_json();
    assert_eq!(
        (&answer["id"], answer.get("result").is_some()),
        (&json!(first), true)
    );
    assert_eq!(recv_deaths(&mut client, &[second, third]), "exit code 3");
}

#[test]
fn deaths_are_seen_without_a_tick() {
    const ATTEMPTS: usize = 40;
    let proxy = Proxy::start(&[], &servers::demo());
    let is_seen_at_once = || {
        let mut client = proxy.connect();
        client.initialize();
        let crash = json!({"name": "crash", "arguments": {"exit_code": 3}});
        let start = Instant::now();
        client.send_request("tools/call", &crash);
        let (_, data) = client.recv_error(502, "process_terminated");
        data["status"] == "exit code 3" && start.elapsed() < Duration::from_millis(200)
    };
    // If it is ticks that are waited for, one has just passed after this.
    is_seen_at_once();
    // On a busy machine one of them is quick all the same, unless all have to wait for something, and its status comes
    // in time, unless it is not looked for.
    let is_seen = (0..ATTEMPTS).any(|_| is_seen_at_once());
    assert!(is_seen, "in {ATTEMPTS} attempts");
}

// Last words.

#[test]
fn last_words_come_before_the_errors() {
    const LINES: usize = 5_000;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let [first, second] = [(); 2].map(|()| client.send_request("unanswered", &json!({})));
    // More than a pipe holds; the end of it is in the pipe when the process is gone.
    let third = client.send_code(&format!(
        r#"awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf "{{\"method\":\"word\",\"params\":%d}}\n", i }}'; reply {first}; exit 3"#
    ));
    for number in 0..LINES {
        let message = client.recv_json();
        assert_eq!(message["params"], number, "{message}");
    }
    assert_eq!(client.recv_json()["id"], first);
    assert_eq!(recv_deaths(&mut client, &[second, third]), "exit code 3");
}

#[test]
fn a_last_line_without_its_end_is_delivered_if_it_is_whole() {
    let whole = r#"{"jsonrpc":"2.0","method":"last"}"#;
    for (last, is_whole) in [(whole, true), (&whole[..20], false)] {
        // The second one goes at the end of its input, but is not waited for.
        for way in ["exit 3", "exec 1>&-"] {
            let scratch = Scratch::new();
            let proxy = Proxy::start(&[], &servers::scripted(&scratch));
            let mut client = proxy.connect();
            let id = client.send_code(&format!("note first; printf '%s' '{last}'; {way}"));
            recv_note(&mut client, "first");
            if is_whole {
                recv_note(&mut client, "last");
            }
            recv_deaths(&mut client, &[id]);
            // The next server's first line is not taken for the rest of it.
            client.pid_of_server();
        }
    }
}

#[test]
fn others_may_hold_stdout_open_for_half_a_second() {
    const ATTEMPTS: usize = 20;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let is_late_line_delivered = || {
        let mut client = proxy.connect();
        let start = Instant::now();
        let ids = [
            client.send_request("unanswered", &json!({})),
            client.send_code("(note late; exec sleep 60) & exit 3"),
        ];
        let next = client.recv_json();
        // A shell may need more than that for it, on a busy machine.
        if next["method"] != "late" {
            assert_eq!(next["error"]["code"], 502, "{next}");
            return false;
        }
        assert_eq!(recv_deaths(&mut client, &ids), "exit code 3");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(500), "{took:?}");
        client.pid_of_server();
        true
    };
    let is_delivered = (0..ATTEMPTS).any(|_| is_late_line_delivered());
    assert!(is_delivered, "in {ATTEMPTS} attempts");
}

/// The time for those who hold stdout open stands still while it is the client that is slow. Once it reads, they have a
/// few tenths of a second: on a busy machine they may need more, so it may try several times.
#[test]
fn a_slow_client_does_not_use_up_the_time_of_those_who_hold_stdout_open() {
    // One process, as to start others takes long on such a machine.
    const FLOOD: &str = r#"perl -e '$| = 1; $s = q(x) x 16384; print qq({"method":"flood","params":"$s"}\n) for 1 .. 250; select undef, undef, undef, 0.05; print qq({"method":"late"}\n); sleep 60'"#;
    const ATTEMPTS: usize = 50;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let is_late_line_delivered = |pause: Duration| {
        let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
        let server = client.pid_of_server();
        let id = client.send_code(&format!("{FLOOD} & exit 3"));
        eventually("the server to be reaped", DEADLINE, || {
            !processes::process_exists(server)
        });
        // Nothing is waited for here: being slow, for one time or another, is what is tried.
        thread::sleep(pause);
        let next = iter::repeat_with(|| client.recv_json()).find(|next| next["method"] != "flood");
        let next = next.unwrap_or_default();
        if next["method"] != "late" {
            assert_eq!(
                (&next["id"], &next["error"]["code"]),
                (&json!(id), &json!(502))
            );
            return false;
        }
        assert_eq!(recv_deaths(&mut client, &[id]), "exit code 3");
        true
    };
    thread::scope(|scope| {
        for milliseconds in [350, 400, 450, 900] {
            let pause = Duration::from_millis(milliseconds);
            scope.spawn(move || {
                let is_delivered = (0..ATTEMPTS).any(|_| is_late_line_delivered(pause));
                assert!(
                    is_delivered,
                    "after {milliseconds} ms, in {ATTEMPTS} attempts"
                );
            });
        }
    });
}

// What was not read.

#[test]
fn what_a_dead_server_has_not_read_is_answered_by_the_next() {
    unread_is_answered_by_the_next(PIPE_BYTES + 1000, PIPE_BYTES - 4096);
}

/// The pipe is given more room for it.
#[test]
fn a_long_line_that_a_dead_server_has_not_read_is_answered_by_the_next_too() {
    unread_is_answered_by_the_next(400_000, 400_000);
}

/// One of the requests that are not read has as many bytes as `large`. The server dies once `unread` are in its pipe.
fn unread_is_answered_by_the_next(large: usize, unread: usize) {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let before = client.pid_of_server();
    // A shell reads its input byte by byte, so what follows is still in the pipe, and a line that it never gets whole.
    let first = client.send_code(&format!("perl -e '{UNREAD}' {unread}; exit 3"));
    let large = "x".repeat(large);
    let rest = [
        client.send_request("pid", &json!({})),
        client.send_request("pid", &json!({"large": large})),
        client.send_request("pid", &json!({})),
    ];
    assert_eq!(recv_deaths(&mut client, &[first]), "exit code 3");
    let mut answered = Vec::new();
    while answered.len() < rest.len() {
        let message = client.recv_json();
        if message["method"] == "$/mcp/serverRestarted" {
            continue;
        }
        let pid = message["result"]["pid"].as_i64();
        assert!(pid.is_some_and(|pid| pid != i64::from(before)), "{message}");
        answered.push(message["id"].as_u64().unwrap());
    }
    assert_eq!(answered, rest);
}

/// What it has left in the pipe may be read by others.
#[test]
fn what_others_may_still_read_counts_as_read() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.pid_of_server();
    let second = json!({"jsonrpc": "2.0", "id": 101, "method": "pid"});
    // In a shell, what runs in the background has another stdin unless it is told.
    let unread = second.to_string().len();
    let code = format!("exec 3<&0; sleep 60 <&3 & perl -e '{UNREAD}' {unread}; exit 3");
    let first = json!({"jsonrpc": "2.0", "id": 100, "method": "sh", "params": {"code": code}});
    client.send_raw(format!("{first}\n{second}\n").as_bytes());
    for id in [100, 101] {
        let (failed, data) = client.recv_error(502, "process_terminated");
        assert_eq!((failed, &data["delivered"]), (json!(id), &json!(true)));
    }
}

// What was not sent.

#[test]
fn a_half_written_line_is_failed_and_never_completed() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    // The server gets no further than into the second line.
    let first = client.send_code("head -c 1000 > /dev/null; exit 3");
    let padding = json!({"padding": "x".repeat(16 * PIPE_BYTES)});
    let second = client.send_request("pid", &padding);
    let third = client.send_request("pid", &json!({}));
    assert_eq!(recv_deaths(&mut client, &[first, second]), "exit code 3");
    let server = result_of(client.answer_to(third))["pid"].take();
    assert_eq!(server, scratch.wait_for_server(2));
    assert_eq!(scratch.methods(scratch.servers()[1]), ["pid"]);
}

#[test]
fn a_half_written_notification_is_dropped() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let first = client.send_code("head -c 1000 > /dev/null; exit 3");
    client.notify("n", &json!({"padding": "x".repeat(16 * PIPE_BYTES)}));
    client.notify("m", &json!({}));
    assert_eq!(recv_deaths(&mut client, &[first]), "exit code 3");
    let server = client.pid_of_server();
    assert_eq!(scratch.methods(server), ["m", "pid"]);
}

/// The ids of the requests that the server has read so far.
fn ids_got(scratch: &Scratch, server: i32) -> Vec<u64> {
    let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64();
    scratch.got(server).iter().filter_map(id).collect()
}

#[test]
fn each_request_is_answered_once_by_the_next_server_or_by_an_error() {
    const REQUESTS: u64 = 200;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    // From here on nothing is read; the rest fills the pipe, then the outbox, then the socket.
    let first = client.send_code("exec sleep 60");
    let padding = json!({"padding": "x".repeat(2_000)});
    for _ in 0..REQUESTS {
        client.send_request("pid", &padding);
    }
    eventually("the server to read no more", DEADLINE, || {
        processes::Process::find(server).is_some_and(|process| process.name == "sleep")
    });
    processes::kill_and_wait(server);

    let mut outcomes = BTreeMap::new();
    let mut order = Vec::new();
    while order.len() as u64 <= REQUESTS {
        let answer = client.recv_json();
        if answer["method"] == "$/mcp/serverRestarted" {
            continue;
        }
        let id = answer["id"].as_u64().unwrap();
        let failed = answer["error"]["code"] == 502;
        assert!(
            outcomes.insert(id, failed).is_none(),
            "{id} was answered twice"
        );
        order.push(id);
    }
    let expected: Vec<u64> = (first..=first + REQUESTS).collect();
    assert_eq!(order, expected);
    let begun = outcomes.values().filter(|failed| **failed).count();
    let (failed, queued) = order.split_at(begun);
    assert!(failed.iter().all(|id| outcomes[id]), "{outcomes:?}");
    assert!(
        begun >= 1 && queued.len() * 2_000 > 4 * PIPE_BYTES,
        "{begun}"
    );
    assert_eq!(ids_got(&scratch, scratch.servers()[1]), queued);
}

#[test]
fn what_is_sent_while_the_server_is_down_is_served_in_order_and_once() {
    const REQUESTS: u64 = 200;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    let padding = json!({"padding": "x".repeat(2_000)});
    let ids: Vec<u64> = (0..REQUESTS)
        .map(|_| {
            client.notify("between", &json!({}));
            client.send_request("pid", &padding)
        })
        .collect();
    for id in &ids {
        client.answer_to(*id);
    }
    let server = scratch.wait_for_server(2);
    assert_eq!(ids_got(&scratch, server), ids);
    let pairs = ["between", "pid"].repeat(ids.len());
    assert_eq!(scratch.methods(server), pairs);
}

#[test]
fn a_line_that_is_unfinished_when_the_server_dies_is_for_the_next_one() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_raw(br#"{"id":"cut","method":"#);
    processes::kill_and_wait(server);
    scratch.wait_for_server(2);
    client.send_raw(b"\"pid\"}\n");
    let answer = client.recv_but_notice();
    assert_eq!(answer["id"], "cut");
    assert_eq!(answer["result"]["pid"], scratch.servers()[1]);
}

// Late answers.

fn answer_from_client(id: u64, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"roots": [], "text": text}})
}

#[test]
fn late_answers_do_not_reach_the_next_server() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let asked = client.send_code("ask 5; ask 6; ask 7; ask 8; answer");
    client.answer_to(asked);
    client.send_json(&answer_from_client(5, "in time"));
    let before = client.pid_of_server();
    assert_eq!(scratch.methods(before), ["sh", "answer 5", "pid"]);
    processes::kill_and_wait(before);
    // One while there is no server, one when there is the next, and one that the next one has asked for too.
    client.send_json(&answer_from_client(6, "late"));
    let after = client.pid_of_server();
    client.send_json(&answer_from_client(7, "late"));
    let asked = client.send_code("ask 8; answer");
    client.answer_to(asked);
    client.send_json(&answer_from_client(8, "late"));
    client.send_json(&answer_from_client(8, "in time"));
    client.pid_of_server();
    assert_eq!(scratch.methods(after), ["pid", "sh", "answer 8", "pid"]);
    assert!(scratch.got(after)[2].contains("in time"));
}

#[test]
fn answers_to_last_words_do_not_reach_the_next_server() {
    const SESSIONS: usize = 8;
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let asked = |number: usize| {
        // The request is read after the exit is known, if someone else writes it.
        let code = match number % 2 {
            0 => "ask 5; exit 3",
            _ => "while [ -d /proc/$$ ]; do :; done && ask 5 & exit 3",
        };
        let mut client = proxy.connect();
        let id = client.send_code(code);
        let mut messages = [client.recv_json(), client.recv_json()];
        messages.sort_by_key(|message| message["method"] == "roots/list");
        assert_eq!(messages[0]["id"], id, "{messages:?}");
        // On a busy machine, whoever else writes it may come too late.
        let is_asked = messages[1]["method"] == "roots/list";
        assert!(is_asked || number % 2 == 1, "{messages:?}");
        is_asked.then_some(client)
    };
    let asked = |number| eventually_some("a question", 3 * DEADLINE, || asked(number));
    let mut clients: Vec<Client> = (0..SESSIONS).map(asked).collect();
    for client in &mut clients {
        client.send_json(&answer_from_client(5, "late"));
        let after = client.pid_of_server();
        client.send_json(&answer_from_client(5, "later still"));
        client.pid_of_server();
        // The second one answers nothing that is known of: it passes.
        assert_eq!(scratch.methods(after), ["pid", "answer 5", "pid"]);
    }
}

// Requests that are sent again.

/// The first server dies of the first line that it reads, `initialize` or whatever else.
const DIE_ONCE: &str = "if [ $(number) -eq 1 ]; then read -r line; exit 1; fi";

/// Reads until that many heartbeats have come, and puts aside what else comes.
#[track_caller]
fn wait_for_heartbeats(client: &mut Client, count: usize) {
    let mut seen = 0;
    while seen < count {
        let message = client.recv_json();
        if message["type"] == "heartbeat_response" {
            seen += 1;
        } else {
            client.aside.push(message);
        }
    }
}

#[test]
fn a_server_that_dies_once_at_its_start_goes_unnoticed() {
    let attempt = |method: &str| {
        let scratch = Scratch::new();
        scratch.write("on-start", DIE_ONCE);
        let proxy = Proxy::start(
            &["--heartbeat-interval", "0.2"],
            &servers::scripted(&scratch),
        );
        let mut client = proxy.connect();
        if method == "initialize" {
            client.initialize();
        } else {
            // It may have died of that, so it is not asked again.
            let probe = client.send_request(method, &json!({}));
            assert_eq!(recv_deaths(&mut client, &[probe]), "exit code 1");
        }
        client.pid_of_server();
        assert_eq!(scratch.servers().len(), 2);
        // For longer than it takes for the client to be told of a restart.
        client.send_line(r#"{"type":"heartbeat"}"#);
        wait_for_heartbeats(&mut client, 5);
        assert_eq!(client.aside, Vec::<Value>::new());
        let expected: &[&str] = match method {
            "initialize" => &[method, "notifications/initialized", "pid"],
            _ => &["pid"],
        };
        assert_eq!(scratch.methods(scratch.servers()[1]), expected);
    };
    thread::scope(|scope| {
        for method in ["initialize", "server/discover"] {
            scope.spawn(move || attempt(method));
        }
    });
}

#[test]
fn what_is_sent_again_comes_before_what_was_queued() {
    let scratch = Scratch::new();
    scratch.write("on-start", DIE_ONCE);
    let proxy = Proxy::start(&[], &servers::legacy(&scratch));
    let mut client = proxy.connect();
    let first = scratch.wait_for_server(1);
    let params = json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}});
    let initialize = client.send_request("initialize", &params);
    eventually("the first server to be gone", DEADLINE, || {
        !processes::process_exists(first)
    });
    client.notify("notifications/initialized", &json!({}));
    let pid = client.send_request("pid", &json!({}));
    assert_eq!(client.recv_json()["id"], initialize);
    let answer = client.recv_json();
    assert_eq!(
        (&answer["id"], &answer["result"]["pid"]),
        (&json!(pid), &json!(scratch.servers()[1]))
    );
    let expected = ["initialize", "notifications/initialized", "pid"];
    assert_eq!(scratch.methods(scratch.servers()[1]), expected);
}

#[test]
fn only_the_handshake_is_sent_again() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let first = client.send_code("read -r line; read -r line; exit 3");
    let discover = client.send_request("server/discover", &json!({}));
    let params = json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}});
    let initialize = client.send_request("initialize", &params);
    assert_eq!(recv_deaths(&mut client, &[first, discover]), "exit code 3");
    result_of(client.answer_to(initialize));
    // Something was lost, so the client is told.
    client.message_of("$/mcp/serverRestarted");
    assert_eq!(scratch.methods(scratch.servers()[1]), ["initialize"]);
}

/// A legacy server that ends on any first message but `initialize`, and a client that knows both eras.
#[test]
fn a_probe_that_kills_the_server_does_not_keep_the_client_from_its_handshake() {
    let scratch = Scratch::new();
    // The first line is read here, and put back for those who begin right.
    scratch.write(
        "on-start",
        r#"IFS= read -r line; find_id "$line"; case $line in *'"initialize"'*) initialized ;; *) exit 1 ;; esac"#,
    );
    let proxy = Proxy::start(&["--max-restarts", "0"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    for _ in 0..3 {
        let probe = client.send_request("server/discover", &json!({}));
        let (failed, data) = client.recv_error(502, "process_terminated");
        assert_eq!((failed, &data["delivered"]), (json!(probe), &json!(true)));
    }
    client.initialize();
    client.pid_of_server();
    assert_eq!(scratch.servers().len(), 4, "no restart is counted");
    assert_eq!(client.aside, Vec::<Value>::new());
}

#[test]
fn a_handshake_too_large_to_be_kept_is_failed() {
    let scratch = Scratch::new();
    scratch.write("on-start", DIE_ONCE);
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    for length in [PIPE_BYTES - 1_000, PIPE_BYTES + 1] {
        let mut client = proxy.connect();
        let padding = json!({"padding": "x".repeat(length)});
        let id = client.send_request("initialize", &padding);
        let answer = client.answer_to(id);
        assert_eq!(
            answer.get("result").is_some(),
            length < PIPE_BYTES,
            "{answer}"
        );
        if length > PIPE_BYTES {
            crate::common::client::assert_own_error(&answer, 502, "process_terminated");
        }
        scratch.write("starts", "");
    }
}

#[test]
fn a_server_that_dies_at_every_start_is_given_up() {
    let scratch = Scratch::new();
    scratch.write("on-start", "read -r line; exit 1");
    let proxy = Proxy::start(&["--max-restarts", "1"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let params = json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}});
    let id = client.send_request("initialize", &params);
    assert_eq!(client.recv_error(503, "restart_limit").0, id);
    assert_eq!(
        client.try_recv(DEADLINE),
        Err(NoLine::End { unfinished: vec![] })
    );
    assert_eq!(scratch.servers().len(), 2);
    proxy.wait_for_log("closed: the server ended (exit code 1) after 1 restart,");
}

#[test]
fn a_server_that_dies_at_once_is_given_up_soon_and_its_last_words_are_told() {
    let server = servers::sh("echo 'no such module' >&2; exit 3");
    // By its restarts alone it would take a minute and a half.
    let proxy = Proxy::start(&["--max-restarts", "20"], &server);
    let mut client = proxy.connect();
    let id = client.send_request("initialize", &json!({}));
    let answer = client.answer_to_within(id, Duration::from_mins(1));
    crate::common::client::assert_own_error(&answer, 503, "spawn_failed");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("exit code 3") && message.ends_with("no such module"),
        "{message}"
    );
    assert_eq!(answer["error"]["data"]["delivered"], false);
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(client.try_recv(DEADLINE), Err(end));
}

#[test]
fn a_request_taken_back_is_not_sent_again() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let first = client.send_code("read -r line; note one; read -r line; kill -9 $$");
    let discover = client.send_request("server/discover", &json!({}));
    recv_note(&mut client, "one");
    client.notify("notifications/cancelled", &json!({"requestId": discover}));
    assert_eq!(recv_deaths(&mut client, &[first]), "signal 9 (SIGKILL)");
    let server = client.pid_of_server();
    assert_eq!(scratch.methods(server), ["pid"]);
    // Just so that a kill from outside is among the deaths.
    processes::send_signal(server, Signal::SIGKILL);
}

/// A request to the next server, which is not there yet, and its cancellation, alone and in a batch.
#[test]
fn what_is_taken_back_while_the_server_is_down_is_never_sent() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    // The stop ladder takes a while, to its last rung.
    let first = client.send_code("trap '' TERM; exec 1>&-; exec sleep 60");
    assert_eq!(recv_deaths(&mut client, &[first]), "stdout closed");
    client.send_raw(
        concat!(
            r#"{"jsonrpc":"2.0","id":"given up","method":"pid"}"#,
            "\n",
            r#"[{"jsonrpc":"2.0","id":"too","method":"pid"},{"jsonrpc":"2.0","method":"note"}]"#,
            "\n",
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"given up"}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"too"}}"#,
            "\n",
        )
        .as_bytes(),
    );
    let server = client.pid_of_server();
    let got = scratch.got(server);
    assert_eq!(got[0], r#"[{"jsonrpc":"2.0","method":"note"}]"#);
    assert_eq!(got.len(), 2, "{got:?}");
}
