//! A legacy server refuses everything before `initialize`. These tests kill one at every moment of a session, and look
//! at what the next one is sent: the handshake, once, and then what the client sends.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::client::{LEGACY_VERSION, RESTART_NOTICE, assert_own_error, result_of};
use crate::common::processes::{self, Process};
use crate::common::{
    Client, DEADLINE, NoLine, Proxy, Scratch, eventually, eventually_some, servers,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How a server is sent the handshake, and with what.
const HANDSHAKE: [&str; 2] = ["initialize", "notifications/initialized"];

/// Makes a server wait where this is put until the file `go` is there.
const WAIT_TO_GO: &str = "while ! [ -e \"$dir/go\" ]; do sleep 0.02; done";

/// What a client says of itself in the handshake; it must come back in the replay.
const PARAMS: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{"name":"é\u00e9","version":"1.50"}}"#;

/// Dropped from the top: the client leaves first, so that nobody waits for it.
struct Setup {
    client: Client,
    proxy: Proxy,
    scratch: Scratch,
}

impl Setup {
    fn new(options: &[&str]) -> Self {
        let scratch = Scratch::new();
        let proxy = Proxy::start(options, &servers::legacy(&scratch));
        let client = proxy.connect();
        Self {
            client,
            proxy,
            scratch,
        }
    }

    /// A session after its handshake.
    fn initialized(options: &[&str]) -> Self {
        let mut setup = Self::new(options);
        setup.client.initialize();
        setup.client.pid_of_server();
        setup
    }

    /// Kills the server of that number, and waits until the proxy has reaped it.
    #[track_caller]
    fn kill(&self, number: usize) {
        processes::kill_and_wait(self.scratch.wait_for_server(number));
    }

    /// What the server of that number was sent so far.
    fn methods(&self, number: usize) -> Vec<String> {
        self.scratch.methods(self.scratch.servers()[number - 1])
    }

    /// Calls the server, and checks that it is the one of that number, and what it had been sent before.
    #[track_caller]
    fn expect_server(&mut self, number: usize, sent_before: &[&str]) {
        let pid = self.client.pid_of_server();
        assert_eq!(
            self.scratch
                .servers()
                .iter()
                .position(|other| *other == pid),
            Some(number - 1)
        );
        let mut expected = sent_before.to_vec();
        expected.push("pid");
        assert_eq!(self.methods(number), expected);
    }
}

