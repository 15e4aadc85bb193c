//! Places, identities, TLS and shared servers of sessions that may come back.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Counting, assert_granted, first_line, id, resumed, with_id};
use crate::common::pki::Pki;
use crate::common::servers::{self, mirror};
use crate::common::tls::TlsClient;
use crate::common::{DEADLINE, Proxy, TempFolder, eventually};

#[test]
fn who_comes_back_needs_no_place() {
    let proxy = Proxy::start(&["--max-sessions", "1"], &mirror());
    let mut client = Counting::ask(&proxy, '1');
    client.send(1);
    client.expect(1);
    // While the old connection is alive, and when it is gone.
    client.get_back(&proxy, 1);
    client.client.shutdown_write();
    proxy.wait_for_log("it is kept");
    client.get_back(&proxy, 100);
    let mut other = proxy.connect();
    other.send_json(&with_id(1));
    other.recv_error(503, "session_limit");
}

#[test]
fn the_place_of_one_that_is_away_is_for_whoever_has_sent_a_request() {
    let proxy = Proxy::start(&["--max-sessions", "1"], &mirror());
    let mut client = Counting::ask(&proxy, '2');
    client.send(1);
    client.expect(1);
    proxy.connect().recv_error(503, "session_limit");
    client.client.shutdown_write();
    proxy.wait_for_log("it is kept");
    // Whoever is late with the request is turned away.
    eventually("its place is given up", DEADLINE, || {
        let mut other = proxy.connect();
        other.send_json(&with_id(1));
        let answer = other.recv_json();
        let is_late = answer["error"]["data"]["reason"] == "session_limit";
        assert!(is_late || answer == with_id(1), "{answer}");
        !is_late
    });
    proxy.wait_for_log("its place was needed");
}

#[test]
fn no_more_than_half_of_the_places_are_for_those_that_are_away() {
    let proxy = Proxy::start(&["--max-sessions", "4"], &mirror());
    let mut clients: Vec<Counting> = ['1', '2', '3']
        .map(|digit| Counting::ask(&proxy, digit))
        .into();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(1);
        client.expect(1);
        client.client.shutdown_write();
        proxy.wait_for_logs("it is kept", number + 1);
    }
    proxy.wait_for_log("its place was needed");
    assert_eq!(clients[0].come_back(&proxy, 1)["type"], "not_resumed");
    for client in &mut clients[1..] {
        assert_eq!(client.come_back(&proxy, 1), resumed(1));
    }
}

fn with_token(line: &str, token: &str) -> String {
    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["token"] = json!(token);
    line.to_string()
}

#[test]
fn a_session_is_only_for_the_client_that_began_it() {
    let folder = TempFolder::new();
    let path = folder.path().join("tokens");
    std::fs::write(
        &path,
        "ann ann-has-this-long-secret\nben ben-has-another-long-secret\n",
    )
    .unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let proxy = Proxy::start(&["--token-file", path.to_str().unwrap()], &mirror());
    let mut ann = proxy.connect();
    ann.send_line(&with_token(
        &first_line(&id('1'), None),
        "ann-has-this-long-secret",
    ));
    assert_granted(&ann.recv_json());
    ann.send_json(&with_id(1));
    assert_eq!(ann.recv_json(), with_id(1));
    let again = first_line(&id('2'), Some((&id('1'), 1, 1)));
    let mut ben = proxy.connect();
    ben.send_line(&with_token(&again, "ben-has-another-long-secret"));
    let verdict = ben.recv_json();
    assert_eq!(verdict, json!({"type": "not_resumed", "reason": "unknown"}));
    proxy.wait_for_log("it is another client's");
    let again = first_line(&id('3'), Some((&id('1'), 2, 1)));
    let mut ann = proxy.connect();
    ann.send_line(&with_token(&again, "ann-has-this-long-secret"));
    assert_eq!(ann.recv_json(), resumed(1));
    let log = proxy.log().join("\n");
    assert!(!log.contains(&id('1')) && !log.contains("secret"));
}

#[test]
fn a_session_at_shared_servers_is_kept_too_but_not_what_it_does_not_take() {
    use crate::common::client::modern_meta;
    // It says much to whoever listens when it is asked anything.
    let server = servers::sh(
        r#"while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    meta='"_meta":{"io.modelcontextprotocol/subscriptionId":'$listen'}'
    case $line in
    *discover*) printf '{"id":%s,"result":{"supportedVersions":["2026-07-28"]}}\n' "$id" ;;
    *listen*) listen=$id
        printf '{"method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":%s}}}\n' "$id" ;;
    *) count=0
        while [ $count -lt 40 ]; do
            printf '{"method":"notifications/x","params":{%s,"filler":"%060000d"}}\n' "$meta" 0
            count=$((count + 1))
        done
        printf '{"id":%s,"result":{}}\n' "$id" ;;
    esac
done"#,
    );
    let proxy = Proxy::start(&["--share", "1"], &server);
    let params = json!({"_meta": modern_meta(), "notifications": {"x": true}});
    let mut client = Counting::ask(&proxy, '1');
    client.client.send_json(
        &json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}),
    );
    let subscription = "/params/_meta/io.modelcontextprotocol~1subscriptionId";
    assert_eq!(client.recv().pointer(subscription), Some(&json!(1)));
    client.client = proxy.connect();
    proxy.wait_for_log("it is kept");
    assert_eq!(client.come_back(&proxy, 1), resumed(1));
    drop(client);
    eventually("it is away again", DEADLINE, || {
        let log = proxy.log();
        log.iter()
            .filter(|line| line.contains("it is kept"))
            .count()
            == 2
    });
    let mut other = proxy.connect();
    assert_eq!(other.request("tools/list", &params)["result"], json!({}));
    proxy.wait_for_log("more has come for it than is kept");
    let mut late = proxy.connect();
    late.send_line(&first_line(&id('3'), Some((&id('1'), 2, 1))));
    let expected = json!({"type": "not_resumed", "reason": "overflow", "lines": 1});
    assert_eq!(late.recv_json(), expected);
}

#[test]
fn a_session_over_tls_goes_on_over_another_tls_connection() {
    let pki = Pki::new();
    let options = pki.serve("server");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&options, &mirror());
    let config = pki.client(None, rustls::ALL_VERSIONS);
    let mut client = TlsClient::connect(proxy.address(), &config);
    client.send_line(&first_line(&id('1'), None));
    assert_granted(&client.recv_json());
    client.send_line(&with_id(1).to_string());
    assert_eq!(client.recv_json(), with_id(1));
    client.cut();
    for attempt in 1..4 {
        let mut client = TlsClient::connect(proxy.address(), &config);
        let again = first_line(&id('2'), Some((&id('1'), attempt, attempt)));
        client.send_line(&again);
        assert_eq!(client.recv_json(), resumed(attempt));
        client.send_line(&with_id(attempt + 1).to_string());
        assert_eq!(client.recv_json(), with_id(attempt + 1));
    }
}
