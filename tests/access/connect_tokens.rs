//! `connect` with a token: it is shown first, to nobody who should not see it, and a refusal is final only at the start.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

use nix::unistd::geteuid;

use serde_json::{Value, json};

use crate::common::connect::{IN_HASTE, initialize_line, request};
use crate::common::{Connect, FakeServer, Proxy, TempFolder, servers};
use crate::tokens::{TOKEN, Tokens, anns};

/// A user that nobody is.
const USER: u32 = 54_321;

const REFUSED: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":401,"message":"no","data":{"source":"mcp-tcp-proxy","reason":"unauthorized"}}}"#;

/// A file with a token alone.
fn token_file() -> Tokens {
    Tokens::new(&format!("{TOKEN}\n"))
}

fn start(options: &[&str], token: &str, address: SocketAddr) -> Connect {
    let options = [&IN_HASTE[..], options].concat();
    Connect::start_configured(&options, address, |command| {
        command.env("MCP_TCP_PROXY_TOKEN", token);
    })
}

#[test]
fn the_token_is_shown_and_lets_in_from_a_file_and_from_the_environment() {
    let tokens = anns();
    let proxy = Proxy::start(&["--token-file", &tokens.path()], &servers::echo());
    let file = token_file();
    let with_file = ["--token-file", &file.path(), "--log-level", "debug"];
    let mut by_file = start(&with_file, "not-this-one-but-the-file", proxy.address());
    let mut by_environment = start(&[], TOKEN, proxy.address());
    for connect in [&mut by_file, &mut by_environment] {
        assert!(connect.request(1, "ping", &json!({}))["result"].is_object());
        connect.end_input();
        let log = connect.wait_exit(0).join("\n");
        assert!(!log.contains("0123456789abcdef"), "{log}");
    }
    assert!(!proxy.log().join("\n").contains("0123456789abcdef"));
}

#[test]
fn a_refusal_at_the_start_is_final_and_what_waits_is_answered() {
    let tokens = anns();
    let proxy = Proxy::start(&["--token-file", &tokens.path()], &servers::echo());
    for token in ["", "mtp_of_somebody_else"] {
        let mut connect = start(&[], token, proxy.address());
        connect.send_line(&initialize_line(0));
        assert_eq!(connect.recv_error(503, "access_denied").0, 0);
        let log = connect.wait_exit(1).join("\n");
        assert!(log.contains("unauthorized; --token-file"), "{log}");
    }
}

#[test]
fn a_refusal_after_a_good_connection_is_a_loss_like_any_other() {
    let server = FakeServer::start();
    let mut connect = start(&[], TOKEN, server.address());
    let mut peer = server.accept();
    let first: Value = serde_json::from_str(&peer.recv_line()).unwrap();
    assert_eq!(
        (&first["type"], &first["token"]),
        (&json!("handshake"), &json!(TOKEN))
    );
    connect.send_line(&request(1, "m", &json!({})));
    peer.recv_line();
    peer.send_line(r#"{"id":1,"result":{}}"#);
    assert_eq!(connect.recv_line(), r#"{"id":1,"result":{}}"#);
    peer.close();
    for _ in 0..3 {
        let mut peer = server.accept();
        peer.recv_line();
        peer.send_line(REFUSED);
        peer.close();
    }
    let mut peer = server.accept();
    peer.recv_line();
    connect.send_line(&request(2, "m", &json!({})));
    assert_eq!(peer.recv_json()["id"], 2);
    peer.send_line(r#"{"id":2,"result":{}}"#);
    assert_eq!(connect.recv_line(), r#"{"id":2,"result":{}}"#);
    assert_eq!(connect.count_logs("(unauthorized;"), 1, "it is logged once");
}

#[test]
fn a_servers_own_401_ends_nothing() {
    let server = FakeServer::start();
    let mut connect = start(&[], TOKEN, server.address());
    let mut peer = server.accept();
    peer.recv_line();
    let own = r#"{"jsonrpc":"2.0","id":null,"error":{"code":401,"message":"no","data":{"reason":"unauthorized"}}}"#;
    for line in [own, REFUSED] {
        peer.send_line(line);
        assert_eq!(
            connect.recv_line(),
            line,
            "the second is not the first line"
        );
    }
    connect.send_line(&request(1, "m", &json!({})));
    assert_eq!(peer.recv_json()["id"], 1);
}

#[test]
fn a_token_does_not_go_to_other_machines_in_plain_text() {
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let mut connect = start(&[], TOKEN, elsewhere);
    connect.send_line(&initialize_line(0));
    assert_eq!(connect.recv_error(503, "access_denied").0, 0);
    let log = connect.wait_exit(1).join("\n");
    assert!(
        log.contains("--insecure-token") && log.contains("192.0.2.1:9"),
        "{log}"
    );
}

#[test]
fn a_replaced_token_is_shown_at_the_next_connection() {
    let file = token_file();
    let server = FakeServer::start();
    let _connect = start(&["--token-file", &file.path()], "", server.address());
    let mut peer = server.accept();
    assert_eq!(peer.recv_json()["token"], TOKEN);
    file.write("mtp_the_next_one\n");
    peer.close();
    assert_eq!(server.accept().recv_json()["token"], "mtp_the_next_one");
}

#[test]
fn a_file_that_is_not_a_tokens_is_refused() {
    let server = FakeServer::start();
    let file = token_file();
    let path = file.path();
    let refused = |part: &str| {
        let mut connect = start(&["--token-file", &path], "", server.address());
        let log = connect.wait_exit(1).join("\n");
        assert!(log.contains(part) && !log.contains("0123456789"), "{log}");
    };
    file.set_mode(0o604);
    refused("chmod 640");
    file.write(&format!("ann {TOKEN}\n"));
    refused("more than one word");
    file.write("");
    refused("is empty");
}

#[test]
fn a_token_may_go_over_a_unix_socket() {
    let tokens = anns();
    let folder = TempFolder::for_sockets();
    let listen = format!("unix:{}", folder.path().join("mcp.sock").display());
    let options = ["--listen", &listen, "--token-file", &tokens.path()];
    let proxy = Proxy::start(&options, &servers::echo());
    let file = token_file();
    let mut connect = Connect::start_to(&["--token-file", &file.path()], &listen);
    assert!(connect.request(1, "ping", &json!({}))["result"].is_object());
    proxy.wait_for_log("let in as token:ann");
}

#[test]
fn whoever_holds_a_token_is_not_to_be_looked_into() {
    let server = FakeServer::start();
    for (token, options, is_hidden) in [
        (TOKEN, &[][..], true),
        (TOKEN, &["--traceable"], false),
        ("", &[], false),
    ] {
        let options = [&IN_HASTE[..], options].concat();
        let mut connect = Connect::start_configured(&options, server.address(), |command| {
            if !token.is_empty() {
                command.env("MCP_TCP_PROXY_TOKEN", token);
            }
            if geteuid().is_root() {
                command.uid(USER).gid(USER).current_dir("/");
            }
        });
        let mut peer = server.accept();
        peer.recv_line();
        let environment = fs::metadata(format!("/proc/{}/environ", connect.pid())).unwrap();
        assert_eq!(environment.uid() == 0, is_hidden, "proc(5): whose it is");
        connect.send_line(&request(1, "m", &json!({})));
        assert_eq!(peer.recv_json()["id"], 1);
    }
}
