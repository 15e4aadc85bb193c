//! Sessions that are away when what they need is taken away.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{assert_granted, first_line, id, with_id};
use crate::common::{DEADLINE, Proxy, TempFolder, eventually, write_program};

const ANN: &str = "ann-has-this-long-secret";
const BEN: &str = "ben-has-another-long-secret";

#[test]
fn a_session_that_is_away_ends_at_once_with_its_token_or_its_server() {
    let folder = TempFolder::new();
    let tokens = folder.path().join("tokens");
    let config = folder.path().join("config.json");
    let write = |names: &[&str], secrets: &[(&str, &str)]| {
        let lines: Vec<String> = secrets
            .iter()
            .map(|(name, secret)| format!("{name} {secret}\n"))
            .collect();
        write_program(&tokens, lines.concat(), 0o600);
        let servers = names
            .iter()
            .map(|name| ((*name).to_owned(), json!({"command": "cat"})));
        let servers: serde_json::Map<_, _> = servers.collect();
        let text = json!({"listen": "127.0.0.1:0", "tokenFile": "tokens", "resumeTimeout": 86400, "mcpServers": servers});
        fs::write(&config, text.to_string()).unwrap();
    };
    write(&["one", "two"], &[("ann", ANN), ("ben", BEN)]);
    let path = config.to_str().unwrap();
    let proxy = Proxy::start_with_config(&["--config", path], |_| {});
    for (number, (digit, server, secret)) in
        [('1', "one", ANN), ('2', "two", BEN), ('3', "one", BEN)]
            .into_iter()
            .enumerate()
    {
        let mut line: serde_json::Value =
            serde_json::from_str(&first_line(&id(digit), None)).unwrap();
        line["token"] = json!(secret);
        line["server"] = json!(server);
        let mut client = proxy.connect();
        client.send_json(&line);
        assert_granted(&client.recv_json());
        client.send_json(&with_id(1));
        assert_eq!(client.recv_json(), with_id(1));
        drop(client);
        proxy.wait_for_logs("it is kept", number + 1);
    }
    // Ann's token goes, and so does a server of Ben's.
    write(&["one"], &[("ben", BEN)]);
    proxy.signal(Signal::SIGHUP);
    eventually("no more than one is kept", DEADLINE, || {
        proxy.servers().len() == 1
    });
    write(&["two"], &[("ben", BEN)]);
    proxy.signal(Signal::SIGHUP);
    proxy.wait_until_childless();
}
