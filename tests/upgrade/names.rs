//! Names, words and variables of any bytes, which are no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::proxy::command_under_test;
use crate::common::{Proxy, Scratch};
use crate::refused::assert_serves;
use crate::{generation, upgrade};

fn is_in(words: &[u8], word: &[u8]) -> bool {
    words.split(|byte| *byte == 0).any(|other| other == word)
}

#[test]
fn what_is_no_text_goes_on_as_it_is() {
    let scratch = Scratch::new();
    let folder = scratch.file("").join(OsStr::from_bytes(b"folder\xff"));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join(OsStr::from_bytes(b"program\xfe"));
    symlink(command_under_test().get_program(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["--traceable", "--host", "127.0.0.1", "--port", "0", "--"]);
    let script = b"[ \"$NAME\" = \"$1\" ] && exec cat";
    command
        .args(["/bin/sh", "-c"])
        .arg(OsStr::from_bytes(script));
    let word = OsStr::from_bytes(b"word\xff");
    command.arg("sh").arg(word);
    command.env("NAME", word);
    let proxy = Proxy::start_as_it_is(command);
    let mut client = proxy.connect();
    assert_serves(&mut client);
    upgrade(&proxy);
    assert_serves(&mut client);
    let pid = proxy.pid().to_string();
    let mut command = Command::new(&program);
    let output = command.args(["upgrade", &pid]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(generation(&proxy), 2);
    assert_serves(&mut client);
    // Servers that are started from now on get the same.
    assert_serves(&mut proxy.connect());
    let of_proxy = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
    assert!(is_in(&of_proxy("cmdline"), b"word\xff"));
    assert!(is_in(&of_proxy("environ"), b"NAME=word\xff"));
    let log = proxy.log().join("\n");
    assert!(!log.contains("/proc/self/status"), "{log}");
}
