//! A proxy that becomes another user.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process;

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use serde_json::json;

use crate::common::proxy::{as_another_user, untraceable};
use crate::common::{Client, DEADLINE, Proxy, TempFolder, servers};
use crate::{fails, fails_configured, is_root, telling};

/// Tells the ids of the server.
const TELL_IDS: &str = r#"printf '["%s","%s","%s"]\n' "$(id -u)" "$(id -g)" "$(id -G)"; exec cat"#;

/// A user and a group that nobody has.
fn nameless() -> u32 {
    20_000 + process::id() % 40_000
}

fn nobody() -> Option<User> {
    is_root()
        .then(|| User::from_name("nobody").unwrap())
        .flatten()
}

fn status(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_proxy_and_its_servers_are_that_user_in_all_respects() {
    let Some(nobody) = nobody() else { return };
    let proxy = Proxy::start(&["--user", "nobody"], &servers::sh(TELL_IDS));
    let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
    assert_eq!(proxy.connect().recv_json(), json!([uid, gid, gid]));
    assert_eq!(status(proxy.pid(), "Uid"), [&*uid; 4].join(" "));
    assert_eq!(status(proxy.pid(), "Gid"), [&*gid; 4].join(" "));
    for capabilities in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(
            status(proxy.pid(), capabilities),
            "0000000000000000",
            "{capabilities}"
        );
    }
    proxy.wait_for_log("User: nobody");
}

#[test]
fn servers_get_the_variables_of_that_user() {
    let Some(nobody) = nobody() else { return };
    let names = ["HOME", "USER", "LOGNAME", "SHELL"];
    let expected = [
        nobody.dir.to_str().unwrap(),
        "nobody",
        "nobody",
        nobody.shell.to_str().unwrap(),
    ];
    for options in [
        &["--user", "nobody"][..],
        &["--user", "nobody", "--clear-env"],
    ] {
        let proxy = Proxy::start(options, &telling(&names));
        assert_eq!(proxy.connect().recv_json(), json!(expected));
    }
    let proxy = Proxy::start(
        &["--user", "nobody", "--env", "HOME=/srv"],
        &telling(&names),
    );
    assert_eq!(proxy.connect().recv_json()[0], "/srv");
}

#[test]
fn a_group_and_numbers_do_as_well() {
    let Some(nobody) = nobody() else { return };
    let number = nameless().to_string();
    let user = format!("{}:{number}", nobody.uid);
    let proxy = Proxy::start(&["--user", &user], &servers::sh(TELL_IDS));
    assert_eq!(
        proxy.connect().recv_json(),
        json!([nobody.uid.to_string(), number, number])
    );
    let proxy = Proxy::start(
        &["--user", &format!("{number}:{number}")],
        &servers::sh(TELL_IDS),
    );
    assert_eq!(proxy.connect().recv_json(), json!([number, number, number]));
}

