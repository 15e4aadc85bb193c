//! Which server a client gets.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::Client;
use crate::common::connect::Connect;
use crate::{Config, address_of, anywhere, asking, called, refused, who_answers};

fn three() -> serde_json::Value {
    json!({"time": called("time"), "git": called("git"), "notes": called("notes")})
}

#[test]
fn the_first_line_names_a_server() {
    let proxy = Config::of(&anywhere(), &three()).start(&[]);
    for name in ["git", "time", "notes", "git"] {
        let mut client = asking(proxy.address(), name);
        assert_eq!(who_answers(&mut client), name);
    }
    proxy.wait_for_log("[session 1 git 127.0.0.1:");
    proxy.wait_for_log("[session 3 notes 127.0.0.1:");
}

#[test]
fn whoever_asks_for_none_or_a_wrong_one_is_told_so_and_of_no_other() {
    let proxy = Config::of(&anywhere(), &three()).start(&[]);
    for line in [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#,
        r#"{"type":"handshake"}"#,
        r#"{"type":"handshake","server":"gi"}"#,
        r#"{"type":"handshake","server":7}"#,
        "nonsense",
        &format!("{{\"id\":1,\"method\":\"{}\"}}", "x".repeat(9000)),
    ] {
        let mut client = proxy.connect();
        client.send_line(line);
        let (code, reason) = refused(client);
        assert_eq!((code, reason.as_str()), (404, "unknown_server"), "{line}");
    }
    proxy.wait_for_logs(": unknown_server", 6);
    let mut client = proxy.connect();
    client.send_line("{}");
    let told = client.read_to_end().join("\n");
    for name in ["time", "git", "notes"] {
        assert!(!told.contains(name), "{told}");
    }
    assert!(proxy.servers().is_empty());
}

#[test]
fn the_default_is_for_whoever_asks_for_none() {
    let mut servers = three();
    servers["git"]["default"] = json!(true);
    let proxy = Config::of(&anywhere(), &servers).start(&[]);
    assert_eq!(who_answers(&mut proxy.connect()), "git");
    assert_eq!(who_answers(&mut asking(proxy.address(), "time")), "time");
    let (code, _) = refused(asking(proxy.address(), "nothing"));
    assert_eq!(code, 404);
    let mut client = proxy.connect();
    client.send_line(&format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}",
        "x".repeat(100_000)
    ));
    assert_eq!(
        client.recv_json()["called"],
        "git",
        "a long message is one, too"
    );
    let mut client = proxy.connect();
    client.send_raw(br#"{"jsonrpc":"2.0","id":1,"method":"without a line end"}"#);
    client.shutdown_write();
    assert_eq!(client.recv_json()["called"], "git");
}

#[test]
fn what_follows_the_first_line_reaches_the_server_in_order() {
    let mut servers = three();
    servers["echo"] = crate::served(&crate::common::servers::echo());
    let proxy = Config::of(&anywhere(), &servers).start(&[]);
    let mut client = proxy.connect();
    let mut all = String::from("\n{\"type\":\"handshake\",\"server\":\"echo\"}\n");
    for id in 1..=200 {
        all.push_str(&json!({"jsonrpc": "2.0", "id": id, "method": "m"}).to_string());
        all.push('\n');
    }
    for piece in all.as_bytes().chunks(61) {
        client.send_raw(piece);
    }
    for id in 1..=200 {
        assert_eq!(client.recv_json()["id"], id);
    }
}

#[test]
fn a_server_can_have_an_address_of_its_own() {
    let mut servers = three();
    servers["git"]["listen"] = json!(["127.0.0.1:0", "unix:git.sock"]);
    servers["time"]["listen"] = json!("127.0.0.1:0");
    let config = Config::of(&anywhere(), &servers);
    let proxy = config.start(&[]);
    let [git, time] = ["git", "time"].map(|name| address_of(&proxy, name));
    assert_eq!(who_answers(&mut Client::connect(git)), "git");
    assert_eq!(who_answers(&mut Client::connect(time)), "time");
    let socket = config.file("git.sock");
    assert_eq!(
        who_answers(&mut Client::connect_unix(socket.as_ref())),
        "git"
    );
    assert_eq!(who_answers(&mut asking(proxy.address(), "notes")), "notes");
}

#[test]
fn the_only_server_needs_no_name() {
    let servers = json!({"git": called("git"), "off": {"command": "none", "disabled": true}});
    let proxy = Config::of(&anywhere(), &servers).start(&[]);
    assert_eq!(who_answers(&mut proxy.connect()), "git");
    assert_eq!(who_answers(&mut asking(proxy.address(), "git")), "git");
}

#[test]
fn connect_asks_for_a_server() {
    let proxy = Config::of(&anywhere(), &three()).start(&[]);
    for name in ["time", "git"] {
        let mut connect = Connect::start(&["--server", name], proxy.address());
        connect.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
        assert_eq!(connect.recv_json()["called"], name);
        connect.end_input();
        connect.wait_exit(0);
    }
    let mut connect = Connect::start(&["--server", "nothing"], proxy.address());
    connect.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    connect.recv_error(503, "access_denied");
    let log = connect.wait_exit(1).join("\n");
    assert!(log.contains("unknown_server"), "{log}");
}

#[test]
fn tokens_are_good_for_the_servers_that_they_name() {
    let (ann, ben) = ("mtp_0123456789abcdef", "mtp_fedcba9876543210");
    let config = Config::of(
        &json!({"listen": "127.0.0.1:0", "tokenFile": "tokens"}),
        &three(),
    );
    let tokens = config.file("tokens");
    std::fs::write(&tokens, format!("ann {ann}\nben {ben} git,weather\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).unwrap();
    let proxy = config.start(&[]);
    proxy.wait_for_log("it names servers that there are none of here: weather");
    let with = |token: &str, name: &str| {
        let mut client = proxy.connect();
        let line = json!({"type": "handshake", "token": token, "server": name});
        client.send_line(&line.to_string());
        client
    };
    assert_eq!(who_answers(&mut with(ann, "time")), "time");
    assert_eq!(who_answers(&mut with(ben, "git")), "git");
    for (token, name, expected) in [
        (ben, "time", (403, "forbidden")),
        (ann, "nothing", (404, "unknown_server")),
        ("mtp_0000000000000000", "git", (401, "unauthorized")),
        ("mtp_0000000000000000", "nothing", (401, "unauthorized")),
    ] {
        let (code, reason) = refused(with(token, name));
        assert_eq!((code, reason.as_str()), expected, "{name}");
    }
}

#[test]
fn sockets_of_systemd_are_those_of_the_servers_that_they_are_named_after() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config::of(&json!({}), &three());
    let proxy = config.start_configured(&[], |command| {
        let mut shell = Command::new("/bin/sh");
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=git; exec \"$0\" \"$@\"";
        shell.args(["-c", script]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        shell.stderr(Stdio::piped());
        *command = shell;
    });
    proxy.wait_for_log(" for git");
    assert_eq!(who_answers(&mut Client::connect(address)), "git");
}
