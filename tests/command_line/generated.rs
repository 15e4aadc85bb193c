//! Shell completions and the manual page, as those programs see them that they are for.

use std::process::{Command, Stdio};

use crate::common::TempFolder;
use crate::run;

/// Runs a program on a text in a file, and returns what it prints; `None` if there is no such program here.
fn checked_by(program: &[&str], text: &str) -> Option<String> {
    let folder = TempFolder::new();
    let path = folder.path().join("text");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(program[0])
        .args(&program[1..])
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no {} here", program[0]);
        return None;
    };
    let printed = [output.stdout, output.stderr].concat();
    Some(String::from_utf8(printed).unwrap())
}

/// Prints what a script prints, run by a shell after the completions for that shell.
fn run_in(shell: &[&str], script: &str) -> Option<String> {
    let completions = run(&["completions", shell[0]]).stdout;
    checked_by(shell, &format!("{completions}\n{script}"))
}

#[test]
fn the_shells_find_no_fault_with_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]);
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
        if let Some(complaints) = checked_by(&[shell, "-n"], &ended.stdout) {
            assert_eq!(complaints, "", "{shell}");
        }
    }
}

#[test]
fn bash_completes_options_values_and_commands() {
    const TRY: &str = r#"
        try() {
            COMP_WORDS=(mcp-tcp-proxy "$@") COMP_CWORD=$# COMPREPLY=()
            _mcp_tcp_proxy
            echo "${COMPREPLY[*]}"
        }
    "#;
    for (words, expected) in [
        ("--spa", "--spawn"),
        ("--spawn ''", "eager lazy"),
        ("--spawn = l", "lazy"),
        ("--port 3 --dem", "--demo"),
        ("--port = 3 --dem", "--demo"),
        ("--port ''", ""),
        ("man-pag", "man-page"),
        ("--debug man-pag", ""),
        ("connect --no-", "--no-reconnect --no-resume --no-replay"),
        (
            "connect x:1 --no-",
            "--no-reconnect --no-resume --no-replay",
        ),
        ("bench --vers", "--versus --version"),
        ("bench --era ''", "auto legacy modern"),
        ("bench --json -- mkfif", "mkfifo"),
        ("completions ''", "bash zsh fish"),
        ("demo-server --", ""),
        ("-- mkfif", "mkfifo"),
        ("--port 3 mkfif", "mkfifo"),
    ] {
        let Some(offered) = run_in(&["bash"], &format!("{TRY}\ntry {words}")) else {
            return;
        };
        // A command is named once for each folder that has it.
        let mut offered: Vec<&str> = offered.split_whitespace().collect();
        offered.dedup();
        assert_eq!(offered.join(" "), expected, "{words}");
    }
}

#[test]
fn fish_completes_options_values_and_commands() {
    for (line, expected) in [
        ("--spa", "--spawn"),
        ("--spawn ", "eager lazy"),
        ("--port 3 --dem", "--demo"),
        (
            "connect x:1 --no-",
            "--no-reconnect --no-replay --no-resume",
        ),
        ("bench --vers", "--version --versus"),
        ("bench --era ", "auto legacy modern"),
        ("completions ", "bash fish zsh"),
        ("demo-server ", ""),
        ("-- mkfif", "mkfifo"),
        ("--port 3 mkfif", "mkfifo"),
    ] {
        let script = format!("complete -C 'mcp-tcp-proxy {line}'");
        let Some(offered) = run_in(&["fish", "--no-config"], &script) else {
            return;
        };
        let offered = offered.lines().map(|line| line.split('\t').next().unwrap());
        let offered: Vec<&str> = offered.collect();
        assert_eq!(offered.join(" "), expected, "{line}");
    }
}

#[test]
fn the_manual_page_is_good_roff() {
    let ended = run(&["man-page"]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    if let Some(complaints) = checked_by(&["mandoc", "-Tlint"], &ended.stdout) {
        // It has no date, so that it is the same whenever it is printed.
        let others = complaints
            .lines()
            .filter(|line| !line.contains("missing date"));
        assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
    }
    if let Some(page) = checked_by(&["mandoc", "-Tascii"], &ended.stdout) {
        assert!(page.contains("connect [OPTIONS] HOST:PORT"), "{page}");
        assert!(page.contains("bench [OPTIONS] HOST:PORT"), "{page}");
    }
}
