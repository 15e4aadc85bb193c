//! Closed and open loop, a session for each request, and the end by a signal.

use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::{Proxy, processes, servers};
use crate::fake::{good, start};
use crate::{Ended, assert_all_well, command, report_of};

#[test]
fn a_schedule_is_kept_whatever_becomes_of_earlier_requests() {
    // It stands still once, long enough for half of all requests to be due meanwhile.
    let target = start(|number, request| {
        if number == 20 {
            thread::sleep(Duration::from_millis(500));
        }
        Some(good(&request["id"]))
    });
    let report = report_of(&[
        "--rate",
        "200",
        "--sessions",
        "2",
        "--era",
        "legacy",
        &target,
    ]);
    assert_all_well(&report);
    let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
    // Requests were due each 5 ms: a fifth of all waited for longer than 200 ms, whatever else was going on.
    assert!(latency("max") >= 490_000.0, "{report}");
    assert!(latency("p90") >= 200_000.0, "{report}");
    assert!(report["lag_us"]["max"].as_f64().is_some(), "{report}");
}

#[test]
fn without_a_schedule_only_one_request_waits_for_a_stall() {
    let mut longest_open = 0;
    let target = start(move |number, request| {
        longest_open = longest_open.max(number);
        if number == 20 {
            thread::sleep(Duration::from_millis(500));
        }
        Some(good(&request["id"]))
    });
    let report = report_of(&["--era", "legacy", &target]);
    assert_all_well(&report);
    assert!(
        report["latency_us"]["max"].as_f64() >= Some(490_000.0),
        "{report}"
    );
    assert!(report["lag_us"].is_null(), "{report}");
}

#[test]
fn with_churn_each_request_has_a_session_of_its_own() {
    let proxy = Proxy::start(&[], &servers::demo());
    let target = proxy.address().to_string();
    for pace in [
        &["--sessions", "3"][..],
        &["--sessions", "3", "--rate", "100"],
    ] {
        let arguments = [&["--churn", "--requests", "30"], pace, &[&target]].concat();
        let report = report_of(&arguments);
        assert_eq!(report["requests"], 30, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
        assert!(report["open"]["sessions"].as_u64() >= Some(30), "{report}");
    }
}

#[test]
fn the_time_ends_a_run() {
    let target = start(|_, request| Some(good(&request["id"])));
    let ended = crate::run(&["--json", "--warm-up", "0.05", "--duration", "0.2", &target]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert_eq!(report["seconds"], 0.2, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
}

#[test]
fn a_signal_ends_a_run_and_what_there_is_is_printed() {
    let (sender, started) = std::sync::mpsc::channel();
    let target = start(move |number, request| {
        if number == 50 {
            sender.send(()).unwrap();
        }
        Some(good(&request["id"]))
    });
    let mut child = command(&["--json", "--warm-up", "0", "--duration", "1000", &target])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    started.recv().unwrap();
    processes::send_signal(child.id().cast_signed(), Signal::SIGINT);
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    let ended = Ended {
        code: child.wait().unwrap().code(),
        stdout,
        stderr: String::new(),
    };
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert!(report["requests"].as_u64() >= Some(49), "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
}