fn request_line(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

// Killed at every moment.

#[test]
fn before_initialize() {
    let mut setup = Setup::new(&[]);
    setup.kill(1);
    setup.client.initialize();
    setup.expect_server(2, &HANDSHAKE);
}

#[test]
fn during_initialize() {
    let mut setup = Setup::new(&[]);
    setup.scratch.write("on-initialize", "sleep 60");
    let id = setup.client.send_request("initialize", &json!({}));
    setup.scratch.wait_for_server(1);
    setup.scratch.wait_for_lines(setup.scratch.servers()[0], 1);
    setup.scratch.remove("on-initialize");
    setup.kill(1);
    result_of(setup.client.answer_to(id));
    setup.client.notify(HANDSHAKE[1], &json!({}));
    setup.expect_server(2, &HANDSHAKE);
}

#[test]
fn after_initialize_and_before_the_client_has_said_initialized() {
    let mut setup = Setup::new(&[]);
    let answer = setup.client.request("initialize", &json!({}));
    result_of(answer);
    setup.kill(1);
    setup.client.notify(HANDSHAKE[1], &json!({}));
    // Replayed, and then what the client itself says, once.
    setup.expect_server(2, &HANDSHAKE);
}

/// Some clients say `notifications/initialized` without waiting for the answer to `initialize`, or say it in a batch.
#[test]
fn initialized_belongs_to_the_handshake_however_it_is_said() {
    let initialize = request_line("1", HANDSHAKE[0], PARAMS);
    let initialized = json!({"jsonrpc": "2.0", "method": HANDSHAKE[1]});
    let in_a_batch = json!([initialized, {"jsonrpc": "2.0", "id": 2, "method": "unanswered"}]);
    for line in [initialized, in_a_batch] {
        let mut setup = Setup::new(&[]);
        let both = format!("{initialize}\n{line}\n");
        setup.client.send_raw(both.as_bytes());
        assert_eq!(setup.client.recv_json()["id"], 1);
        setup.scratch.wait_for_lines(setup.scratch.servers()[0], 2);
        setup.kill(1);
        if line.is_array() {
            setup.client.recv_error(502, "process_terminated");
        }
        setup.expect_server(2, &HANDSHAKE);
    }
}

#[test]
fn a_handshake_that_is_sent_again_before_its_answer_is_sent_whole() {
    let mut setup = Setup::new(&[]);
    // The first server dies when it has read both lines.
    setup.scratch.write(
        "on-initialize",
        "if [ $(number) -eq 1 ]; then read -r line; exit 1; fi; initialized",
    );
    let both = format!(
        "{}\n{}\n",
        request_line("1", HANDSHAKE[0], PARAMS),
        json!({"jsonrpc": "2.0", "method": HANDSHAKE[1]})
    );
    setup.client.send_raw(both.as_bytes());
    let answer = setup.client.answer_to(1);
    assert!(answer.get("result").is_some(), "{answer}");
    setup.expect_server(2, &HANDSHAKE);
}

#[test]
fn a_client_that_never_said_initialized_does_not_say_so_in_a_replay() {
    let mut setup = Setup::new(&[]);
    result_of(setup.client.request("initialize", &json!({})));
    setup.kill(1);
    setup.expect_server(2, &HANDSHAKE[..1]);
}

#[test]
fn after_the_handshake() {
    let mut setup = Setup::new(&[]);
    setup
        .client
        .send_line(&request_line(r#""é 1""#, "initialize", PARAMS));
    setup.client.recv_line();
    setup.client.notify(HANDSHAKE[1], &json!({}));
    setup.client.pid_of_server();
    setup.kill(1);
    setup.expect_server(2, &HANDSHAKE);
    // In the client's words, but under an id of the proxy's own; the answer is not for the client.
    let got = setup.scratch.got(setup.scratch.servers()[1]);
    let replayed: Value = serde_json::from_str(&got[0]).unwrap();
    assert!(got[0].contains(PARAMS), "{got:?}");
    assert!(
        replayed["id"].is_string() && replayed["id"] != "é 1",
        "{got:?}"
    );
    assert_eq!(setup.client.aside_but_notices(), Vec::<&Value>::new());
}

#[test]
fn with_requests_in_flight() {
    let mut setup = Setup::initialized(&[]);
    let lost = [(); 3].map(|()| setup.client.send_request("unanswered", &json!({})));
    setup.scratch.wait_for_lines(setup.scratch.servers()[0], 6);
    setup.kill(1);
    for id in lost {
        assert_eq!(setup.client.recv_error(502, "process_terminated").0, id);
    }
    setup.expect_server(2, &HANDSHAKE);
}

#[test]
fn with_requests_queued() {
    let mut setup = Setup::initialized(&[]);
    setup.kill(1);
    let ids = [(); 3].map(|()| {
        setup.client.notify("notifications/between", &json!({}));
        setup.client.send_request("pid", &json!({}))
    });
    for id in ids {
        assert_eq!(setup.client.recv_but_notice()["id"], id);
    }
    let mut sent = HANDSHAKE.to_vec();
    sent.extend(["notifications/between", "pid"].repeat(3));
    setup.expect_server(2, &sent);
}

#[test]
fn with_a_line_half_written() {
    let mut setup = Setup::initialized(&[]);
    let first = setup.client.send_code("head -c 100 > /dev/null; exit 3");
    let half = setup
        .client
        .send_request("pid", &json!({"padding": "x".repeat(2_000_000)}));
    let queued = setup.client.send_request("pid", &json!({}));
    for id in [first, half] {
        assert_eq!(setup.client.recv_error(502, "process_terminated").0, id);
    }
    result_of(setup.client.answer_to(queued));
    let sent = [&HANDSHAKE[..], &["pid"]].concat();
    setup.expect_server(2, &sent);
}

#[test]
fn during_the_replay() {
    let mut setup = Setup::initialized(&[]);
    setup.scratch.write("on-initialize", "sleep 60");
    setup.kill(1);
    let queued = setup.client.send_request("pid", &json!({}));
    let second = setup.scratch.wait_for_server(2);
    assert_eq!(
        setup.scratch.wait_for_lines(second, 1).len(),
        1,
        "only the handshake"
    );
    setup.scratch.remove("on-initialize");
    setup.kill(2);
    assert_eq!(setup.methods(2), HANDSHAKE[..1]);
    // Nothing of it is an error to the client.
    let answer = setup.client.recv_but_notice();
    assert_eq!(
        (&answer["id"], answer["result"].is_object()),
        (&json!(queued), true),
        "{answer}"
    );
    let sent = [&HANDSHAKE[..], &["pid"]].concat();
    setup.expect_server(3, &sent);
    // Each replay has an id of its own, so that a late answer to one is not taken for that to another.
    let id_of_replay = |number: usize| {
        let got = setup.scratch.got(setup.scratch.servers()[number - 1]);
        serde_json::from_str::<Value>(&got[0]).unwrap()["id"].take()
    };
    assert_ne!(id_of_replay(2), id_of_replay(3));
    // The second one did not live long enough to be announced, but on a busy machine.
    setup.client.message_of(RESTART_NOTICE);
    assert_eq!(setup.client.aside_but_notices(), Vec::<&Value>::new());
}

#[test]
fn while_the_client_is_not_reading() {
    const LINES: usize = 2_000;
    const PIPE_BYTES: u64 = 64 * 1024;
    let mut setup = Setup::new(&[]);
    setup.client = Client::connect_with_receive_buffer(setup.proxy.address(), 4096);
    setup.scratch.wait_for_server(2);
    setup.client.initialize();
    let server = setup.client.pid_of_server();
    let flood = format!(
        r#"exec awk 'BEGIN {{ s = "x"; while (length(s) < 10000) s = s s; for (i = 0; i < {LINES}; i++) printf "{{\"method\":\"flood\",\"params\":[%d,\"%s\"]}}\n", i, s }}'"#
    );
    // In one piece, so that the second one is in the pipe when the first one has an effect.
    let (first, second) = (101, 102);
    let code = json!({"id": first, "method": "sh", "params": {"code": flood}});
    setup
        .client
        .send_raw(format!("{code}\n{}\n", request_line("102", "pid", "{}")).as_bytes());
    eventually("the server to flood", DEADLINE, || {
        let is_flooding = Process::find(server).is_some_and(|server| server.name == "awk");
        is_flooding && processes::bytes_written(server) > PIPE_BYTES
    });
    // Whoever does nothing is stuck, and the proxy has passed on what it could.
    processes::wait_until_quiet(&[server, setup.proxy.pid()]);
    let written = processes::bytes_written(server);
    processes::kill_and_wait(server);
    let queued = setup.client.send_request("pid", &json!({}));
    // What the dead server had said comes first, all of it that it could say, and in order.
    let (mut count, mut bytes) = (0, 0);
    let error = loop {
        let line = setup.client.recv_line();
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["method"] != "flood" {
            break message;
        }
        assert_eq!(message["params"][0], count);
        count += 1;
        bytes += line.len() + 1;
    };
    // But for one line that it did not finish, and for what it had written before, to its record too.
    assert!(
        count > 0 && bytes as u64 + 20_000 > written,
        "{bytes} of {written} bytes"
    );
    assert_own_error(&error, 502, "process_terminated");
    assert_eq!(error["id"], first);
    // The request behind the first one had been written to the pipe, where it was not read.
    assert_eq!(setup.client.recv_but_notice()["id"], second);
    result_of(setup.client.answer_to(queued));
    let next = setup.client.pid_of_server();
    let sent = [&HANDSHAKE[..], &["pid", "pid", "pid"]].concat();
    assert_eq!(setup.scratch.methods(next), sent);
}

// Clients that shake hands again by themselves.

#[test]
fn a_second_handshake_that_the_server_refuses_leaves_the_first_one_to_be_replayed() {
    let mut setup = Setup::initialized(&[]);
    setup.scratch.write(
        "on-initialize",
        r#"say '{"jsonrpc":"2.0","id":'"$id"',"error":{"code":-32600,"message":"again?"}}'"#,
    );
    let second = setup.client.send_request("initialize", &json!({}));
    assert_eq!(setup.client.answer_to(second)["error"]["code"], -32600);
    setup.scratch.remove("on-initialize");
    setup.kill(1);
    setup.expect_server(2, &HANDSHAKE);
}

/// How long the start of a second server is after that of the first one at least, in seconds, and how long after its own
/// start the proxy greets a server that nobody speaks to.
const COOLDOWN: f64 = 1.0;
const UNASKED_REPLAY: f64 = 2.5;

/// Now, since 1970.
fn unix_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// A session that has lost its server, and in which that was done before the proxy may have greeted the next one. On a
/// busy machine it may take some attempts.
#[track_caller]
fn in_time(prepare: impl Fn(&Scratch), act: impl Fn(&mut Setup)) -> Setup {
    let attempt = || {
        let began = unix_time();
        let mut setup = Setup::initialized(&[]);
        prepare(&setup.scratch);
        let started = unix_time().max(began + COOLDOWN);
        setup.kill(1);
        act(&mut setup);
        (unix_time() < started + UNASKED_REPLAY - 0.01).then_some(setup)
    };
    eventually_some("an attempt that is in time", 6 * DEADLINE, attempt)
}

#[test]
fn a_client_that_initializes_again_after_the_notice_does_so_once() {
    let nothing = |_: &Scratch| {};
    let mut setup = in_time(nothing, |setup| {
        setup.client.message_of(RESTART_NOTICE);
        setup.client.initialize();
    });
    setup.expect_server(2, &HANDSHAKE);
    // From then on this is the handshake that counts.
    setup.kill(2);
    setup.expect_server(3, &HANDSHAKE);
    let initialize = |number: usize| {
        let got = setup.scratch.got(setup.scratch.servers()[number - 1]);
        serde_json::from_str::<Value>(&got[0]).unwrap()
    };
    assert_eq!(initialize(2)["params"], initialize(3)["params"]);
}

#[test]
fn a_client_that_initializes_again_while_the_server_is_down_does_so_once() {
    let nothing = |_: &Scratch| {};
    let mut setup = in_time(nothing, |setup| {
        setup.client.initialize();
    });
    setup.expect_server(2, &HANDSHAKE);
}

#[test]
fn a_client_that_initializes_again_may_get_another_server() {
    let answer = r#"say '{"jsonrpc":"2.0","id":'"$id"',"result":{"protocolVersion":"2024-11-05","capabilities":{}}}'; strict="#;
    let prepare = |scratch: &Scratch| scratch.write("on-initialize", answer);
    let mut setup = in_time(prepare, |setup| {
        // Too late, it is the end of the session.
        setup.client.send_request("initialize", &json!({}));
        setup
            .scratch
            .wait_for_lines(setup.scratch.wait_for_server(2), 1);
    });
    let answer = setup.client.recv_but_notice();
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
    setup.client.notify(HANDSHAKE[1], &json!({}));
    setup.expect_server(2, &HANDSHAKE);
}

// During the replay.

#[test]
fn messages_of_the_server_and_answers_to_them_pass_during_the_replay() {
    let mut setup = Setup::initialized(&[]);
    // A server that wants an answer before it gives its own, and that has something to say.
    setup.scratch.write(
        "on-initialize",
        "note early; ask 9; read -r line; say \"$line\" >> \"$dir/got.$$\"; initialized",
    );
    setup.kill(1);
    let queued = setup.client.send_request("pid", &json!({}));
    for method in ["early", "roots/list"] {
        assert_eq!(setup.client.recv_but_notice()["method"], method);
    }
    // A request and a notification wait, the answer does not.
    setup.client.notify("notifications/queued", &json!({}));
    setup
        .client
        .send_json(&json!({"jsonrpc": "2.0", "id": 9, "result": {"roots": []}}));
    result_of(setup.client.answer_to(queued));
    let sent = [
        "initialize",
        "answer 9",
        "notifications/initialized",
        "pid",
        "notifications/queued",
    ];
    setup.expect_server(2, &sent);
}

#[test]
fn a_server_that_is_not_spoken_to_is_not_greeted_but_may_ask() {
    let prepare = |scratch: &Scratch| scratch.write("on-start", "ask 9; note started");
    let before = RefCell::default();
    let mut setup = in_time(prepare, |setup| {
        for method in ["roots/list", "started"] {
            assert_eq!(setup.client.recv_but_notice()["method"], method);
        }
        setup
            .client
            .send_json(&json!({"jsonrpc": "2.0", "id": 9, "result": {"roots": []}}));
        let server = setup.scratch.wait_for_server(2);
        setup.scratch.wait_for_lines(server, 1);
        before.replace(setup.methods(2));
    });
    assert_eq!(before.into_inner(), ["answer 9"]);
    let sent = [&["answer 9"], &HANDSHAKE[..]].concat();
    setup.expect_server(2, &sent);
}

/// A session whose second server treats the replayed handshake so. Its waiting requests get that error, and it is closed.
#[track_caller]
fn expect_end_of_session(on_initialize: &str, reason: &str) {
    let mut setup = Setup::initialized(&[]);
    setup.scratch.write("on-initialize", on_initialize);
    setup.kill(1);
    let queued = [(); 3].map(|()| {
        setup.client.notify("notifications/queued", &json!({}));
        setup.client.send_request("pid", &json!({}))
    });
    let second = setup.scratch.wait_for_server(2);
    setup.scratch.wait_for_lines(second, 1);
    // These are sent later than the handshake is.
    let more = [(); 2].map(|()| setup.client.send_request("pid", &json!({})));
    setup.scratch.write("go", "");
    for id in queued.into_iter().chain(more) {
        assert_own_error(&setup.client.answer_to(id), 503, reason);
    }
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(setup.client.try_recv(DEADLINE), Err(end));
    // At most the notice, if all took half a second.
    let mut aside = setup.client.aside.iter();
    assert!(aside.all(|message| message["method"] == RESTART_NOTICE));
    setup.proxy.wait_for_log("closed: the restarted server");
    setup.proxy.wait_until_childless();
    assert_eq!(setup.methods(2), ["initialize"], "nothing else got through");
    assert_eq!(setup.scratch.servers().len(), 2, "no third one is tried");
}

/// Commands that answer the request that was read last with this member, once the file `go` is there.
fn answer_with(member: &str) -> String {
    format!(r#"{WAIT_TO_GO}; say '{{"jsonrpc":"2.0","id":'"$id"',{member}}}'"#)
}

#[test]
fn a_replay_that_fails_ends_the_session() {
    let version = r#""result":{"protocolVersion":"2024-11-05","capabilities":{"tools":{}}}"#;
    let capabilities = r#""result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}}}"#;
    let error = r#""error":{"code":-32603,"message":"not in the mood"}"#;
    thread::scope(|scope| {
        for member in [version, capabilities, error] {
            scope.spawn(move || expect_end_of_session(&answer_with(member), "server_changed"));
        }
    });
}

/// A server that is slow once, or hangs once, is no reason to give the session up.
#[test]
fn a_replay_that_is_not_answered_is_a_failed_start() {
    // Long enough for a third server that is only slow.
    let attempt = |max_restarts, is_given_up| {
        let options = ["--replay-timeout", "5", "--max-restarts", max_restarts];
        let mut setup = Setup::initialized(&options);
        let silence = "if [ $(number) -eq 2 ]; then cat > /dev/null; exit; fi; initialized";
        setup.scratch.write("on-initialize", silence);
        setup.kill(1);
        let queued = setup.client.send_request("pid", &json!({}));
        let answer = setup.client.answer_to(queued);
        if is_given_up {
            assert_own_error(&answer, 503, "replay_timeout");
            assert_eq!(answer["error"]["data"]["delivered"], false);
            assert_eq!(setup.scratch.servers().len(), 2);
        } else {
            result_of(answer);
            let sent = [&HANDSHAKE[..], &["pid"]].concat();
            setup.expect_server(3, &sent);
        }
        let second = setup.scratch.servers()[1];
        assert!(!processes::process_exists(second), "it was stopped");
    };
    thread::scope(|scope| {
        for (max_restarts, is_given_up) in [("2", false), ("1", true)] {
            scope.spawn(move || attempt(max_restarts, is_given_up));
        }
    });
}

/// What came while it was stopped is read before the clock says that nothing came.
#[test]
fn a_pause_of_the_proxy_is_no_delay_of_the_server() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let mut setup = Setup::initialized(&["--replay-timeout", "5"]);
    let commands = format!("{WAIT_TO_GO}; initialized; echo >> \"$dir/answered\"");
    setup.scratch.write("on-initialize", &commands);
    setup.kill(1);
    let queued = setup.client.send_request("pid", &json!({}));
    let second = setup.scratch.wait_for_server(2);
    setup.scratch.wait_for_lines(second, 1);
    processes::stop_asleep(setup.proxy.pid());
    let stopped = Instant::now();
    setup.scratch.write("go", "");
    let answered = setup.scratch.file("answered");
    eventually("the answer of the server", DEADLINE, || answered.exists());
    // Until the time for it is over.
    thread::sleep((TIMEOUT + TIMEOUT / 10).saturating_sub(stopped.elapsed()));
    setup.proxy.signal(Signal::SIGCONT);
    result_of(setup.client.answer_to(queued));
    let sent = [&HANDSHAKE[..], &["pid"]].concat();
    setup.expect_server(2, &sent);
}

#[test]
fn the_same_capabilities_may_be_written_otherwise() {
    let mut setup = Setup::initialized(&[]);
    let same = r#" "result" : {"capabilities": { "tools" : {} }, "serverInfo": {"name": "newer"}, "protocolVersion":"2025-06-\u0031\u0038"}"#;
    setup
        .scratch
        .write("on-initialize", &format!("{}; strict=", answer_with(same)));
    setup.scratch.write("go", "");
    setup.kill(1);
    setup.expect_server(2, &HANDSHAKE);
}

// Sessions without a replay.

#[test]
fn a_modern_session_is_not_replayed_to() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    result_of(client.request("server/discover", &json!({})));
    processes::kill_and_wait(client.pid_of_server());
    let server = client.pid_of_server();
    assert_eq!(scratch.methods(server), ["pid"]);
}

#[test]
fn a_handshake_too_large_to_be_recorded_is_not_replayed() {
    let mut setup = Setup::new(&[]);
    let params = json!({"protocolVersion": LEGACY_VERSION, "padding": "x".repeat(64 * 1024)});
    result_of(setup.client.request("initialize", &params));
    let line = setup.proxy.wait_for_log("will not be replayed");
    assert!(line.contains("WARN"), "{line}");
    setup.client.notify(HANDSHAKE[1], &json!({}));
    setup.client.pid_of_server();
    setup.kill(1);
    // The server says what it says to strangers.
    let answer = setup.client.request("pid", &json!({}));
    assert_eq!(answer["error"]["code"], -32002, "{answer}");
    assert_eq!(setup.methods(2), ["pid"]);
}

#[test]
fn a_handshake_of_almost_that_size_is_replayed() {
    let mut setup = Setup::new(&[]);
    let params = json!({"protocolVersion": LEGACY_VERSION, "padding": "x".repeat(63 * 1024)});
    result_of(setup.client.request("initialize", &params));
    setup.kill(1);
    setup.expect_server(2, &HANDSHAKE[..1]);
}

#[test]
fn a_refused_initialize_is_no_handshake() {
    let mut setup = Setup::new(&[]);
    setup.scratch.write(
        "on-initialize",
        &answer_with(r#""error":{"code":1,"message":"no"}"#),
    );
    setup.scratch.write("go", "");
    assert_eq!(
        setup.client.request("initialize", &json!({}))["error"]["code"],
        1
    );
    setup.kill(1);
    assert_eq!(
        setup.client.request("pid", &json!({}))["error"]["code"],
        -32002
    );
    assert_eq!(setup.methods(2), ["pid"]);
}

// The built-in demo server, which is as strict.

#[test]
fn the_demo_server_is_used_on_without_a_new_handshake() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut client = proxy.connect();
    client.initialize();
    let sum = |client: &mut Client| client.call_tool("add", &json!({"a": 2, "b": 40}));
    assert_eq!(sum(&mut client)["content"][0]["text"], "42");
    let server = proxy.only_server();
    processes::kill_and_wait(server);
    assert_eq!(sum(&mut client)["content"][0]["text"], "42");
    assert_ne!(proxy.only_server(), server);
}
