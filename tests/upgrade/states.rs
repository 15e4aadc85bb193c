//! States that were written down before: each version understands those of the versions before it.

mod scene;

use std::fs;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mcp_tcp_proxy::upgrade::parcel::Parcel;
use mcp_tcp_proxy::upgrade::text;
use mcp_tcp_proxy::util::side_bytes::Written;
use nix::sys::signal::Signal;

use self::scene::Scene;
use crate::common::proxy::command_under_test;
use crate::common::{DEADLINE, Scratch, eventually, write_program};

/// Arguments with which any of them can be gone on with.
const WORDS: [&str; 4] = ["--generation", "1", "--config", "servers.json"];

/// Has the state of this version written to where it is kept.
const WRITE: &str = "MCP_TCP_PROXY_WRITE_STATE";

/// Where the next program puts what it was left, if it is this test.
const STATE_FILE: &str = "MCP_TCP_PROXY_STATE_FILE";

/// What stands for the folder in which it was written down.
const FOLDER: &str = "/srv/mcp";

fn kept_states() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states")
}

fn own_state() -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    kept_states().join(format!("{version}.state"))
}

/// What the program under test says to a state.
fn rehearse(state: &[u8]) -> String {
    let mut child = command_under_test()
        .arg("rehearse-upgrade")
        .args(WORDS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may not read to the end of what it does not understand.
    let _ = child.stdin.take().unwrap().write_all(state);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn the_states_of_all_versions_are_understood() {
    for entry in fs::read_dir(kept_states()).unwrap() {
        let path = entry.unwrap().path();
        let state = fs::read(&path).unwrap();
        assert_eq!(rehearse(&state), "able\n", "{}", path.display());
        let less = &state[..state.len() - 1];
        assert_ne!(rehearse(less), "able\n", "{}", path.display());
    }
    let state = own_state();
    assert!(
        state.exists(),
        "the state of this version is not kept: {WRITE}=1 cargo test --test upgrade states -- --ignored"
    );
}

/// A state as a text, without what is this machine's: another folder stands for this one, in texts and in paths, which are
/// lists of bytes.
fn text_of(written: Written, folder: &str) -> Vec<u8> {
    let json = String::from_utf8(written.json).unwrap();
    let bytes = |text: &str| {
        let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        bytes.join(",")
    };
    let json = json.replace(folder, FOLDER);
    let json = json.replace(&bytes(folder), &bytes(FOLDER));
    let written = Written {
        json: json.into_bytes(),
        ..written
    };
    let mut text = Vec::new();
    text::write(&written, &mut text).unwrap();
    text
}

/// What a proxy with all kinds of sessions leaves to the next program. In the place of that is this test: it keeps the state.
#[test]
#[ignore = "it writes the state of this version down, once before a release"]
fn the_state_of_this_version_is_written_down() {
    let scratch = Scratch::new();
    let taken = scratch.file("state");
    let test = std::env::current_exe().unwrap();
    let next = format!(
        "#!/bin/sh\nif [ \"$1\" = rehearse-upgrade ]; then cat > /dev/null; echo able; exit; fi\n\
         {STATE_FILE}='{}' exec '{}' --ignored --exact states::the_next_program_keeps_the_state\n",
        taken.display(),
        test.display()
    );
    let next = write_program(&scratch.file("next"), next, 0o755);
    let scene = Scene::new(&scratch, &next);
    scene.proxy.signal(Signal::SIGUSR2);
    eventually("the state", 2 * DEADLINE, || taken.exists());
    let state = text::read(&mut fs::File::open(&taken).unwrap()).unwrap();
    let state = text_of(state, scratch.path());
    assert_eq!(rehearse(&state), "able\n");
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(kept_states()).unwrap();
        fs::write(own_state(), state).unwrap();
    }
}

#[test]
#[ignore = "the test above has a proxy replaced by it"]
fn the_next_program_keeps_the_state() {
    let Some(path) = std::env::var_os(STATE_FILE).map(PathBuf::from) else {
        return;
    };
    let parcel = Parcel::receive(std::io::stdin().as_fd());
    let mut state = parcel.unwrap().unwrap().state;
    state.rewind().unwrap();
    let beside = path.with_extension("new");
    std::io::copy(&mut state, &mut fs::File::create(&beside).unwrap()).unwrap();
    fs::rename(beside, path).unwrap();
}
