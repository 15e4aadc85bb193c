//! Servers that do wrong: each wrong is counted as what it is, and none of it is a sample.

use serde_json::{Value, json};

use crate::common::connect::Reserved;
use crate::fake::{Answer, failure, good, start};
use crate::{Ended, run};

/// 100 requests to a server that does something wrong with every tenth of them, one after the other in one session.
fn run_against(mut wrong: impl FnMut(&Value) -> Answer + Send + 'static) -> Ended {
    let target = start(move |number, request| {
        if number % 10 == 5 {
            wrong(&request["id"])
        } else {
            Some(good(&request["id"]))
        }
    });
    run_on(&target, &[])
}

fn run_on(target: &str, arguments: &[&str]) -> Ended {
    let all = [
        "--json",
        "--warm-up",
        "0",
        "--era",
        "legacy",
        "--requests",
        "100",
        target,
    ];
    run(&[arguments, &all].concat())
}

#[track_caller]
fn assert_counted(ended: &Ended, errors: &Value) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = ended.json();
    assert_eq!(&report["errors"], errors, "{report}");
    assert_eq!(report["requests"], 100, "{report}");
}

#[test]
fn an_error_is_counted_by_its_code() {
    let ended = run_against(|id| Some(failure(id, -32000)));
    assert_counted(&ended, &json!({"-32000": 10}));
}

#[test]
fn an_error_of_a_proxy_is_counted_by_its_reason() {
    let ended = run_against(|id| {
        Some(format!(
            "{}\n",
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": 502, "message": "gone",
                "data": {"source": "mcp-tcp-proxy", "reason": "process_terminated"}}})
        ))
    });
    assert_counted(&ended, &json!({"502 process_terminated": 10}));
}

#[test]
fn a_second_response_is_not_a_sample() {
    let ended = run_against(|id| Some(good(id).repeat(2)));
    assert_counted(&ended, &json!({"answered_twice": 10}));
}

#[test]
fn a_response_to_nothing_is_counted_beside_the_right_one() {
    let ended = run_against(|id| Some(good(&json!(1_000_000)) + &good(&json!("x")) + &good(id)));
    assert_counted(&ended, &json!({"unknown_id": 20}));
}

#[test]
fn a_line_that_is_no_message_is_counted_beside_the_right_one() {
    for line in [
        "not JSON\n",
        "[]\n",
        "7\n",
        "{\"id\":1,\"result\":{}}\n",
        "\u{0}\n",
    ] {
        let ended = run_against(move |id| Some(line.to_owned() + &good(id)));
        assert_counted(&ended, &json!({"malformed": 10}));
    }
}

#[test]
fn a_response_that_says_nothing_is_malformed() {
    let ended = run_against(|id| Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id}}}\n")));
    assert_counted(&ended, &json!({"malformed": 10}));
}

#[test]
fn a_response_that_does_not_come_is_a_timeout_and_one_that_comes_then_is_late() {
    let target = start(|number, request| {
        Some(match number {
            5 => String::new(),
            6 => good(&json!(5)) + &good(&request["id"]),
            _ => good(&request["id"]),
        })
    });
    let ended = run_on(&target, &["--timeout", "6"]);
    assert_counted(&ended, &json!({"timeout": 1, "late": 1}));
}

#[test]
fn a_session_that_ends_is_opened_again() {
    let ended = run_against(|_| None);
    assert_counted(&ended, &json!({"session_ended": 10}));
    assert_eq!(ended.json()["open"]["sessions"], 11);
}

#[test]
fn a_session_that_ends_again_and_again_ends_the_run() {
    let target = start(|_, _| None);
    let ended = run(&["--era", "legacy", "--warm-up", "0", &target]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("the connection was closed (after 11 attempts)"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("11 session_ended"), "{ended:?}");
}

#[test]
fn the_failure_of_a_tool_is_counted() {
    let target = start(|number, request| {
        let failed = number % 2 == 0;
        let result = json!({"content": [], "isError": failed});
        Some(format!(
            "{}\n",
            json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
        ))
    });
    let ended = run(&[
        "--json",
        "--warm-up",
        "0",
        "--requests",
        "100",
        "--tool",
        "t",
        &target,
    ]);
    assert_counted(&ended, &json!({"tool_error": 50}));
}

#[test]
fn a_server_that_asks_and_tells_is_answered_and_not_counted() {
    let target = start(|number, request| {
        let line = match request["method"].as_str() {
            Some(_) => good(&request["id"]),
            // The answer to a question.
            None => return Some(String::new()),
        };
        let asks = "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n";
        let tells = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n";
        Some(if number % 2 == 0 {
            format!("{asks}{tells}{line}")
        } else {
            line
        })
    });
    crate::assert_all_well(&crate::report_of(&[&target]));
}

#[test]
fn without_a_server_there_is_nothing_to_measure() {
    let nobody = Reserved::new();
    let ended = run(&["--era", "legacy", &nobody.address().to_string()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended
            .stderr
            .contains("can't be connected to: Connection refused"),
        "{ended:?}"
    );

    let ended = run(&["--era", "legacy", "unix:/no/such/socket"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("unix:/no/such/socket: no proxy listens there"),
        "{ended:?}"
    );

    let ended = run(&["--", "/no/such/program"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended.stderr.contains("/no/such/program can't be run: "),
        "{ended:?}"
    );

    let ended = run(&[
        "--era",
        "legacy",
        "--",
        "/bin/sh",
        "-c",
        "echo no luck >&2; exit 3",
    ]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("the server ended; it said: no luck"),
        "{ended:?}"
    );
}

#[test]
fn a_server_may_refuse_a_session() {
    let script = r#"read -r line; echo '{"jsonrpc":"2.0","id":0,"error":{"code":-1,"message":"go away"}}'; cat >/dev/null"#;
    let ended = run(&["--era", "legacy", "--", "/bin/sh", "-c", script]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains(r#"the session was refused: {"code":-1,"message":"go away"}"#),
        "{ended:?}"
    );
}
