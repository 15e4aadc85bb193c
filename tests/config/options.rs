//! Options of the file: each server has its own.

use serde_json::{Value, json};

use crate::common::{Client, DEADLINE, eventually, servers};
use crate::{Config, anywhere, asking, called, served, who_answers};

/// A server that says at once what some of its variables are, and where it is.
fn telling() -> Value {
    served(&servers::sh(
        r#"echo "[\"$A\",\"$B\",\"$C\",\"$MCP_TCP_PROXY_X\",\"$(pwd -P)\",\"$MCP_SESSION\"]"; exec cat"#,
    ))
}

#[test]
fn each_server_has_its_variables_and_its_directory() {
    let mut own = telling();
    own["env"] = json!({"B": "own $B", "C": null, "A": "${MCP_TCP_PROXY_X:-none}"});
    own["cwd"] = json!("folder");
    own["envFile"] = json!("own.env");
    let top = json!({"listen": "127.0.0.1:0", "env": {"A": "top", "B": "top", "C": "top"}});
    let config = Config::of(&top, &json!({"own": own, "plain": telling()}));
    std::fs::create_dir(config.file("folder")).unwrap();
    std::fs::write(config.file("own.env"), "B=file\nMCP_TCP_PROXY_X=file\n").unwrap();
    let proxy = config.start(&[]);
    let folder = std::fs::canonicalize(config.file("folder")).unwrap();
    let here = std::env::current_dir().unwrap();
    let here = std::fs::canonicalize(here).unwrap();
    let mut own = asking(proxy.address(), "own");
    assert_eq!(
        own.recv_json(),
        json!(["none", "own $B", "", "file", folder, "1"])
    );
    let mut plain = asking(proxy.address(), "plain");
    assert_eq!(
        plain.recv_json(),
        json!(["top", "top", "top", "", here, "2"])
    );
}

#[test]
fn each_server_has_its_limit_of_sessions_and_all_have_one_together() {
    let mut few = called("few");
    few["maxSessions"] = json!(1);
    let top = json!({"listen": "127.0.0.1:0", "maxSessions": 3});
    let proxy = Config::of(&top, &json!({"few": few, "many": called("many")})).start(&[]);
    let mut first = asking(proxy.address(), "few");
    assert_eq!(who_answers(&mut first), "few");
    let told = |client: &mut Client| {
        let answer = client.recv_json();
        assert_eq!(
            answer["error"]["data"]["reason"], "session_limit",
            "{answer}"
        );
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let words = told(&mut asking(proxy.address(), "few"));
    assert!(
        words.contains("1 session of this server already"),
        "{words}"
    );
    let mut others: Vec<Client> = (0..2).map(|_| asking(proxy.address(), "many")).collect();
    for client in &mut others {
        assert_eq!(who_answers(client), "many");
    }
    let words = told(&mut asking(proxy.address(), "many"));
    assert!(words.contains("3 sessions already"), "{words}");
    first.close();
    eventually("room for another", DEADLINE, || {
        let mut client = asking(proxy.address(), "few");
        client.send_line(r#"{"id":1,"method":"who"}"#);
        client.recv_json()["called"] == "few"
    });
}

#[test]
fn servers_wait_for_the_sessions_of_their_own_service() {
    let mut spare = called("spare");
    spare["prespawn"] = json!(2);
    let mut lazy = called("lazy");
    lazy["spawn"] = json!("lazy");
    let proxy = Config::of(&anywhere(), &json!({"spare": spare, "lazy": lazy})).start(&["--debug"]);
    let pool: Vec<String> = proxy.wait_for_logs("pool of spare: server pid", 2);
    let pid = |line: &str| -> i32 {
        let (_, rest) = line.split_once("server pid ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let pool: Vec<i32> = pool.iter().map(|line| pid(line)).collect();
    let mut client = asking(proxy.address(), "lazy");
    assert_eq!(who_answers(&mut client), "lazy");
    let servers = proxy.servers();
    assert!(
        pool.iter().all(|pid| servers.contains(pid)),
        "{pool:?} {servers:?}"
    );
    let mut client = asking(proxy.address(), "spare");
    assert_eq!(who_answers(&mut client), "spare");
    proxy.wait_for_log(&format!("pid {}] opened", pool[0]));
}

#[test]
fn a_server_may_be_shared_and_another_not() {
    let mut shared = json!({"demo": true, "share": 1});
    shared["maxMessageBytes"] = json!(100_000);
    let proxy = Config::of(
        &anywhere(),
        &json!({"shared": shared, "own": called("own")}),
    )
    .start(&[]);
    let call = |client: &mut Client| {
        let meta = crate::common::client::modern_meta();
        let answer = client.request("tools/list", &json!({"_meta": meta}));
        assert!(answer["result"]["tools"].is_array(), "{answer}");
    };
    let mut clients: Vec<Client> = (0..3).map(|_| asking(proxy.address(), "shared")).collect();
    for client in &mut clients {
        call(client);
    }
    proxy.wait_for_log("shared server");
    let mut own: Vec<Client> = (0..2).map(|_| asking(proxy.address(), "own")).collect();
    for client in &mut own {
        assert_eq!(who_answers(client), "own");
    }
    // The one that was asked for its era is on its way out.
    eventually("one shared server and two others", DEADLINE, || {
        proxy.servers().len() == 3
    });
}

#[test]
fn the_command_line_counts_more_than_the_top_of_the_file() {
    let mut own = called("own");
    own["maxMessageBytes"] = json!(200);
    let top = json!({"listen": "127.0.0.1:0", "maxMessageBytes": 300});
    let proxy = Config::of(&top, &json!({"own": own, "other": called("other")}))
        .start(&["--max-message-bytes", "400"]);
    let passes = |name: &str, bytes: usize| {
        let mut client = asking(proxy.address(), name);
        let without = r#"{"id":1,"method":""}"#.len();
        let line = format!(r#"{{"id":1,"method":"{}"}}"#, "x".repeat(bytes - without));
        assert_eq!(line.len(), bytes);
        client.send_line(&line);
        client.recv_json()["called"] == name
    };
    assert!(passes("own", 200) && !passes("own", 201));
    assert!(passes("other", 400) && !passes("other", 401));
}
