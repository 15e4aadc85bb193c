//! Tokens: who has one comes in, who has none is told so, and files are read again.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::unistd::ttyname;
use serde_json::{Value, json};

use crate::common::proxy::command_under_test;
use crate::common::{Client, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::{refused, telling};

pub(crate) const TOKEN: &str = "mtp_0123456789abcdef";

/// The first line of whoever has this token.
pub(crate) fn handshake(token: &str) -> String {
    format!(r#"{{"type":"handshake","token":"{token}"}}"#)
}

/// A token file.
pub(crate) struct Tokens(TempFolder);

impl Tokens {
    pub(crate) fn new(text: &str) -> Self {
        let tokens = Self(TempFolder::new());
        tokens.write(text);
        tokens
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().join("tokens").to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
        self.set_mode(0o640);
    }

    pub(crate) fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).unwrap();
    }
}

/// Of Ann.
pub(crate) fn anns() -> Tokens {
    Tokens::new(&format!("ann {TOKEN}\n"))
}

fn start(tokens: &Tokens, options: &[&str]) -> Proxy {
    let path = tokens.path();
    let options = [&["--token-file", &path], options].concat();
    Proxy::start(&options, &servers::echo())
}

/// A client that has come in.
#[track_caller]
pub(crate) fn admitted(proxy: &Proxy, token: &str) -> Client {
    let mut client = proxy.connect();
    client.send_line(&handshake(token));
    assert_eq!(
        client.request("ping", &json!({}))["result"]["echo"]["method"],
        "ping"
    );
    client
}

/// What somebody is told who says this first; then the connection ends.
#[track_caller]
pub(crate) fn told(proxy: &Proxy, text: &str) -> Value {
    let mut client = proxy.connect();
    client.send_raw(text.as_bytes());
    let lines = client.read_to_end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).unwrap()
}

