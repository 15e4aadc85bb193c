//! Sessions, as JSON and on the page.

use std::collections::BTreeSet;

use crate::common::{Client, DEADLINE, eventually, servers};
use crate::{get, json, start};

#[test]
fn a_session_is_told_with_all_that_is_known_of_it() {
    let (proxy, asked) = start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let server = proxy.only_server();
    client.send_line("[1]");
    client.recv_line();
    let status = json(asked, "/status.json?history=1");
    let session = &status["sessions"][0];
    assert_eq!(session["session"], 1);
    assert_eq!(session["client"], client.local_address().to_string());
    assert_eq!(session["pid"], server);
    assert_eq!(session["server"], "default");
    assert_eq!(session["to_server"]["messages"], 1);
    assert_eq!(session["to_client"]["bytes"], 4);
    assert_eq!(session["state"], "serving");
    assert!(session["age"].as_f64() >= session["idle"].as_f64());
    let proxy_status = &status["proxy"];
    assert_eq!(proxy_status["pid"], proxy.pid());
    assert_eq!(proxy_status["state"], "serving");
    assert_eq!(status["servers"][0]["ready"], true);
    assert!(status["next"].is_null());
    eventually("both messages in the history", DEADLINE, || {
        let status = json(asked, "/status.json?history=1");
        let messages = &status["servers"][0]["history"]["messages"];
        let counts = messages.as_array().unwrap().iter();
        counts.map(|count| count.as_u64().unwrap()).sum::<u64>() == 2
    });
}

#[test]
fn sessions_come_in_windows_and_none_is_left_out() {
    let (proxy, asked) = start(&["--spawn", "lazy"], &servers::mirror());
    let clients: Vec<Client> = (0..25).map(|_| proxy.connect()).collect();
    eventually("all sessions", DEADLINE, || {
        json(asked, "/status.json")["proxy"]["sessions"] == 25
    });
    for limit in [1, 7, 25, 1000] {
        let mut seen = BTreeSet::new();
        let mut target = format!("/status.json?limit={limit}");
        loop {
            let status = json(asked, &target);
            let sessions = status["sessions"].as_array().unwrap();
            assert!(sessions.len() <= limit);
            for session in sessions {
                assert!(seen.insert(session["session"].as_u64().unwrap()));
            }
            match status["next"].as_u64() {
                Some(next) => target = format!("/status.json?limit={limit}&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen, (1..=25).collect(), "{limit}");
    }
    drop(clients);
}

#[test]
fn the_page_is_whole_without_its_script() {
    let (proxy, asked) = start(&[], &servers::sh("exec cat # <b>&"));
    let mut client = proxy.connect();
    client.send_line("[1]");
    client.recv_line();
    let page = get(asked, "/").body;
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    let peer = client.local_address().to_string();
    for text in ["1 of ", "/bin/sh", &format!(">{peer}<"), ">serving<"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("%%"));
}
