//! Another program goes on in the proxy's process: what was served is, whatever the files say by then.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::servers;
use crate::common::upgrades::upgrade;
use crate::{Config, anywhere, asking, called, refused, served, who_answers};

#[test]
fn what_is_in_force_stays_whatever_is_in_the_files() {
    let shows =
        r#"while read -r line; do echo "{\"id\":1,\"result\":{},\"called\":\"$WORD\"}"; done"#;
    let mut shows = served(&servers::sh(shows));
    shows["envFile"] = json!("words.env");
    let mut time = called("time");
    time["maxSessions"] = json!(1);
    let config = Config::of(&anywhere(), &json!({"shows": shows, "time": time}));
    fs::write(config.file("words.env"), "WORD=first\n").unwrap();
    let proxy = config.start(&[]);
    let mut old = asking(proxy.address(), "time");
    assert_eq!(who_answers(&mut old), "time");
    // Another one comes before them, and the keys of those that are there stay.
    let mut top = anywhere();
    top["mcpServers"] = json!({"git": called("git"), "shows": shows, "time": time});
    config.write(&top.to_string());
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_log("SIGHUP: the configuration was read again");
    config.write("this is no configuration");
    fs::write(config.file("words.env"), "WORD=second\n").unwrap();
    for _ in 0..2 {
        upgrade(&proxy);
        assert_eq!(who_answers(&mut old), "time");
        let (_, reason) = refused(asking(proxy.address(), "time"));
        assert_eq!(reason, "session_limit");
        assert_eq!(who_answers(&mut asking(proxy.address(), "git")), "git");
        let mut shows = asking(proxy.address(), "shows");
        assert_eq!(who_answers(&mut shows), "first");
    }
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_log("SIGHUP: nothing was changed: ");
    let new = json!({"time": called("new time"), "shows": shows});
    top["mcpServers"] = new;
    config.write(&top.to_string());
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_logs("SIGHUP: the configuration was read again", 2);
    assert_eq!(
        who_answers(&mut asking(proxy.address(), "time")),
        "new time"
    );
    let mut shows = asking(proxy.address(), "shows");
    assert_eq!(who_answers(&mut shows), "second");
    let (_, reason) = refused(asking(proxy.address(), "git"));
    assert_eq!(reason, "unknown_server");
}
