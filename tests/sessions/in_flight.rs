//! Which requests wait for an answer: all that a server had been sent and had neither answered nor seen taken back when
//! it died are answered by the proxy, and no others.

use crate::common::client::assert_own_error;
use crate::common::{Client, Proxy, Scratch, processes, servers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// As many requests of one session may wait.
const MAX_IN_FLIGHT: usize = 1024;

/// Dropped from the top: the client leaves first, so that nobody waits for it.
struct Setup {
    client: Client,
    proxy: Proxy,
    scratch: Scratch,
}

impl Setup {
    fn new() -> Self {
        let scratch = Scratch::new();
        let proxy = Proxy::start(&[], &servers::scripted(&scratch));
        let client = proxy.connect();
        Self {
            client,
            proxy,
            scratch,
        }
    }

    /// Sends lines that the server reads and does not answer.
    fn send_all(&mut self, lines: &[&str]) {
        for line in lines {
            self.client.send_line(line);
        }
    }

    /// Has the server die. Returns the ids, as written, of the answers that this leads to, without that of the request
    /// for its death, which is the last one.
    #[track_caller]
    fn ids_failed_by_death(&mut self) -> Vec<String> {
        self.client.send_line(
            r#"{"jsonrpc":"2.0","id":"the end","method":"sh","params":{"code":"exit 3"}}"#,
        );
        let mut ids = Vec::new();
        loop {
            let line = self.client.recv_line();
            let error: Value = serde_json::from_str(&line).unwrap();
            assert_own_error(&error, 502, "process_terminated");
            assert_eq!(error["error"]["data"]["status"], "exit code 3");
            if error["id"] == "the end" {
                return ids;
            }
            // Errors of the proxy have the id where everyone writes it: second.
            let written = line.strip_prefix(r#"{"jsonrpc":"2.0","id":"#).unwrap();
            ids.push(written.split_once(r#","error":"#).unwrap().0.to_owned());
        }
    }
}

/// A request that the server does not answer; `id` is JSON text.
fn request(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"unanswered"}}"#)
}

fn cancellation(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    )
}

#[test]
fn ids_are_echoed_as_written() {
    let ids = [
        "7",
        "1.50",
        "1e2",
        "-0",
        r#""é""#,
        r#""\u00e9x""#,
        r#""a\/b""#,
        r#""1.50""#,
        r#""""#,
    ];
    let mut setup = Setup::new();
    for id in ids {
        setup.client.send_line(&request(id));
    }
    assert_eq!(setup.ids_failed_by_death(), ids);
}

#[test]
fn answers_are_matched_by_value() {
    let mut setup = Setup::new();
    let ids = [
        "1.50",
        "1e2",
        r#""é""#,
        r#""\u00fc""#,
        r#""a\/b""#,
        "12",
        r#""12""#,
        r#""13""#,
        "13",
    ];
    for id in ids {
        setup.client.send_line(&request(id));
    }
    let answers = [
        "1.5",
        "100",
        r#""\u00e9""#,
        r#""ü""#,
        r#""a/b""#,
        r#""12""#,
        "13",
    ];
    let code: Vec<String> = answers.iter().map(|id| format!("reply '{id}'")).collect();
    setup
        .client
        .send_code(&format!("{}; answer", code.join("; ")));
    for answer in answers {
        let expected: Value = serde_json::from_str(answer).unwrap();
        assert_eq!(setup.client.recv_json()["id"], expected);
    }
    setup.client.recv_line();
    assert_eq!(setup.ids_failed_by_death(), ["12", r#""13""#]);
}

#[test]
fn requests_in_batches_wait_one_by_one() {
    let mut setup = Setup::new();
    let notification = r#"{"jsonrpc":"2.0","method":"n"}"#;
    let batch = [
        request("11"),
        notification.to_owned(),
        request("12"),
        request("13"),
        request("14"),
        request("15"),
    ];
    setup.client.send_line(&format!("[{}]", batch.join(", ")));
    // One is answered alone, two in a batch.
    let answers = r#"[{"jsonrpc":"2.0","id":14,"result":{}},{"jsonrpc":"2.0","id":11,"error":{"code":1,"message":""}}]"#;
    setup
        .client
        .send_code(&format!("reply 13; say '{answers}'; answer"));
    setup.client.recv_line();
    assert_eq!(setup.client.recv_line(), answers);
    setup.client.recv_line();
    assert_eq!(setup.ids_failed_by_death(), ["12", "15"]);
}

#[test]
fn the_client_takes_requests_back() {
    let mut setup = Setup::new();
    setup.send_all(&[
        &request("1"),
        &request("2"),
        &request("3.0"),
        &request(r#""é""#),
    ]);
    setup.send_all(&[
        &cancellation("2"),
        &cancellation("3"),
        &cancellation(r#""\u00e9""#),
    ]);
    setup.send_all(&[&cancellation("null"), &cancellation(r#""1""#)]);
    assert_eq!(setup.ids_failed_by_death(), ["1"]);
}

#[test]
fn a_batch_takes_requests_back_too() {
    let mut setup = Setup::new();
    setup.send_all(&[&request("1"), &request("2")]);
    setup.send_all(&[&format!(
        "[{}, {}, {}, {}]",
        cancellation("1"),
        request("3"),
        request("4"),
        cancellation("3")
    )]);
    setup.send_all(&[&format!("[{}]", cancellation("4"))]);
    assert_eq!(setup.ids_failed_by_death(), ["2"]);
}

#[test]
fn a_request_taken_back_and_answered_all_the_same_is_forwarded() {
    let mut setup = Setup::new();
    setup.send_all(&[&request("11"), &cancellation("11")]);
    setup.client.send_code("reply 11; answer");
    assert_eq!(setup.client.recv_json()["id"], 11);
    setup.client.recv_line();
    assert_eq!(setup.ids_failed_by_death(), [""; 0]);
}

#[test]
fn the_server_takes_none_of_the_clients_requests_back() {
    let mut setup = Setup::new();
    setup.send_all(&[&request("11"), &request("12"), &request("13")]);
    setup.client.send_code("cancel 12; answer");
    assert_eq!(setup.client.recv_json()["params"]["requestId"], 12);
    setup.client.recv_line();
    assert_eq!(setup.ids_failed_by_death(), ["11", "12", "13"]);
}

#[test]
fn a_server_that_takes_its_own_request_back_means_that_one() {
    let mut setup = Setup::new();
    setup.send_all(&[&request("11")]);
    setup.client.send_code("ask 11; cancel 11; answer");
    for _ in 0..3 {
        setup.client.recv_line();
    }
    assert_eq!(setup.ids_failed_by_death(), ["11"]);
}

#[test]
fn a_request_of_the_server_with_the_same_id_answers_nothing() {
    let mut setup = Setup::new();
    setup.send_all(&[&request("11"), &request("12")]);
    setup.client.send_code("ask 11; answer");
    assert_eq!(setup.client.recv_json()["method"], "roots/list");
    setup.client.recv_line();
    // Neither does the client's answer to it, which is forwarded.
    setup
        .client
        .send_line(r#"{"jsonrpc":"2.0","id":11,"result":{"roots":[]}}"#);
    assert_eq!(setup.ids_failed_by_death(), ["11", "12"]);
    let server = setup.scratch.servers()[0];
    let expected = ["unanswered", "unanswered", "sh", "answer 11", "sh"];
    assert_eq!(setup.scratch.methods(server), expected);
}

#[test]
fn of_two_with_one_id_each_needs_an_answer() {
    let mut setup = Setup::new();
    setup.send_all(&[
        &request("11"),
        &request("12"),
        &request("11.0"),
        &request("12"),
    ]);
    setup
        .client
        .send_code("reply 11; reply 12; reply 12; reply 12; answer");
    let ids: Vec<Value> = (0..5)
        .map(|_| setup.client.recv_json()["id"].take())
        .collect();
    assert_eq!(ids[..4], [json!(11), json!(12), json!(12), json!(12)]);
    // The first answer was for the first one.
    assert_eq!(setup.ids_failed_by_death(), ["11.0"]);
    let server = setup.scratch.servers()[0];
    assert_eq!(setup.scratch.methods(server).len(), 6, "all were forwarded");
}

#[test]
fn messages_that_are_no_requests_are_not_answered() {
    let mut setup = Setup::new();
    setup.send_all(&[
        r#"{"jsonrpc":"2.0","method":"n"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"n"}"#,
        r#"{"jsonrpc":"2.0","id":4,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":"no"}}"#,
        r#"{"id":6}"#,
        r#"[{"id":7},1,null,{"method":"n"}]"#,
    ]);
    assert_eq!(setup.ids_failed_by_death(), [""; 0]);
    let server = setup.scratch.servers()[0];
    assert_eq!(setup.scratch.got(server).len(), 7, "all were forwarded");
}

#[test]
fn the_number_of_unanswered_requests_is_limited() {
    let mut setup = Setup::new();
    let all_but_one: Vec<String> = (1..MAX_IN_FLIGHT)
        .map(|id| request(&id.to_string()))
        .collect();
    setup
        .client
        .send_raw((all_but_one.join("\n") + "\n").as_bytes());
    // A batch that would pass the limit is refused as a whole.
    setup.send_all(&[&format!("[{},{}]", request(r#""a""#), request(r#""b""#))]);
    for id in ["a", "b"] {
        assert_eq!(setup.client.recv_error(429, "in_flight_limit").0, id);
    }
    // What needs no answer passes, and so does the last request that there is room for.
    setup.send_all(&[
        r#"{"jsonrpc":"2.0","method":"n"}"#,
        &request(r#""last""#),
        &request(r#""c""#),
    ]);
    assert_eq!(setup.client.recv_error(429, "in_flight_limit").0, "c");

    let server = setup.scratch.wait_for_server(1);
    let got = setup.scratch.wait_for_lines(server, MAX_IN_FLIGHT + 1);
    assert_eq!(got[MAX_IN_FLIGHT], request(r#""last""#));
    // One that is taken back makes room for another.
    setup.send_all(&[&cancellation("1")]);
    setup.scratch.wait_for_lines(server, MAX_IN_FLIGHT + 2);
    setup.send_all(&[&request(r#""more""#)]);
    setup.scratch.wait_for_lines(server, MAX_IN_FLIGHT + 3);
    processes::send_signal(server, Signal::SIGKILL);
    let mut failed: Vec<Value> = (2..MAX_IN_FLIGHT).map(|id| json!(id)).collect();
    failed.extend([json!("last"), json!("more")]);
    for id in failed {
        assert_eq!(setup.client.recv_error(502, "process_terminated").0, id);
    }
    let pid = setup.client.pid_of_server();
    assert_eq!(setup.scratch.methods(pid), ["pid"]);
    assert_eq!(setup.proxy.servers(), [pid]);
}
