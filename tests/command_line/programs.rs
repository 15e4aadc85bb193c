//! Files that can't be run are found at the start, and those that can be are run.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::{Proxy, TempFolder, write_program};
use crate::start::assert_unusable;
use crate::{run, run_configured};

/// Asserts that a file with these contents can't be served, and that the reason is told in these words.
#[track_caller]
fn assert_refused(contents: impl AsRef<[u8]>, words: &str) {
    let folder = TempFolder::new();
    let path = folder.path().join("server");
    write_program(&path, contents, 0o755);
    let line = assert_unusable(path.to_str().unwrap());
    assert!(line.contains(words), "{line}");
}

/// Asserts that a command is served, by a server that sends `[1]` back.
#[track_caller]
fn assert_served(command: &[&str], folder: &Path, path: Option<&str>) -> Proxy {
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let proxy = Proxy::start_configured(&[], &command, |proxy| {
        proxy.current_dir(folder);
        if let Some(path) = path {
            proxy.env("PATH", path);
        }
    });
    let mut client = proxy.connect();
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
    proxy
}

// Scripts.

#[test]
fn a_script_that_names_no_interpreter_is_run_by_the_shell() {
    let folder = TempFolder::new();
    fs::create_dir(folder.path().join("bin")).unwrap();
    let text = "[ \"$1 $2\" = 'a b c' ] && exec cat\n";
    write_program(&folder.path().join("bin/-server"), text, 0o755);
    write_program(&folder.path().join("-server"), text, 0o755);
    for (word, path) in [
        ("bin/-server", None),
        ("./-server", None),
        ("-server", Some("bin:/bin:/usr/bin")),
        ("-server", Some(":/bin:/usr/bin")),
    ] {
        let proxy = assert_served(&[word, "a", "b c"], folder.path(), path);
        let line = proxy.wait_for_log("so /bin/sh runs it");
        assert!(line.contains("WARN") && line.contains("-server"), "{line}");
    }
}

#[test]
fn a_folder_of_path_may_be_relative() {
    let folder = TempFolder::new();
    fs::create_dir(folder.path().join("bin")).unwrap();
    let text = "#!/bin/sh\nexec cat\n";
    write_program(&folder.path().join("bin/server"), text, 0o755);
    write_program(&folder.path().join("other"), text, 0o755);
    assert_served(&["server"], folder.path(), Some("/nowhere:bin:/bin"));
    assert_served(&["other"], folder.path(), Some("/bin:"));
}

#[test]
fn a_script_may_be_run_by_a_script() {
    let folder = TempFolder::new();
    let outer = write_program(&folder.path().join("outer"), "#!/bin/sh\nexec cat\n", 0o755);
    let inner = folder.path().join("inner");
    let inner = write_program(&inner, format!("#!{outer} -x\n"), 0o755);
    assert_served(&[&inner], folder.path(), None);
    // But not for ever.
    let own = folder.path().join("own");
    let line = assert_unusable(&write_program(
        &own,
        format!("#!{}\n", own.display()),
        0o755,
    ));
    assert!(line.contains("nested too deeply"), "{line}");
}

#[test]
fn a_script_of_windows_is_no_command() {
    assert_refused("#!/bin/sh\r\nexec cat\r\n", "carriage return");
    assert_refused("\u{feff}#!/bin/sh\nexec cat\n", "byte order mark");
}

#[test]
fn a_first_line_that_names_no_interpreter_is_none() {
    assert_refused("#!\nexec cat\n", "names no interpreter");
    let long = format!("#!/{}\n", "x".repeat(300));
    assert_refused(long, "longer than 256 bytes");
}

#[test]
fn what_env_can_not_find_is_missed_at_the_start() {
    assert_refused("#!/usr/bin/env no-such-program\n", "'no-such-program'");
    assert_refused(
        "#!/usr/bin/env -S no-such-program -u\n",
        "'no-such-program'",
    );
    // One word, with a space in it.
    assert_refused("#!/usr/bin/env sh -e\n", "'sh -e'");
    let folder = TempFolder::new();
    for line in [
        "#!/usr/bin/env sh",
        "#!/usr/bin/env -S sh -e",
        "#!/usr/bin/env -S A=1 sh",
    ] {
        let script = folder.path().join("server");
        let script = write_program(&script, format!("{line}\nexec cat\n"), 0o755);
        assert_served(&[&script], folder.path(), None);
    }
}

