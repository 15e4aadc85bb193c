//! Where servers are started, and how their programs are found.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::common::{Proxy, TempFolder, servers, write_program};
use crate::{fails, fails_configured, telling};

const TELL_FOLDER: &str = r#"printf '["%s"]\n' "$(pwd -P)"; exec cat"#;

#[test]
fn servers_are_started_in_their_directory_and_the_proxy_stays_in_its_own() {
    let (own, other) = (TempFolder::new(), TempFolder::new());
    let other = other.path().canonicalize().unwrap();
    fs::create_dir(own.path().join("below")).unwrap();
    let below = own.path().canonicalize().unwrap().join("below");
    for (option, expected) in [(other.to_str().unwrap(), &other), ("below", &below)] {
        let proxy =
            Proxy::start_configured(&["--cwd", option], &servers::sh(TELL_FOLDER), |command| {
                command.current_dir(own.path());
            });
        for _ in 0..2 {
            assert_eq!(
                proxy.connect().recv_json(),
                json!([expected.to_str().unwrap()])
            );
        }
        let now = fs::read_link(format!("/proc/{}/cwd", proxy.pid())).unwrap();
        assert_eq!(now, own.path().canonicalize().unwrap());
    }
}

#[test]
fn a_command_is_relative_to_the_directory_of_servers() {
    let folder = TempFolder::new();
    fs::create_dir(folder.path().join("bin")).unwrap();
    let text = "#!/bin/sh\nprintf '[\"%s\"]\\n' \"$0\"; exec cat\n";
    write_program(&folder.path().join("bin/server"), text, 0o755);
    let folder = folder.path().to_str().unwrap();
    for (options, word) in [
        (vec![], "./bin/server"),
        (vec!["--env", "PATH=bin:/bin:/usr/bin"], "server"),
    ] {
        let options = [&["--cwd", folder], &options[..]].concat();
        let proxy = Proxy::start(&options, &[word.to_owned()]);
        let told = proxy.connect().recv_json();
        assert!(
            ["./bin/server", "bin/server"].contains(&told[0].as_str().unwrap()),
            "{told}"
        );
    }
}

#[test]
fn a_directory_that_is_missing_is_told_at_the_start_and_later() {
    let folder = TempFolder::new();
    let path = folder.path().join("work");
    let path = path.to_str().unwrap();
    let line = fails(&["--cwd", path, "cat"]);
    assert!(
        line.contains("--cwd") && line.contains("No such file"),
        "{line}"
    );
    write_program(Path::new(path), "", 0o644);
    let line = fails(&["--cwd", path, "cat"]);
    assert!(line.contains("Not a directory"), "{line}");
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    let proxy = Proxy::start(&["--cwd", path, "--spawn", "lazy"], &servers::mirror());
    fs::remove_dir(path).unwrap();
    let mut client = proxy.connect();
    client.send_line("[1]");
    let line = proxy.wait_for_log("the server could not be started");
    assert!(
        line.contains("the working directory") && line.contains(path),
        "{line}"
    );
    // Another one of its name does, too.
    fs::create_dir(path).unwrap();
    assert_eq!(client.recv_line(), "[1]");
}

#[test]
fn the_path_that_counts_is_the_servers_and_the_program_has_the_name_that_it_was_given() {
    let folder = TempFolder::new();
    symlink("/bin/sh", folder.path().join("my-shell")).unwrap();
    let path = format!("PATH={}:/bin:/usr/bin", folder.path().display());
    let code = r#"IFS= read -r name </proc/$$/cmdline; printf '["%s"]\n' "${name%%-c*}"; exec cat"#;
    let command = ["my-shell", "-c", code].map(str::to_owned);
    let proxy = Proxy::start(&["--env", &path], &command);
    let told = proxy.connect().recv_json();
    assert!(told[0].as_str().unwrap().starts_with("my-shell"), "{told}");
    // And the proxy's own does not.
    let line = fails_configured(|proxy| {
        proxy.args(["--env", "PATH=/bin:/usr/bin"]).args(&command);
        proxy.env("PATH", folder.path());
    });
    assert!(line.contains("there is no such program in PATH"), "{line}");
}

#[test]
fn what_can_not_be_run_on_the_way_is_passed_over() {
    let folder = TempFolder::new();
    for name in ["folder/server", "plain", "good"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    write_program(
        &folder.path().join("plain/server"),
        "#!/bin/sh\nexit 1\n",
        0o644,
    );
    symlink("/bin/cat", folder.path().join("good/server")).unwrap();
    let folders = ["missing", "folder", "plain", "good"].map(|name| folder.path().join(name));
    let path = std::env::join_paths(folders)
        .unwrap()
        .into_string()
        .unwrap();
    let proxy = Proxy::start(&["--env", &format!("PATH={path}")], &["server".to_owned()]);
    let mut client = proxy.connect();
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

#[test]
fn a_server_without_a_path_is_found_where_the_system_looks() {
    let proxy = Proxy::start_configured(&[], &["sh".to_owned()], |command| {
        let server = telling(&["PATH"]);
        command.args(&server[1..]).env_remove("PATH");
    });
    proxy.connect().recv_json();
}