#[test]
fn ports_and_files_are_opened_before_that() {
    if nobody().is_none() {
        return;
    }
    let folder = TempFolder::new();
    let file = folder.path().join("variables");
    fs::write(&file, "A=1\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (512..1024).rev().find(free).unwrap().to_string();
    let options = [
        "--user",
        "nobody",
        "--port",
        &port,
        "--env-file",
        file.to_str().unwrap(),
    ];
    let proxy = Proxy::start(&options, &telling(&["A"]));
    assert_eq!(proxy.address().port().to_string(), port);
    assert_eq!(proxy.connect().recv_json(), json!(["1"]));
}

#[test]
fn a_unix_socket_belongs_to_that_user() {
    let Some(nobody) = nobody() else { return };
    let folder = TempFolder::for_sockets();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    let address = format!("unix:{}", path.display());
    let options = ["--user", "nobody", "--listen", &address];
    let mut proxy = Proxy::start_listening(&options, &servers::sh(TELL_IDS), |_| {});
    let found = fs::metadata(&path).unwrap();
    let ids = [nobody.uid.as_raw(), nobody.gid.as_raw()];
    assert_eq!([found.uid(), found.gid()], ids);
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(
        Client::connect_unix(&path).recv_json()[0],
        ids[0].to_string()
    );
    // Its folder is not the user's, so the file stays; the next start takes its place.
    proxy.signal(Signal::SIGTERM);
    proxy.wait_exit(DEADLINE);
    proxy.wait_for_log("can't be removed");
    let _ = Proxy::start_listening(&options, &servers::sh(TELL_IDS), |_| {});
}

#[test]
fn a_command_that_is_closed_to_that_user_ends_the_start() {
    if nobody().is_none() {
        return;
    }
    let folder = TempFolder::new();
    let path = folder.path().join("server");
    fs::write(&path, "#!/bin/sh\nexec cat\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    let line = fails(&["--user", "nobody", path.to_str().unwrap()]);
    assert!(
        line.contains("cannot run") && line.contains("Permission denied"),
        "{line}"
    );
    let line = fails_configured(|command| {
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        command
            .args(["--user", "nobody", "--cwd"])
            .arg(folder.path())
            .arg("cat");
    });
    assert!(
        line.contains("--cwd") && line.contains("Permission denied"),
        "{line}"
    );
}

#[test]
fn a_working_directory_that_is_closed_to_that_user_is_left_with_a_warning() {
    if nobody().is_none() {
        return;
    }
    let folder = TempFolder::new();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let tell_folder = servers::sh(r#"printf '["%s"]\n' "$(pwd -P)"; exec cat"#);
    for (options, expected) in [(&[][..], "/"), (&["--cwd", "/usr"], "/usr")] {
        let options = [&["--user", "nobody"], options].concat();
        let proxy = Proxy::start_configured(&options, &tell_folder, |command| {
            command.current_dir(folder.path());
        });
        assert_eq!(proxy.connect().recv_json(), json!([expected]));
        let is_warned = proxy
            .log()
            .iter()
            .any(|line| line.contains("is closed to that user"));
        assert_eq!(is_warned, expected == "/");
    }
}

#[test]
fn what_is_hidden_stays_hidden_and_what_is_not_does_not() {
    let Some(nobody) = nobody() else { return };
    let owner = |proxy: &Proxy| {
        fs::metadata(format!("/proc/{}/fd", proxy.pid()))
            .unwrap()
            .uid()
    };
    let options = ["--user", "nobody"];
    let proxy = Proxy::start_configured(&options, &servers::mirror(), untraceable);
    assert_eq!(owner(&proxy), 0);
    let proxy = Proxy::start(&options, &servers::mirror());
    assert_eq!(owner(&proxy), nobody.uid.as_raw());
}

#[test]
fn users_that_there_are_not_and_root_are_refused() {
    for (user, words) in [
        ("no-such-user", "there is no user no-such-user"),
        ("nobody:no-such-group", "there is no group no-such-group"),
        ("3999999999", "needs a group"),
        ("root", "is root"),
        ("0", "is root"),
    ] {
        let line = fails(&["--user", user, "--demo"]);
        assert!(line.contains("--user") && line.contains(words), "{line}");
    }
}

#[test]
fn only_root_can_become_another_user_and_everyone_is_himself() {
    let other = "3999999999:3999999999";
    let line = fails_configured(|command| {
        command.args(["--user", other, "cat"]);
        if geteuid().is_root() {
            as_another_user(command, 8);
        }
    });
    assert!(
        line.contains("cannot become 3999999999") && line.contains("not permitted"),
        "{line}"
    );
    if is_root() {
        let own = format!("{0}:{0}", nameless());
        let proxy = Proxy::start_configured(&["--user", &own], &servers::sh(TELL_IDS), |command| {
            as_another_user(command, 100);
        });
        assert_eq!(proxy.connect().recv_json()[0], nameless().to_string());
    }
}
