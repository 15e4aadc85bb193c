//! The logger in a process of its own: what it does with stdout, and what it makes of records.
//!
//! The test harness captures what a test prints, and there is one logger a process. So each test runs this file's program
//! once more, for the part that logs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use log::{LevelFilter, error, info, warn};
use mcp_tcp_proxy::logger::{self, Format};
use mcp_tcp_proxy::reactor::stdio::{Direction, Stdio};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Says to the part that logs that it is to run.
const IS_PART: &str = "MCP_TCP_PROXY_TESTS_LOGGER";

/// Stands on stdout before what the harness prints.
const BEGIN: &str = "-- begin --\n";

/// As in limits.h.
const PIPE_BUF: usize = 4096;

fn is_part() -> bool {
    std::env::var_os(IS_PART).is_some()
}

/// Runs the part of that name. Returns what it wrote to stdout after [`BEGIN`], and to stderr, which takes it all.
#[track_caller]
fn run(part: &str) -> (String, Vec<String>) {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{part}-{}", std::process::id()));
    let Output { status, stdout, .. } = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", part, "--nocapture", "--test-threads=1"])
        .env(IS_PART, "1")
        .stderr(File::create(&path).unwrap())
        .output()
        .unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(status.success(), "{stdout}\n{stderr}");
    let (_, stdout) = stdout.split_once(BEGIN).unwrap();
    (
        stdout.to_owned(),
        stderr.lines().map(str::to_owned).collect(),
    )
}

fn install() {
    print!("{BEGIN}");
    let stderr = Stdio::open(std::io::stderr().as_fd(), Direction::Out);
    logger::install(LevelFilter::Info, Format::Text, stderr, "the-name").unwrap();
}

/// The line without its time, which has to be one.
#[track_caller]
fn untimed(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(
        OffsetDateTime::parse(time, &Rfc3339).is_ok() && time.ends_with('Z'),
        "{line}"
    );
    rest
}

fn untimed_all(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| untimed(line)).collect()
}

#[test]
fn part_lines() {
    if is_part() {
        install();
        info!("all is well");
        warn!(target: "some::other", "a\tb\n2026-01-01T00:00:00.000Z INFO  [forged] \x1b[2J");
        error!(target: "t\n", "");
        log::debug!("not to be seen");
        std::process::exit(0);
    }
}

#[test]
fn a_line_is_time_level_target_and_message() {
    let (stdout, log) = run("part_lines");
    assert_eq!(
        untimed_all(&log),
        [
            "INFO  [logger] all is well",
            "WARN  [some::other] a\tb\\n2026-01-01T00:00:00.000Z INFO  [forged] \\u{1b}[2J",
            "ERROR [t\\n] ",
        ]
    );
    assert_eq!(stdout, "");
}

#[test]
fn part_long_lines() {
    if is_part() {
        install();
        for text in ["x", "€", "\x1b"] {
            for length in [1023, 1024, 1025, 3900, 5000, 1_000_000] {
                info!("{}", text.repeat(length / text.len()));
            }
            info!(target: &"t".repeat(1000), "{}", text.repeat(5000));
        }
        info!("the end");
        std::process::exit(0);
    }
}

/// More would not fit into the pipe where stdout was, at once and under all circumstances.
#[test]
fn no_line_is_longer_than_a_pipe_takes() {
    let (stdout, log) = run("part_long_lines");
    assert_eq!(log.len(), 3 * 7 + 1);
    for line in &log {
        assert!(line.len() < PIPE_BUF, "{} bytes: {line}", line.len());
        untimed(line);
    }
    let message = |index: usize| log[index].split_once("] ").unwrap().1;
    assert_eq!(message(3), "x".repeat(3900));
    for (index, line) in log.iter().enumerate().take(3 * 7) {
        // An escape is six bytes long.
        let is_cut = index % 7 > 3 || index >= 14;
        assert_eq!(line.ends_with('…'), is_cut, "{index}: {line}");
        assert!(!is_cut || message(index).len() > 3900, "{index}: {line}");
    }
    assert_eq!(untimed(log.last().unwrap()), "INFO  [logger] the end");
    assert_eq!(stdout, "");
}

#[test]
fn part_printed() {
    if is_part() {
        install();
        println!("printed\x1b");
        print!("in pieces, ");
        info!("one");
        print!("{}", "x".repeat(3000));
        info!("{}", "y".repeat(3900));
        print!("by and by\nto the end");
        log::logger().flush();
        std::process::exit(0);
    }
}

#[test]
fn what_is_printed_goes_to_the_log_and_not_to_stdout() {
    let (stdout, log) = run("part_printed");
    assert_eq!(
        untimed_all(&log),
        [
            r"WARN  [stdout] printed\u{1b}",
            "WARN  [stdout] in pieces, ",
            "INFO  [logger] one",
            &format!("WARN  [stdout] {}", "x".repeat(3000)),
            &format!("INFO  [logger] {}", "y".repeat(3900)),
            "WARN  [stdout] by and by",
            "WARN  [stdout] to the end",
        ]
    );
    assert_eq!(stdout, "");
}

#[test]
fn part_exec() {
    if is_part() {
        install();
        println!("for the log");
        let failed = logger::with_original_stdout(|| {
            println!("for stdout");
            warn!("lost");
            Command::new("/no/such/program").exec()
        });
        println!("for the log again");
        warn!("{}", failed.unwrap());
        let error =
            logger::with_original_stdout(|| Command::new("/bin/echo").arg("replaced").exec());
        panic!("{error:?}");
    }
}

#[test]
fn a_program_that_takes_the_place_of_this_one_has_the_original_stdout() {
    let (stdout, log) = run("part_exec");
    assert_eq!(stdout, "for stdout\nreplaced\n");
    let log = untimed_all(&log);
    let lost = "WARN  [the-name] log lines lost, as stderr did not take them: 1";
    assert_eq!(log.len(), 4, "{log:?}");
    assert_eq!(
        log[..3],
        [
            lost,
            "WARN  [stdout] for the log",
            "WARN  [stdout] for the log again",
        ]
    );
    assert!(log[3].contains("No such file"), "{log:?}");
}

#[test]
fn part_twice() {
    if is_part() {
        install();
        let stderr = Stdio::open(std::io::stderr().as_fd(), Direction::Out);
        warn!(
            "{}",
            logger::install(LevelFilter::Info, Format::Text, stderr, "the-name").is_err()
        );
        assert!(logger::write_line("a line of its own"));
        std::process::exit(0);
    }
}

#[test]
fn a_second_logger_is_refused() {
    let (_, log) = run("part_twice");
    assert_eq!(untimed(&log[0]), "WARN  [logger] true");
    assert_eq!(log[1..], ["a line of its own"]);
}