// Other files.

#[test]
fn an_empty_file_is_no_command() {
    assert_refused("", "empty");
}

#[test]
fn what_is_not_a_regular_file_is_no_command() {
    let folder = TempFolder::new();
    let path = folder.path().join("fifo");
    mkfifo(&path, Mode::from_bits_truncate(0o755)).unwrap();
    let line = assert_unusable(path.to_str().unwrap());
    assert!(line.contains("not a regular file"), "{line}");
}

#[test]
fn what_is_not_executable_is_told_with_the_way_out() {
    let folder = TempFolder::new();
    let path = folder.path().join("server.py");
    let line = assert_unusable(&write_program(&path, "import sys\n", 0o644));
    assert!(line.contains("chmod +x"), "{line}");
}

/// Whether the kernel may run what it does not know by itself.
fn has_foreign_formats() -> bool {
    let formats = fs::read_dir("/proc/sys/fs/binfmt_misc");
    let has = formats.is_ok_and(|formats| formats.count() > 2);
    if has {
        eprintln!("skipped: this kernel runs other formats, too");
    }
    has
}

#[test]
fn what_is_neither_a_program_nor_a_script_is_no_command() {
    if !has_foreign_formats() {
        assert_refused("\0\0\0\0", "neither");
        assert_refused("MZ\u{90}\0", "Windows");
        assert_refused(b"\xcf\xfa\xed\xfe\x07", "macOS");
    }
}

/// A program that is there on every machine.
fn program() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_mcp-tcp-proxy")).unwrap()
}

#[test]
fn a_program_for_another_machine_is_no_command() {
    if has_foreign_formats() {
        return;
    }
    let mut other = program();
    let (number, name) = if cfg!(target_arch = "s390x") {
        (62_u16, "x86_64")
    } else {
        (22, "s390x")
    };
    other[18..20].copy_from_slice(&number.to_ne_bytes());
    assert_refused(other, &format!("a program for {name}"));
}

#[test]
fn a_damaged_program_is_no_command() {
    let whole = program();
    for length in [4, 20, 63, 100] {
        assert_refused(&whole[..length], "it is ");
    }
    // Less than the code takes, whatever there is for debuggers after it.
    assert_refused(&whole[..100_000], "truncated");
    let mut object = whole;
    // A file of the compiler's.
    object[16..18].copy_from_slice(&1_u16.to_ne_bytes());
    assert_refused(object, "damaged");
}

#[test]
fn a_program_without_its_loader_is_no_command() {
    let mut other = program();
    let name = b"/ld-";
    let Some(at) = other.windows(name.len()).position(|bytes| bytes == name) else {
        eprintln!("skipped: this program has no loader");
        return;
    };
    other[at + 1] = b'_';
    assert_refused(other, "its loader ");
}

// What the user is told.

#[test]
fn a_command_in_one_word_is_said_to_be_one_word() {
    let ended = run(&["--port=0", "python3 my_server.py"]);
    let line = ended.one_line(1);
    let shown =
        "cannot run 'python3 my_server.py': there is no such program in PATH; it is one word";
    assert!(line.contains(shown), "{line}");
    // Several words are several.
    let ended = run(&["--port=0", "no-such-program", "my server.py", "it's"]);
    let line = ended.one_line(1);
    let shown =
        r"cannot run no-such-program 'my server.py' 'it'\''s': there is no such program in PATH";
    assert!(line.ends_with(shown), "{line}");
}

#[test]
fn a_file_of_the_working_directory_is_not_in_path() {
    let folder = TempFolder::new();
    write_program(&folder.path().join("my-server"), "#!/bin/sh\n", 0o755);
    let ended = run_configured(|command| {
        command
            .args(["--port=0", "my-server"])
            .current_dir(folder.path());
    });
    let line = ended.one_line(1);
    assert!(line.contains("./my-server"), "{line}");
}

#[test]
fn a_file_that_path_leads_to_is_named() {
    let folder = TempFolder::new();
    write_program(&folder.path().join("my-server"), "", 0o755);
    let ended = run_configured(|command| {
        command
            .args(["--port=0", "my-server"])
            .env("PATH", folder.path());
    });
    let line = ended.one_line(1);
    let path = folder.path().join("my-server");
    assert!(
        line.contains(path.to_str().unwrap()) && line.contains("empty"),
        "{line}"
    );
}
