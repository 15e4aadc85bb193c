//! When new sessions are welcome, and why they are not.

use std::fs;

use crate::common::{DEADLINE, TempFolder, eventually, servers, write_program};
use crate::{get, start};

#[test]
fn a_proxy_with_room_is_ready() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    for target in ["/readyz", "/readyz?server=default"] {
        let answer = get(asked, target);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    }
}

#[test]
fn at_the_limit_of_sessions_it_is_not() {
    let (proxy, asked) = start(&["--max-sessions", "1"], &servers::mirror());
    assert_eq!(get(asked, "/readyz").status, 200);
    let client = proxy.connect();
    eventually("the session to be counted", DEADLINE, || {
        get(asked, "/readyz").status == 503
    });
    let body = get(asked, "/readyz").body;
    assert!(
        body.starts_with("not ready\nsession_limit: there is 1 session already"),
        "{body}"
    );
    assert_eq!(get(asked, "/healthz").status, 200);
    client.close();
    eventually("the room to be free again", DEADLINE, || {
        get(asked, "/readyz").status == 200
    });
}

#[test]
fn a_server_that_can_not_be_started_is_named_until_one_can() {
    let folder = TempFolder::new();
    let program = folder.path().join("server");
    let write = || {
        write_program(&program, "#!/bin/sh\nexec cat\n", 0o755);
    };
    write();
    let (proxy, asked) = start(&["--no-auto-restart"], &[program.display().to_string()]);
    fs::remove_file(&program).unwrap();
    proxy.connect().read_to_end();
    let answer = get(asked, "/readyz");
    // After a while it counts as one that may be started again.
    if answer.status == 503 {
        assert!(
            answer
                .body
                .starts_with("not ready\nserver default: spawn_failed: "),
            "{}",
            answer.body
        );
    }
    let metrics = get(asked, "/metrics");
    let failed = r#"mcp_tcp_proxy_server_exits_total{server="default",how="start_failed"}"#;
    assert!(metrics.count(failed) >= 1);
    write();
    let mut client = proxy.connect();
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
    assert_eq!(get(asked, "/readyz").body, "ready\n");
}
