//! The variables that servers get.

use std::fs;
use std::net::SocketAddr;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::{Client, Proxy, TempFolder, servers};
use crate::{fails, tell, telling};

/// What a server is told of its client.
const FACTS: [&str; 8] = [
    "PROTO",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "MCP_SESSION",
    "MCP_CLIENT",
    "MCP_CLIENT_UID",
];

/// What else the proxy keeps to itself.
const WITHHELD: [&str; 8] = [
    "MCP_TCP_PROXY_TOKEN",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY",
];

fn facts(client: SocketAddr, local: SocketAddr, session: &str) -> Value {
    let (remote, local) = (
        [client.ip().to_string(), client.port().to_string()],
        [local.ip().to_string(), local.port().to_string()],
    );
    json!([
        "TCP", remote[0], remote[1], local[0], local[1], session, "unset", "unset"
    ])
}

#[test]
fn a_server_is_told_of_its_client_and_so_are_those_that_take_its_place() {
    let crashing = servers::sh(&format!("{}; read -r line; exit 3", tell(&FACTS)));
    let proxy = Proxy::start(&["--client-env"], &crashing);
    for session in ["1", "2"] {
        let mut client = proxy.connect();
        let expected = facts(client.local_address(), proxy.address(), session);
        assert_eq!(client.recv_json(), expected);
        let id = client.send_request("crash", &json!({}));
        assert_eq!(client.recv_json()["id"], id);
        assert_eq!(client.recv_json(), expected, "the next server");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_told_by_its_ipv4_address() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    let proxy = Proxy::start(&["--host", "::"], &telling(&FACTS));
    let mut client = Client::connect(proxy.address());
    let expected = facts(client.local_address(), proxy.address(), "1");
    assert_eq!(client.recv_json(), expected);
}

#[test]
fn a_client_of_a_unix_socket_is_told_by_its_user() {
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("socket");
    let address = format!("unix:{}", path.display());
    let proxy = Proxy::start_listening(&["--listen", &address], &telling(&FACTS), |_| {});
    let uid = geteuid().to_string();
    let expected = json!([
        "UNIX", "unset", "unset", "unset", "unset", "1", "unset", uid
    ]);
    assert_eq!(Client::connect_unix(&path).recv_json(), expected);
    drop(proxy);
}

#[test]
fn a_server_that_was_started_ahead_is_told_nothing_and_neither_are_the_others() {
    let proxy = Proxy::start_configured(&["--prespawn", "1"], &telling(&FACTS), |command| {
        command.envs(FACTS.map(|name| (name, "of another")));
    });
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    for client in &mut clients {
        assert_eq!(client.recv_json(), json!(vec!["unset"; FACTS.len()]));
    }
}

#[test]
fn what_is_about_the_proxy_is_inherited_only_if_the_user_says_so() {
    let proxy = Proxy::start_configured(&["--env", WITHHELD[4]], &telling(&WITHHELD), |command| {
        command.envs(WITHHELD.map(|name| (name, "x")));
    });
    let mut expected = vec!["unset"; WITHHELD.len()];
    expected[4] = "x";
    assert_eq!(proxy.connect().recv_json(), json!(expected));
}

#[test]
fn variables_are_set_by_options_and_by_files_and_options_count_more() {
    let folder = TempFolder::new();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::write(&first, "# comment\nA=file\nB='of one'\nC=1\nPROTO=mine\n").unwrap();
    fs::write(&second, "C=2\nFROM_PROXY\n").unwrap();
    let options = [
        "--env",
        "A=option",
        "--env",
        "D=1",
        "--env=D==2",
        "--env",
        "NO_SUCH_THING",
        "--clear-env",
        "--env-file",
        first.to_str().unwrap(),
        "--env-file",
        second.to_str().unwrap(),
    ];
    let names = [
        "A",
        "B",
        "C",
        "D",
        "PROTO",
        "FROM_PROXY",
        "NOT_FROM_PROXY",
        "TCPREMOTEIP",
    ];
    let proxy = Proxy::start_configured(&options, &telling(&names), |command| {
        command.env("FROM_PROXY", "x").env("NOT_FROM_PROXY", "x");
    });
    let expected = [
        "option",
        "of one",
        "2",
        "=2",
        "mine",
        "x",
        "unset",
        "127.0.0.1",
    ];
    assert_eq!(proxy.connect().recv_json(), json!(expected));
    let line = proxy.wait_for_log("NO_SUCH_THING");
    assert!(line.contains("WARN"), "{line}");
    assert!(!proxy.log().join("\n").contains("option"));
}

#[test]
fn a_cleared_environment_holds_the_few_that_every_program_needs() {
    let names = [
        "HOME", "USER", "LANG", "LC_TIME", "TZ", "TMPDIR", "SHELL", "API_KEY",
    ];
    let proxy = Proxy::start_configured(&["--clear-env"], &telling(&names), |command| {
        command.envs(names.map(|name| (name, "C")));
    });
    let expected = ["C", "C", "C", "C", "C", "C", "unset", "unset"];
    assert_eq!(proxy.connect().recv_json(), json!(expected));
}

#[test]
fn a_file_that_can_not_be_read_or_understood_ends_the_start_and_is_not_quoted() {
    let folder = TempFolder::new();
    let path = folder.path().join("variables");
    let start = |path: &str| fails(&["--env-file", path, "--demo"]);
    let line = start(path.to_str().unwrap());
    assert!(
        line.contains("--env-file") && line.contains("No such file"),
        "{line}"
    );
    fs::write(&path, "A=1\nexport B=secret\n").unwrap();
    let line = start(path.to_str().unwrap());
    assert!(
        line.contains("line 2") && !line.contains("secret"),
        "{line}"
    );
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempFolder::new();
    let path = folder.path().join("variables");
    fs::write(&path, "A=1\n").unwrap();
    for (mode, is_warned_of) in [(0o640, false), (0o644, true), (0o620, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let proxy = Proxy::start(&["--env-file", path.to_str().unwrap()], &telling(&["A"]));
        assert_eq!(proxy.connect().recv_json(), json!(["1"]));
        let is_told = proxy.log().iter().any(|line| line.contains("chmod 640"));
        assert_eq!(is_told, is_warned_of, "{mode:o}");
    }
}
