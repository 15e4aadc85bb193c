//! What can be measured: servers on TCP, on unix sockets and on stdio, of both eras.

use crate::common::{Proxy, TempFolder, servers};
use crate::{assert_all_well, report_of};

#[test]
fn a_proxy_on_tcp_is_measured() {
    let proxy = Proxy::start(&[], &servers::demo());
    let address = proxy.address().to_string();
    let report = report_of(&["--sessions", "3", "--in-flight", "4", &address]);
    assert_all_well(&report);
    assert_eq!(report["target"], address);
    assert_eq!(report["sessions"], 3);
    assert_eq!(report["open"]["sessions"], 3);
    assert!(report["open"]["first_response_us"]["p50"].as_f64() > Some(0.0));
    // The demo server speaks both.
    assert_eq!(report["era"], "modern");
}

#[test]
fn a_unix_socket_is_measured() {
    let folder = TempFolder::for_sockets();
    let target = format!("unix:{}", folder.path().join("s").display());
    let _proxy = Proxy::start_listening(&["--listen", &target], &servers::demo(), |_| {});
    let report = report_of(&["--era", "legacy", &target]);
    assert_all_well(&report);
    assert_eq!(
        (&report["target"], &report["era"]),
        (&target.into(), &"legacy".into())
    );
}

#[test]
fn a_server_on_stdio_is_measured_without_a_proxy() {
    let [program, argument] = &servers::demo()[..] else {
        unreachable!("the demo server is a program with an argument");
    };
    for arguments in [
        &["--sessions", "2", "--", program.as_str(), argument][..],
        &["--sessions", "2", &format!("exec:'{program}' {argument}")],
    ] {
        let report = report_of(arguments);
        assert_all_well(&report);
        assert_eq!(report["target"], format!("exec:{program} {argument}"));
        assert_eq!(report["open"]["sessions"], 2);
    }
}

#[test]
fn a_legacy_server_is_found_to_be_one() {
    let target = crate::fake::start(|_, request| {
        assert_eq!(request["method"], "ping");
        Some(crate::fake::good(&request["id"]))
    });
    let report = report_of(&[&target]);
    assert_all_well(&report);
    assert_eq!(report["era"], "legacy");
}

#[test]
fn tools_methods_and_messages_of_a_file_are_sent() {
    let folder = TempFolder::new();
    let file = folder.path().join("messages");
    std::fs::write(
        &file,
        "{\"method\":\"a\",\"params\":{\"x\":1}}\n\n{\"id\":5,\"method\":\"b\"}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (arguments, expected) in [
        (
            &["--tool", "echo", "--payload", "5"][..],
            r#"tools/call {"arguments":{"text":"xxxxx"},"name":"echo"}"#,
        ),
        (
            &["--tool", "echo", "--arguments", r#"{"a":{"b":[1]}}"#],
            r#"tools/call {"arguments":{"a":{"b":[1]}},"name":"echo"}"#,
        ),
        (
            &["--method", "m", "--params", r#"{"p":"q"}"#],
            r#"m {"p":"q"}"#,
        ),
        (&["--message", file], r#"a {"x":1}"#),
    ] {
        let target = crate::fake::start(move |number, request| {
            let text = format!(
                "{} {}",
                request["method"].as_str().unwrap(),
                request["params"]
            );
            let is_expected = if number % 2 == 0 && expected.starts_with('a') {
                text == "b null"
            } else {
                text == expected
            };
            Some(if is_expected {
                crate::fake::good(&request["id"])
            } else {
                crate::fake::failure(&request["id"], 1)
            })
        });
        assert_all_well(&report_of(&[arguments, &[&target]].concat()));
    }
}

#[test]
fn hundreds_of_sessions_share_a_server() {
    let proxy = Proxy::start(&["--share", "1"], &servers::demo());
    let report = report_of(&[
        "--sessions",
        "400",
        "--requests",
        "1200",
        &proxy.address().to_string(),
    ]);
    assert_eq!(report["requests"], 1200, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["open"]["sessions"], 400);
}

#[test]
fn no_process_is_left_behind() {
    let folder = TempFolder::new();
    let pids = folder.path().join("pids");
    let script = format!(
        "echo $$ >> {}; sleep 1000 & exec {}",
        pids.display(),
        servers::demo().join(" ")
    );
    report_of(&["--sessions", "2", "--", "/bin/sh", "-c", &script]);
    let pids = std::fs::read_to_string(pids).unwrap();
    // One to find out the era, and two that are measured.
    assert_eq!(pids.lines().count(), 3);
    for pid in pids.lines() {
        let pid: i32 = pid.parse().unwrap();
        let group = crate::common::processes::Process::find(pid);
        assert!(group.is_none(), "{pid}");
    }
}
