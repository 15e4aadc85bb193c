//! `mcp-tcp-proxy status`.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use crate::common::proxy::command_under_test;
use crate::common::servers;
use crate::{get, start};

fn run(words: &[&str], variable: Option<&str>) -> (Option<i32>, String, String) {
    let mut command = command_under_test();
    command
        .arg("status")
        .args(words)
        .env_remove("MCP_TCP_PROXY_STATUS");
    command.envs(variable.map(|value| ("MCP_TCP_PROXY_STATUS", value)));
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn it_prints_a_table_and_says_by_its_exit_code_whether_the_proxy_is_ready() {
    let (proxy, asked) = start(&["--max-sessions", "1"], &servers::mirror());
    let address = asked.to_string();
    let (code, stdout, _) = run(&[&address], None);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(
        stdout.contains("serving, up ") && stdout.contains("SERVER"),
        "{stdout}"
    );
    let mut client = proxy.connect();
    client.send_line("[1]");
    client.recv_line();
    assert_eq!(get(asked, "/readyz").status, 503);
    let (code, stdout, _) = run(&[], Some(&address));
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("not ready: there is 1 session"), "{stdout}");
    assert!(
        stdout.contains(&client.local_address().to_string()),
        "{stdout}"
    );
}

#[test]
fn without_an_answer_it_says_so_in_a_line() {
    let assert_no_answer = |address: String| {
        let (code, stdout, stderr) = run(&[&address], None);
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        let expected = format!("mcp-tcp-proxy: no answer from {address}: ");
        assert!(stderr.starts_with(&expected), "{stderr}");
    };
    let (proxy, asked) = start(&[], &servers::mirror());
    // The port for clients is not the one for questions.
    assert_no_answer(proxy.address().to_string());
    drop(proxy);
    assert_no_answer(asked.to_string());
    let (code, _, stderr) = run(&[], Some("nowhere"));
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("MCP_TCP_PROXY_STATUS: 'nowhere'"),
        "{stderr}"
    );
}

#[test]
fn watching_goes_on() {
    let (_proxy, asked) = start(&[], &servers::mirror());
    let mut command = command_under_test();
    command.args(["status", "--watch", &asked.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let beginnings = lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("mcp-tcp-proxy "))
        .take(2);
    assert_eq!(beginnings.count(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
}
