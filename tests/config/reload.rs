//! A configuration that is read again while the proxy runs: all of it is put in force, or nothing.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::client::modern_meta;
use crate::common::footprint::Footprint;
use crate::common::pki::{Pki, params};
use crate::common::processes::{kill_and_wait, send_signal, stop_asleep};
use crate::common::tls::{TlsClient, VERSIONS};
use crate::common::{Client, Proxy, Scratch, eventually, eventually_some, servers};
use crate::{Config, address_of, anywhere, asking, called, refused, served, who_answers};

const PATIENCE: Duration = Duration::from_mins(1);

const DONE: &str = "SIGHUP: the configuration was read again";
const NOTHING: &str = "SIGHUP: nothing was changed: ";

impl Config {
    fn rewrite(&self, top: &Value, servers: &Value) {
        let mut all = top.clone();
        all["mcpServers"] = servers.clone();
        // As editors do it.
        let unfinished = self.file("unfinished");
        fs::write(&unfinished, all.to_string()).unwrap();
        fs::rename(unfinished, self.path()).unwrap();
    }
}

/// Has the proxy read its configuration again, for the `count`th time.
#[track_caller]
fn reload(proxy: &Proxy, count: usize) {
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_logs(DONE, count);
}

/// Has it read one with which something is wrong.
#[track_caller]
fn fail_to_reload(proxy: &Proxy, count: usize) -> String {
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_logs(NOTHING, count).pop().unwrap()
}