#[test]
fn a_right_token_lets_in_and_the_first_line_is_the_handshake() {
    let tokens = anns();
    let proxy = start(&tokens, &["--heartbeat-interval", "0.05", "--debug"]);
    let mut client = proxy.connect();
    let all = format!("{}\n{}\n", handshake(TOKEN), r#"{"id":1,"method":"first"}"#);
    client.send_raw(all.as_bytes());
    assert_eq!(client.answer_to(1)["result"]["echo"]["method"], "first");
    while client.recv_json()["type"] != "heartbeat_response" {}
    proxy.wait_for_log("let in as token:ann");
    let log = proxy.log().join("\n");
    assert!(
        log.contains("a line with a token"),
        "--debug says that it came"
    );
    assert!(!log.contains("0123456789abcdef"), "{log}");
}

#[test]
fn servers_are_told_the_name_of_their_client() {
    let tokens = anns();
    let options = ["--token-file", &tokens.path()];
    let proxy = Proxy::start(&options, &telling(&["MCP_CLIENT", "TCPREMOTEIP"]));
    let mut client = proxy.connect();
    client.send_line(&handshake(TOKEN));
    assert_eq!(client.recv_json(), json!(["ann", "127.0.0.1"]));
}

#[test]
fn whoever_has_no_token_gets_401_and_no_server_is_started() {
    let tokens = anns();
    let proxy = start(&tokens, &[]);
    for (line, id) in [
        (
            r#"{"jsonrpc":"2.0","id":"a","method":"initialize"}"#.to_owned(),
            json!("a"),
        ),
        (handshake("mtp_0123456789abcdeF"), Value::Null),
        ("nonsense".to_owned(), Value::Null),
    ] {
        let answer = told(&proxy, &format!("{line}\n{}\n", handshake(TOKEN)));
        assert_eq!(answer["error"]["code"], 401, "{answer}");
        assert_eq!(
            answer["error"]["data"],
            json!({"source": "mcp-tcp-proxy", "reason": "unauthorized"})
        );
        assert_eq!(answer["id"], id);
    }
    for reason in ["no token", "wrong token"] {
        proxy.wait_for_log(&format!(": unauthorized, {reason}"));
    }
    assert!(proxy.servers().is_empty() && !proxy.log().join("\n").contains("[session"));
    let _client = admitted(&proxy, TOKEN);
}

#[test]
fn refusals_wait_after_three_and_right_tokens_do_not() {
    let tokens = anns();
    let proxy = start(&tokens, &[]);
    let took = |line: &str| {
        let began = std::time::Instant::now();
        assert_eq!(told(&proxy, line)["error"]["code"], 401);
        began.elapsed().as_secs_f64()
    };
    for _ in 0..3 {
        took("x\n");
    }
    assert!(took("x\n") >= 1.0);
    let mut late = proxy.connect();
    late.send_line("x");
    proxy.wait_for_logs("unauthorized, no token", 5);
    let _client = admitted(&proxy, TOKEN);
}

#[test]
fn a_slow_first_line_is_answered_with_408() {
    let tokens = anns();
    let proxy = start(&tokens, &["--entrance-timeout", "3"]);
    let answer = told(&proxy, "{\"type\":");
    assert_eq!(answer["error"]["code"], 408);
    assert_eq!(answer["error"]["data"]["reason"], "entrance_timeout");
    proxy.wait_for_log(": entrance_timeout");
}

#[test]
fn an_oversized_first_line_is_no_token() {
    let tokens = anns();
    let proxy = start(&tokens, &[]);
    let long = format!(
        "{{\"type\":\"handshake\",\"x\":\"{}\",\"token\":\"{TOKEN}\"}}\n",
        "x".repeat(8192)
    );
    assert_eq!(told(&proxy, &long)["error"]["code"], 401);
}

#[test]
fn http_gets_its_constant_answer_and_nothing_of_it_is_served() {
    let tokens = anns();
    let proxy = start(&tokens, &[]);
    let mut client = proxy.connect();
    client.send_raw(format!("POST / HTTP/1.1\r\nHost: x\r\n\r\n{}\n", handshake(TOKEN)).as_bytes());
    let lines = client.read_to_end();
    assert!(lines[0].starts_with("HTTP/1.1 400 "), "{lines:?}");
    proxy.wait_for_log("the client speaks HTTP");
    assert!(proxy.servers().is_empty());
}

#[test]
fn a_token_for_another_server_is_forbidden_here() {
    let tokens = Tokens::new(&format!(
        "ann {TOKEN} weather\nben of-ben-alone-1234 default"
    ));
    let proxy = start(&tokens, &[]);
    let answer = told(&proxy, &format!("{}\n", handshake(TOKEN)));
    assert_eq!(answer["error"]["code"], 403);
    proxy.wait_for_log("it names servers that there are none of here: weather");
    let _client = admitted(&proxy, "of-ben-alone-1234");
}

#[test]
fn sessions_of_one_client_are_limited_by_name() {
    let tokens = Tokens::new(&format!("ann {TOKEN}\nben of-ben-alone-1234"));
    let proxy = start(&tokens, &["--max-sessions-per-client", "1"]);
    let first = admitted(&proxy, TOKEN);
    let answer = told(&proxy, &format!("{}\n", handshake(TOKEN)));
    assert_eq!(answer["error"]["code"], 503);
    assert_eq!(answer["error"]["data"]["reason"], "session_limit");
    proxy.wait_for_log("--max-sessions-per-client");
    let _ben = admitted(&proxy, "of-ben-alone-1234");
    drop(first);
    // Its place is free once its server is gone.
    eventually("another one to be served", DEADLINE, || {
        let mut again = proxy.connect();
        again.send_line(&handshake(TOKEN));
        again.send_line(r#"{"id":1,"method":"ping"}"#);
        again.recv_json()["result"].is_object()
    });
}

#[test]
fn a_file_that_others_can_read_is_refused_and_a_bad_line_is_named() {
    let tokens = anns();
    let path = tokens.path();
    tokens.set_mode(0o644);
    let error = refused(&["--token-file", &path], 1);
    assert!(
        error.contains(&path) && error.contains("chmod 640") && error.contains("defaultMode: 0440"),
        "{error}"
    );
    tokens.write("ann short");
    let error = refused(&["--token-file", &path], 1);
    assert!(
        error.contains("line 1") && !error.contains("short\n"),
        "{error}"
    );
}

#[test]
fn the_file_is_read_again_on_sighup_all_or_nothing() {
    let tokens = Tokens::new(&format!("ann {TOKEN}\nben of-ben-alone-1234"));
    let proxy = start(&tokens, &[]);
    let mut ann = admitted(&proxy, TOKEN);
    let mut ben = admitted(&proxy, "of-ben-alone-1234");
    tokens.write("ann x");
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_log("SIGHUP: nothing was changed");
    drop(admitted(&proxy, TOKEN));
    tokens.write("ben of-ben-alone-1234\nben another-one-of-ben");
    proxy.signal(Signal::SIGHUP);
    let lines = ann.read_to_end();
    assert!(
        lines.len() == 1 && lines[0].contains(r#""code":401"#),
        "{lines:?}"
    );
    proxy.wait_for_log("the client's token or certificate is not good any more");
    assert_eq!(
        told(&proxy, &format!("{}\n", handshake(TOKEN)))["error"]["code"],
        401
    );
    drop(admitted(&proxy, "another-one-of-ben"));
    assert!(ben.request("ping", &json!({}))["result"].is_object());
}

#[test]
fn without_files_sighup_ends_the_proxy() {
    let mut proxy = Proxy::start(&[], &servers::echo());
    proxy.signal(Signal::SIGHUP);
    assert!(proxy.wait_exit(crate::common::DEADLINE).success());
}

#[test]
fn a_fresh_token_is_good_under_the_line_that_is_printed_with_it() {
    let output = command_under_test()
        .args(["token", "ci@build"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let line = told
        .lines()
        .find(|line| line.starts_with("ci@build sha256:"));
    assert!(token.starts_with("mtp_") && token.lines().count() == 1);
    assert!(!told.contains(token.trim_end()));
    let tokens = Tokens::new(line.unwrap());
    let proxy = start(&tokens, &[]);
    let _client = admitted(&proxy, token.trim_end());
    let log = proxy.log().join("\n");
    assert!(log.contains("let in as token:ci@build") && !log.contains("in clear text"));
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut lost: Command = command_under_test();
    assert_eq!(
        lost.args(["token", "x"])
            .stdout(full)
            .status()
            .unwrap()
            .code(),
        Some(1)
    );
}

#[test]
fn warnings_say_what_is_likely_to_be_a_mistake() {
    let tokens = anns();
    let proxy = start(
        &tokens,
        &["--host", "0.0.0.0", "--proxy-protocol", "0.0.0.0/0"],
    );
    for text in [
        "1 token in clear text",
        "takes tokens in plain text",
        "--proxy-protocol 0.0.0.0/0: whoever connects can say to be anybody",
    ] {
        proxy.wait_for_log(text);
    }
    assert!(!proxy.log().join("\n").contains("can run this server"));
}

#[test]
fn whoever_comes_over_a_unix_socket_needs_a_token_unless_that_is_not_wanted() {
    let tokens = anns();
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("mcp.sock");
    let listen = format!("unix:{}", path.display());
    for is_exempt in [false, true] {
        let mut options = vec!["--listen", &listen];
        options.extend(is_exempt.then_some("--token-exempt-unix"));
        let proxy = start(&tokens, &options);
        let mut user = Client::connect_unix(&path);
        user.send_line(r#"{"id":1,"method":"x"}"#);
        let answer = user.recv_json();
        assert_eq!(answer["result"].is_object(), is_exempt, "{answer}");
        let mut member = Client::connect_unix(&path);
        member.send_line(&handshake(TOKEN));
        assert!(member.request("ping", &json!({}))["result"].is_object());
        assert_eq!(told(&proxy, "x\n")["error"]["code"], 401, "over TCP");
    }
}

#[test]
fn a_terminal_that_is_gone_ends_the_proxy_although_there_are_files() {
    let terminal = openpty(None, None).unwrap();
    let slave = ttyname(&terminal.slave).unwrap();
    let tokens = anns();
    let preamble = format!("exec <{}", slave.display());
    let path = tokens.path();
    let mut proxy = Proxy::start_after(&preamble, &["--token-file", &path], &servers::echo());
    proxy.signal(Signal::SIGHUP);
    assert!(proxy.wait_exit(crate::common::DEADLINE).success());
}
