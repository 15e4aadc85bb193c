//! What is packaged beside the program: a unit, a configuration, examples. They have to be right for this very program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::processes::send_signal;
use crate::common::{Proxy, TempFolder};
use crate::run;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-tcp-proxy");

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn configuration() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/config.json");
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_configuration_of_the_package_can_be_served() {
    let ended = run(&["check", &configuration()]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_unit_starts_the_program_with_the_configuration_of_the_package() {
    let unit = text("packaging/systemd/mcp-tcp-proxy.service");
    let path = "/etc/mcp-tcp-proxy/config.json";
    for line in [
        format!("ExecStart=/usr/bin/mcp-tcp-proxy --config {path}"),
        format!("ExecReload=/usr/bin/mcp-tcp-proxy check {path}"),
        "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
        "Type=notify".to_owned(),
        "User=mcp-tcp-proxy".to_owned(),
        "StateDirectory=mcp-tcp-proxy".to_owned(),
        "RuntimeDirectory=mcp-tcp-proxy".to_owned(),
        "Environment=HOME=%S/mcp-tcp-proxy".to_owned(),
        "WatchdogSec=30".to_owned(),
        "Restart=on-failure".to_owned(),
        "KillMode=mixed".to_owned(),
        "TimeoutStopSec=90".to_owned(),
        "OOMPolicy=continue".to_owned(),
        "TasksMax=infinity".to_owned(),
        "NoNewPrivileges=yes".to_owned(),
        "ProtectSystem=full".to_owned(),
        "PrivateTmp=yes".to_owned(),
        "RestrictSUIDSGID=yes".to_owned(),
    ] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    let package = text("Cargo.toml");
    assert!(package.contains(&format!("conf-files = [\"{path}\"]")));
    assert!(package.contains("\"packaging/config.json\", \"etc/mcp-tcp-proxy/config.json\""));
    // Node compiles at run time, and some servers make sandboxes.
    for word in ["MemoryDenyWriteExecute=", "RestrictNamespaces="] {
        assert!(!unit.contains(word), "{word}");
    }
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let folder = TempFolder::new();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for name in ["mcp-tcp-proxy.service", "mcp-tcp-proxy.socket"] {
        let unit = text(&format!("packaging/systemd/{name}"));
        // The program is not installed here, and neither is its user.
        let unit = unit.replace("/usr/bin/mcp-tcp-proxy", PROGRAM);
        let unit = unit.replace("User=mcp-tcp-proxy", "User=root");
        let path = folder.path().join(name);
        fs::write(&path, unit).unwrap();
        command.arg(path);
    }
    let Ok(output) = command.output() else {
        return eprintln!("skipped: there is no systemd-analyze here");
    };
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let about_us = told.lines().filter(|line| line.contains("mcp-tcp-proxy"));
    assert_eq!(about_us.collect::<Vec<_>>(), [""; 0], "{told}");
}

#[test]
fn the_examples_use_options_that_there_are() {
    let help = run(&["--help"]).stdout;
    let example = text("examples/kubernetes.yaml");
    let words = example
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"));
    let options: Vec<&str> = words
        .filter(|word| !word.is_empty())
        .map(|word| word.split('=').next().unwrap())
        .collect();
    assert!(options.contains(&"watch") && options.contains(&"drain-delay"));
    for option in options {
        assert!(help.contains(&format!("--{option}")), "--{option}");
    }
    // A stop takes --drain-delay and then --stop-timeout, of which 30 s are the default.
    assert!(example.contains("--drain-delay=10\n"));
    for words in [
        "terminationGracePeriodSeconds: 60",
        "fsGroup: 65532",
        "defaultMode: 0440",
        "httpGet: {path: /readyz, port: status}",
        "httpGet: {path: /healthz, port: status}",
        "singleProcessOOMKill",
    ] {
        assert!(example.contains(words), "{words}");
    }
}

/// The package that was built last.
fn package() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let files = fs::read_dir(folder).unwrap();
    let packages = files.map(|file| file.unwrap().path());
    let packages = packages.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    newest(packages).unwrap()
}

#[test]
#[ignore = "needs root, and the package that packaging/build-deb builds"]
fn the_package_is_installed_serves_by_its_unit_and_is_purged() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/test-deb");
    let output = Command::new(script).arg(package()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
#[ignore = "needs root and podman: packaging/test-image"]
fn the_image_is_built_runs_is_healthy_and_stops() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/test-image");
    let output = Command::new(script).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

/// The program that needs nothing but itself and was built last.
fn static_program() -> PathBuf {
    let target = format!("target/{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    let profiles = ["release", "debug"].map(|profile| folder.join(profile).join("mcp-tcp-proxy"));
    newest(profiles.into_iter()).unwrap()
}

fn newest(files: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let modified = |path: &PathBuf| path.metadata().ok()?.modified().ok();
    let there = files.filter_map(|path| Some((modified(&path)?, path)));
    there.max().map(|(_, path)| path)
}

#[test]
#[ignore = "needs root, and the static program that the README tells how to build"]
fn a_static_program_serves_in_an_empty_root_and_as_the_first_process() {
    let program = static_program();
    for wrapper in [
        &["chroot"][..],
        &["unshare", "--pid", "--fork", "--kill-child=TERM", "chroot"],
    ] {
        let root = TempFolder::new();
        fs::copy(&program, root.path().join("mcp-tcp-proxy")).unwrap();
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(root.path());
        command.args([
            "/mcp-tcp-proxy",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--demo",
        ]);
        let proxy = Proxy::start_as_it_is(command);
        let mut client = proxy.connect();
        client.initialize();
        // It may write nothing there, and has not.
        let files = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(files, 1);
        // unshare(1) does not pass signals on.
        let below = proxy.servers();
        let first = below.first().filter(|_| wrapper.len() > 1);
        send_signal(*first.unwrap_or(&proxy.pid()), Signal::SIGTERM);
        client.read_to_end();
    }
}