fn write_secret(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Whether nobody listens there.
fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn servers_come_go_and_change() {
    let first = json!({"time": called("time"), "git": called("git"), "notes": called("notes")});
    let config = Config::of(&anywhere(), &first);
    let proxy = config.start(&[]);
    let mut time = asking(proxy.address(), "time");
    let mut git = asking(proxy.address(), "git");
    assert_eq!(who_answers(&mut time), "time");
    assert_eq!(who_answers(&mut git), "git");
    let second =
        json!({"time": called("new time"), "notes": called("notes"), "web": called("web")});
    config.rewrite(&anywhere(), &second);
    reload(&proxy, 1);
    proxy.wait_for_log("ending 1 session of servers that are not served any more");
    assert!(git.read_to_end().is_empty(), "nothing was in flight");
    let (code, reason) = refused(asking(proxy.address(), "git"));
    assert_eq!((code, reason.as_str()), (404, "unknown_server"));
    assert_eq!(who_answers(&mut time), "time", "it has its process");
    for (name, expected) in [("time", "new time"), ("notes", "notes"), ("web", "web")] {
        let mut client = asking(proxy.address(), name);
        assert_eq!(who_answers(&mut client), expected);
    }
    // What is gone may come back.
    config.rewrite(&anywhere(), &first);
    reload(&proxy, 2);
    assert_eq!(who_answers(&mut asking(proxy.address(), "git")), "git");
    assert_eq!(who_answers(&mut time), "time");
}

#[test]
fn what_is_in_flight_at_a_server_that_goes_is_answered() {
    let scratch = Scratch::new();
    let slow = served(&servers::sh(&format!(
        r#"read -r line; until [ -e {}/go ]; do sleep 0.1; done; echo '{{"id":1,"result":{{}},"called":"slow"}}'; cat >/dev/null"#,
        scratch.path()
    )));
    let config = Config::of(&anywhere(), &json!({"slow": slow, "time": called("time")}));
    let proxy = config.start(&[]);
    let mut client = asking(proxy.address(), "slow");
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    client.wait_until_read();
    config.rewrite(&anywhere(), &json!({"time": called("time")}));
    reload(&proxy, 1);
    fs::write(format!("{}/go", scratch.path()), "").unwrap();
    assert_eq!(client.recv_json()["called"], "slow");
    assert!(client.read_to_end().is_empty());
    proxy.wait_until_childless();
}

#[test]
fn a_process_that_is_started_from_now_on_is_the_new_one_for_whomever() {
    let folder = Scratch::new();
    let told = |word: &str| {
        let mut server = served(&servers::sh(
            r#"while read -r line; do echo "{\"id\":1,\"result\":{},\"called\":\"$WORD in $PWD\"}"; done"#,
        ));
        server["env"] = json!({"WORD": word});
        server
    };
    let config = Config::of(&anywhere(), &json!({"git": told("old")}));
    let proxy = config.start(&[]);
    let mut client = proxy.connect();
    assert!(who_answers(&mut client).starts_with("old in "));
    let mut changed = told("new");
    changed["cwd"] = json!(folder.path());
    config.rewrite(&anywhere(), &json!({"git": changed}));
    reload(&proxy, 1);
    assert!(who_answers(&mut client).starts_with("old in "));
    kill_and_wait(proxy.only_server());
    let expected = format!(
        "new in {}",
        fs::canonicalize(folder.path()).unwrap().display()
    );
    eventually("the session to have the new server", PATIENCE, || {
        client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
        client.recv_json()["called"] == expected
    });
}

#[test]
fn servers_that_wait_are_replaced_if_they_are_not_what_is_started_now() {
    let waiting = |name: &str, count: usize| {
        let mut server = called(name);
        server["prespawn"] = json!(count);
        json!({ "git": server })
    };
    let config = Config::of(&anywhere(), &waiting("old", 2));
    let proxy = config.start(&[]);
    let pids = || {
        let mut pids = proxy.servers();
        pids.sort_unstable();
        pids
    };
    let of_count = |count| {
        let what = format!("{count} servers to wait");
        eventually_some(&what, PATIENCE, || {
            Some(pids()).filter(|it| it.len() == count)
        })
    };
    let first = of_count(2);
    config.rewrite(&anywhere(), &waiting("old", 2));
    reload(&proxy, 1);
    assert_eq!(of_count(2), first, "they are what is started");
    config.rewrite(&anywhere(), &waiting("new", 2));
    reload(&proxy, 2);
    assert_eq!(who_answers(&mut proxy.connect()), "new");
    eventually("the old ones to be gone", PATIENCE, || {
        let now = pids();
        now.len() == 2 && first.iter().all(|pid| !now.contains(pid))
    });
    config.rewrite(&anywhere(), &waiting("new", 1));
    reload(&proxy, 3);
    of_count(1);
    config.rewrite(&anywhere(), &waiting("new", 0));
    reload(&proxy, 4);
    proxy.wait_until_childless();
    assert!(!proxy.log().iter().any(|line| line.contains("was lost")));
}

#[test]
fn listeners_come_go_and_change_hands() {
    let with = |own: Value| {
        let mut git = called("git");
        git["listen"] = own;
        json!({"git": git, "time": called("time")})
    };
    let config = Config::of(&anywhere(), &with(json!(["127.0.0.1:0", "unix:git.sock"])));
    let proxy = config.start(&[]);
    let (common, own) = (proxy.address(), address_of(&proxy, "git"));
    let socket = config.file("git.sock");
    let mut over_socket = Client::connect_unix(socket.as_ref());
    assert_eq!(who_answers(&mut over_socket), "git");
    config.rewrite(
        &json!({"listen": "unix:all.sock"}),
        &with(json!("127.0.0.1:0")),
    );
    reload(&proxy, 1);
    assert!(is_closed(common) && !Path::new(&socket).exists());
    proxy.wait_for_log(&format!("not listening on {common} any more"));
    assert_eq!(who_answers(&mut over_socket), "git", "it goes on");
    assert_eq!(who_answers(&mut Client::connect(own)), "git", "it stays");
    let all = config.file("all.sock");
    let mut client = Client::connect_unix(all.as_ref());
    client.send_line(r#"{"type":"handshake","server":"time"}"#);
    assert_eq!(who_answers(&mut client), "time");
    // The same address, for another.
    let mut time = called("time");
    time["listen"] = json!("unix:all.sock");
    config.rewrite(
        &json!({}),
        &json!({"git": with(json!("127.0.0.1:0"))["git"], "time": time}),
    );
    reload(&proxy, 2);
    assert_eq!(who_answers(&mut Client::connect_unix(all.as_ref())), "time");
    assert_eq!(who_answers(&mut client), "time");
}

#[test]
fn whoever_waits_at_a_listener_that_goes_is_served() {
    let mut git = called("git");
    git["listen"] = json!("127.0.0.1:0");
    let config = Config::of(&anywhere(), &json!({"git": git, "time": called("time")}));
    let proxy = config.start(&[]);
    let own = address_of(&proxy, "git");
    stop_asleep(proxy.pid());
    let mut waiting: Vec<Client> = (0..20).map(|_| Client::connect(own)).collect();
    config.rewrite(
        &anywhere(),
        &json!({"git": called("git"), "time": called("time")}),
    );
    proxy.signal(Signal::SIGHUP);
    send_signal(proxy.pid(), Signal::SIGCONT);
    proxy.wait_for_log(DONE);
    assert!(is_closed(own));
    for client in &mut waiting {
        assert_eq!(who_answers(client), "git");
    }
}

#[test]
fn limits_hold_for_newcomers() {
    let limited = |all: usize, own: usize| {
        let mut git = called("git");
        git["maxSessions"] = json!(own);
        (
            json!({"listen": "127.0.0.1:0", "maxSessions": all}),
            json!({"git": git, "time": called("time")}),
        )
    };
    let start = limited(10, 10);
    let config = Config::of(&start.0, &start.1);
    let proxy = config.start(&[]);
    let open = |name: &str| asking(proxy.address(), name);
    let mut clients = [open("git"), open("git"), open("time")];
    for client in &mut clients {
        who_answers(client);
    }
    let (top, servers) = limited(10, 1);
    config.rewrite(&top, &servers);
    reload(&proxy, 1);
    assert_eq!(refused(open("git")).0, 503);
    assert_eq!(who_answers(&mut open("time")), "time");
    let (top, servers) = limited(2, 10);
    config.rewrite(&top, &servers);
    reload(&proxy, 2);
    assert_eq!(refused(open("time")).0, 503);
    for client in &mut clients {
        who_answers(client);
    }
    let (top, servers) = limited(10, 10);
    config.rewrite(&top, &servers);
    reload(&proxy, 3);
    assert_eq!(who_answers(&mut open("git")), "git");
}

#[test]
fn sessions_of_one_address_are_counted_from_a_limit_on() {
    let config = Config::of(&anywhere(), &json!({"git": called("git")}));
    let proxy = config.start(&[]);
    let mut client = proxy.connect();
    who_answers(&mut client);
    let top = json!({"listen": "127.0.0.1:0", "maxSessionsPerAddress": 1});
    config.rewrite(&top, &json!({"git": called("git")}));
    reload(&proxy, 1);
    assert_eq!(refused(proxy.connect()).0, 503);
    client.close();
    eventually("there to be room", PATIENCE, || {
        let mut client = proxy.connect();
        client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
        client.recv_json()["called"] == "git"
    });
}

#[test]
fn times_and_the_log_level_are_changed() {
    let config = Config::of(&anywhere(), &json!({"git": called("git")}));
    let proxy = config.start(&[]);
    let mut before = proxy.connect();
    who_answers(&mut before);
    let mut git = called("git");
    // Long enough for a machine on which the client's first message is late.
    git["idleTimeout"] = json!(4);
    let top = json!({"listen": "127.0.0.1:0", "logLevel": "debug"});
    config.rewrite(&top, &json!({ "git": git }));
    reload(&proxy, 1);
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    proxy.wait_for_log("client → server");
    client.recv_json();
    client.read_to_end();
    // What it had open before is not known.
    assert_eq!(who_answers(&mut before), "git");
    let top = json!({"listen": "127.0.0.1:0", "logLevel": "warn"});
    config.rewrite(&top, &json!({"git": called("git")}));
    proxy.signal(Signal::SIGHUP);
    eventually("the log to be quiet", PATIENCE, || {
        let lines = proxy.log().len();
        who_answers(&mut proxy.connect());
        proxy.log().len() == lines
    });
}

#[test]
fn networks_are_changed() {
    let git = json!({"git": called("git")});
    let config = Config::of(&anywhere(), &git);
    let proxy = config.start(&[]);
    let mut inside = proxy.connect();
    who_answers(&mut inside);
    config.rewrite(
        &json!({"listen": "127.0.0.1:0", "allow": "192.0.2.0/24"}),
        &git,
    );
    reload(&proxy, 1);
    assert!(proxy.connect().read_to_end().is_empty());
    proxy.wait_for_log("entrance: refused");
    assert_eq!(who_answers(&mut inside), "git");
    config.rewrite(&anywhere(), &git);
    reload(&proxy, 2);
    assert_eq!(who_answers(&mut proxy.connect()), "git");
}

#[test]
fn tokens_are_asked_for_and_taken_back() {
    let (ann, ben) = ("mtp_0123456789abcdef", "mtp_fedcba9876543210");
    let git = json!({"git": called("git"), "time": called("time")});
    let config = Config::of(&anywhere(), &git);
    let proxy = config.start(&[]);
    let tokens = config.file("tokens");
    write_secret(&tokens, &format!("ann {ann}\nben {ben}\n"));
    let guarded = json!({"listen": "127.0.0.1:0", "tokenFile": "tokens"});
    config.rewrite(&guarded, &git);
    reload(&proxy, 1);
    assert_eq!(refused(asking(proxy.address(), "git")).0, 401);
    let with = |token: &str| {
        let mut client = proxy.connect();
        let line = json!({"type": "handshake", "token": token, "server": "git"});
        client.send_line(&line.to_string());
        client
    };
    let (mut anns, mut bens) = (with(ann), with(ben));
    assert_eq!(who_answers(&mut anns), "git");
    assert_eq!(who_answers(&mut bens), "git");
    write_secret(&tokens, &format!("ann {ann} time\nben {ben} git\n"));
    reload(&proxy, 2);
    assert_eq!(refused(anns).0, 401);
    assert_eq!(who_answers(&mut bens), "git");
    fs::set_permissions(&tokens, Permissions::from_mode(0o644)).unwrap();
    assert!(fail_to_reload(&proxy, 1).contains("chmod 640"));
    assert_eq!(who_answers(&mut with(ben)), "git");
    config.rewrite(&anywhere(), &git);
    reload(&proxy, 3);
    assert_eq!(who_answers(&mut asking(proxy.address(), "time")), "time");
}

#[test]
fn certificates_come_and_go() {
    let pki = Pki::new();
    pki.issue("server", &params("server", &["localhost"]));
    let git = json!({"git": called("git")});
    let config = Config::of(&anywhere(), &git);
    let proxy = config.start(&[]);
    let mut plain = proxy.connect();
    who_answers(&mut plain);
    let [cert, key] = ["server.pem", "server.key"].map(|name| pki.path(name));
    config.rewrite(
        &json!({"listen": "127.0.0.1:0", "tlsCert": cert, "tlsKey": key}),
        &git,
    );
    reload(&proxy, 1);
    let mut client = TlsClient::connect(proxy.address(), &pki.client(None, &VERSIONS));
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    assert_eq!(client.recv_json()["called"], "git");
    assert_eq!(who_answers(&mut plain), "git");
    config.rewrite(&anywhere(), &git);
    reload(&proxy, 2);
    assert_eq!(who_answers(&mut proxy.connect()), "git");
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    assert_eq!(client.recv_json()["called"], "git");
}

#[test]
fn sessions_at_shared_servers_go_on_when_it_is_changed_how_they_are_shared() {
    let shared = |count: usize, word: &str| {
        let mut server = served(&servers::demo());
        server["share"] = json!(count);
        server["env"] = json!({"WORD": word});
        json!({ "git": server })
    };
    let config = Config::of(&anywhere(), &shared(1, "old"));
    let proxy = config.start(&[]);
    let ask = |client: &mut Client, text: &str| {
        let params = json!({
            "_meta": modern_meta(),
            "name": "echo",
            "arguments": {"text": text},
        });
        let id = client.send_request("tools/call", &params);
        let answer = client.answer_to(id);
        assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
    };
    let mut all = vec![proxy.connect()];
    ask(&mut all[0], "first");
    for (done, (count, word)) in [(2, "old"), (2, "new"), (0, "new"), (1, "new")]
        .into_iter()
        .enumerate()
    {
        config.rewrite(&anywhere(), &shared(count, word));
        reload(&proxy, done + 1);
        all.push(proxy.connect());
        for client in &mut all {
            ask(client, word);
        }
    }
    drop(all);
    // One of them is shared, and was started for the last that came.
    eventually("what was shared before to be gone", PATIENCE, || {
        proxy.servers().len() <= 1
    });
}

#[test]
fn one_mistake_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (top, good) = (
        anywhere(),
        json!({"git": called("git"), "time": called("time")}),
    );
    let config = Config::of(&top, &good);
    let proxy = config.start(&[]);
    let mut inside = asking(proxy.address(), "git");
    who_answers(&mut inside);
    let with = |key: &str, value: Value| {
        let mut top = json!({"listen": ["127.0.0.1:0", "unix:new.sock"]});
        top[key] = value;
        top
    };
    let other = json!({"git": called("new git"), "web": called("web")});
    let missing = json!({"git": {"command": "no-such-program"}, "web": called("web")});
    let mistakes = [
        (
            with("user", json!("nobody")),
            &other,
            "user can't be changed",
        ),
        (
            with("unixMode", json!("0666")),
            &other,
            "unixMode can't be changed",
        ),
        (
            with("logFormat", json!("json")),
            &other,
            "logFormat can't be changed",
        ),
        (
            with("status", json!("127.0.0.1:0")),
            &other,
            "status can't be changed",
        ),
        (
            with("listen", json!(["127.0.0.1:0", taken])),
            &other,
            "cannot listen on",
        ),
        (
            with("tokenFile", json!("no-such-file")),
            &other,
            "no-such-file",
        ),
        (with("tlsCert", json!("no-such-file")), &other, "tls"),
        (with("idleTimeuot", json!(7)), &other, "idleTimeout"),
        (
            with("maxSessions", json!(7)),
            &missing,
            "git can't be served",
        ),
    ];
    for (count, (top, servers, why)) in mistakes.iter().enumerate() {
        config.rewrite(top, servers);
        let told = fail_to_reload(&proxy, count + 1);
        assert!(told.contains(why), "{why}: {told}");
        assert!(!Path::new(&config.file("new.sock")).exists(), "{why}");
    }
    config.write("{ /* not JSON */ }");
    assert!(fail_to_reload(&proxy, mistakes.len() + 1).contains("line 1"));
    assert_eq!(who_answers(&mut inside), "git");
    for name in ["git", "time"] {
        assert_eq!(who_answers(&mut asking(proxy.address(), name)), name);
    }
    assert_eq!(refused(asking(proxy.address(), "web")).0, 404);
    config.rewrite(&top, &other);
    reload(&proxy, 1);
    assert_eq!(who_answers(&mut asking(proxy.address(), "web")), "web");
}

#[test]
fn a_server_that_could_not_be_started_before_keeps_nothing_from_being_changed() {
    let broken = json!({"command": "no-such-program"});
    let config = Config::of(
        &anywhere(),
        &json!({"git": called("git"), "broken": broken}),
    );
    let proxy = config.start(&[]);
    config.rewrite(
        &anywhere(),
        &json!({"git": called("new git"), "broken": broken}),
    );
    reload(&proxy, 1);
    proxy.wait_for_logs("broken can't be served", 2);
    assert_eq!(who_answers(&mut asking(proxy.address(), "git")), "new git");
}

#[test]
fn what_the_command_line_says_still_counts() {
    let config = Config::of(&anywhere(), &json!({"git": called("git")}));
    let proxy = config.start(&["--max-sessions", "1"]);
    let top = json!({"listen": "127.0.0.1:0", "maxSessions": 5});
    config.rewrite(&top, &json!({"git": called("new git")}));
    reload(&proxy, 1);
    let mut client = proxy.connect();
    assert_eq!(who_answers(&mut client), "new git");
    assert_eq!(refused(proxy.connect()).0, 503);
}

/// Waits for a line that comes after ten seconds or more.
#[track_caller]
fn wait_for(proxy: &Proxy, text: &str) {
    eventually(text, PATIENCE, || {
        proxy.log().iter().any(|line| line.contains(text))
    });
}

#[test]
fn files_are_watched() {
    let start = || {
        let config = Config::of(&anywhere(), &json!({"git": called("git")}));
        let proxy = config.start(&["--watch"]);
        (config, proxy)
    };
    // Two at once, as they look every ten seconds.
    let (good, told) = start();
    let (bad, refused) = start();
    good.rewrite(&anywhere(), &json!({"git": called("new git")}));
    bad.write("{");
    wait_for(&told, "--watch: the configuration was read again");
    wait_for(&refused, "--watch: nothing was changed: ");
    assert_eq!(who_answers(&mut told.connect()), "new git");
    assert_eq!(who_answers(&mut refused.connect()), "git");
}

/// What is served in turns: something of everything differs.
fn in_turns(turn: usize) -> (Value, Value) {
    let mut top = json!({"listen": ["127.0.0.1:0"], "maxSessions": 1000 + turn});
    let mut all = json!({"steady": called("steady")});
    all["steady"]["maxRestarts"] = json!(5 + turn % 3);
    // It answers no probe of whether it lives.
    all["steady"]["heartbeatInterval"] = json!(3600);
    let mut changing = called(&format!("turn {}", turn % 2));
    changing["prespawn"] = json!(1);
    all["changing"] = changing;
    if turn % 2 == 1 {
        let mut own = called("own");
        own["listen"] = json!(["127.0.0.1:0", "unix:own.sock"]);
        all["own"] = own;
        top["entranceTimeout"] = json!(20);
    }
    (top, all)
}

/// Reloads so often under the load of so many sessions. Nothing is lost, and nothing left.
fn reload_under_load(reloads: usize, sessions: usize) {
    let (top, all) = in_turns(0);
    let config = Config::of(&top, &all);
    let proxy = config.start(&[]);
    eventually("the pool to be full", PATIENCE, || {
        proxy.servers().len() == 1
    });
    let before = Footprint::of(proxy.pid());
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..sessions)
        .map(|_| {
            let (is_over, answers) = (Arc::clone(&is_over), Arc::clone(&answers));
            let mut client = asking(proxy.address(), "steady");
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(who_answers(&mut client), "steady");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                client.shutdown_write();
                assert!(client.read_to_end().is_empty());
            })
        })
        .collect();
    for turn in 1..=reloads {
        let (top, all) = in_turns(turn);
        config.rewrite(&top, &all);
        reload(&proxy, turn);
        if turn % 20 == 0 {
            // Newcomers are served by what was read last.
            let mut client = asking(proxy.address(), "changing");
            assert_eq!(who_answers(&mut client), format!("turn {}", turn % 2));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for client in load {
        client.join().unwrap();
    }
    println!("answers: {}", answers.load(Ordering::Relaxed));
    config.rewrite(&in_turns(0).0, &in_turns(0).1);
    reload(&proxy, reloads + 1);
    before.wait_until_alone();
}

#[test]
fn two_hundred_reloads_under_load_lose_nothing_and_leave_nothing() {
    reload_under_load(200, 20);
}

#[test]
#[ignore = "it takes minutes"]
fn a_thousand_reloads_under_load_lose_nothing_and_leave_nothing() {
    reload_under_load(1000, 100);
}
