//! Proxies that do not let everybody in: TLS, tokens, servers by name.

use crate::common::pki::Pki;
use crate::common::{Proxy, Scratch, servers};
use crate::{SHORT, assert_all_well, report_of, run};

/// A token, for a file of the proxy's and for one of the client's.
const TOKEN: &str = "0123456789abcdef";

fn token_files(scratch: &Scratch) -> [String; 2] {
    scratch.write("tokens", &format!("ann {TOKEN}\n"));
    scratch.write("token", &format!("{TOKEN}\n"));
    ["tokens", "token"].map(|name| {
        let path = scratch.file(name);
        let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, only_ours).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[test]
fn tls_is_spoken_where_it_is_wanted() {
    let pki = Pki::new();
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| pki.path(name));
    let options = ["--tls-cert", &certificate, "--tls-key", &key];
    let proxy = Proxy::start(&options, &servers::demo());
    let target = format!("localhost:{}", proxy.address().port());
    let payload = ["--tool", "echo", "--payload", "100000", "--requests", "200"];
    let arguments = ["--sessions", "3", "--tls-ca", &ca, &target];
    assert_all_well(&report_of(&[&payload, &arguments[..]].concat()));

    let ended = run(&[
        &SHORT[..],
        &[
            "--era",
            "legacy",
            "--tls-ca",
            &ca,
            "--tls-name",
            "other.example",
            &target,
        ],
    ]
    .concat());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("other.example"), "{ended:?}");
}

#[test]
fn a_token_is_shown() {
    let scratch = Scratch::new();
    let [tokens, token] = token_files(&scratch);
    let proxy = Proxy::start(&["--token-file", &tokens], &servers::demo());
    let target = proxy.address().to_string();
    assert_all_well(&report_of(&[
        "--sessions",
        "3",
        "--token-file",
        &token,
        &target,
    ]));

    let ended = run(&[&SHORT[..], &["--era", "legacy", &target]].concat());
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("the session was refused: ") && ended.stderr.contains("401"),
        "{ended:?}"
    );
}

#[test]
fn a_server_is_asked_for_by_its_name() {
    let scratch = Scratch::new();
    let demo = serde_json::json!(servers::demo());
    let config = serde_json::json!({"mcpServers": {
        "echo": {"command": demo[0], "args": [demo[1]]},
        "other": {"command": "/bin/cat"},
    }});
    scratch.write("config.json", &config.to_string());
    let path = scratch.file("config.json");
    let config = [
        "--config",
        path.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let proxy = Proxy::start_with_config(&config, |_| {});
    let target = proxy.address().to_string();
    assert_all_well(&report_of(&["--server", "echo", &target]));

    let arguments = ["--era", "legacy", "--server", "nobody", &target];
    let ended = run(&[&SHORT[..], &arguments].concat());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("unknown_server"), "{ended:?}");
}
