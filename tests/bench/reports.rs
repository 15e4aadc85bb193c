//! The forms of the report, and two targets beside each other.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::termios::{FlowArg, tcflow};

use crate::common::log_stream::terminal;
use crate::common::{DEADLINE, TempFolder, eventually, processes};
use crate::fake::{good, start};
use crate::{SHORT, command, run};

fn target() -> String {
    start(|_, request| Some(good(&request["id"])))
}

#[test]
fn people_get_a_text() {
    let target = target();
    let ended = run(&[&SHORT[..], &["--sessions", "2", &target]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        &format!("{target} (legacy), 2 sessions, 1 in flight each"),
        "opened     2 in ",
        "requests   200 in ",
        "errors     0\n",
        "latency    mean ",
        ", p99 ",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
}

#[test]
fn two_targets_are_measured_in_turn_and_compared() {
    let (first, second) = (target(), target());
    let arguments = [&SHORT[..], &["--rounds", "3", "--versus", &second, &first]].concat();
    let ended = run(&[&["--json"], &arguments[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    for (at, target) in [&first, &second].into_iter().enumerate() {
        let part = &report["targets"][at];
        assert_eq!(&part["target"], target);
        assert_eq!(
            (&part["requests"], &part["rounds"]),
            (&600.into(), &3.into())
        );
    }
    let ratio = &report["ratio"]["p50"];
    let [least, median, most] = ["min", "median", "max"].map(|name| ratio[name].as_f64().unwrap());
    assert!(0.0 < least && least <= median && median <= most, "{report}");
    assert!(report["ratio"]["requests_per_second"]["median"].is_number());

    let ended = run(&arguments);
    assert!(
        ended
            .stdout
            .contains(&format!("{second} ÷ {first}, median of")),
        "{ended:?}"
    );
    let ended = run(&[&["--csv"], &arguments[..]].concat());
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 3, "{ended:?}");
    assert!(lines[0].starts_with("target,era,round,"), "{ended:?}");
    for (at, line) in lines[1..].iter().enumerate() {
        let (target, round) = ([&first, &second][at % 2], at / 2 + 1);
        assert!(
            line.starts_with(&format!("{target},legacy,{round},")),
            "{line}"
        );
    }
}

#[test]
fn the_distribution_goes_into_a_file() {
    let folder = TempFolder::new();
    let path = |name| folder.path().join(name);
    let file = path("out.hgrm");
    let file = file.to_str().unwrap();
    let (first, second) = (target(), target());
    let ended = run(&[
        &SHORT[..],
        &[
            "--rounds",
            "1",
            "--versus",
            &second,
            "--histogram",
            file,
            &first,
        ],
    ]
    .concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in ["out.hgrm", "out-versus.hgrm"] {
        let text = fs::read_to_string(path(name)).unwrap();
        assert!(
            text.contains("Value     Percentile TotalCount 1/(1-Percentile)"),
            "{text}"
        );
        assert!(text.contains("Total count    =          200]"), "{text}");
    }
    let ended = run(&[&SHORT[..], &["--histogram", "/no/such/folder/file", &first]].concat());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("errors     0"), "{ended:?}");
    assert!(
        ended.stderr.contains("--histogram /no/such/folder/file: "),
        "{ended:?}"
    );
}

#[test]
fn a_pipe_gets_nothing_but_the_report() {
    let ended = run(&["--warm-up", "0", "--duration", "1.2", &target()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn whoever_watches_on_a_terminal_sees_it_go_on() {
    let (mut terminal, stderr) = terminal();
    let mut child = command(&["--warm-up", "0", "--duration", "1000", &target()])
        .stderr(stderr)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    terminal.read_until(" requests in the last one, p50 ");
    processes::send_signal(child.id().cast_signed(), Signal::SIGINT);
    let mut report = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut report)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(report.contains("errors     0"), "{report}");
}

#[test]
fn a_terminal_that_stands_still_does_not_stop_a_run() {
    let (mut terminal, stderr) = terminal();
    let pty = stderr.try_clone().unwrap();
    tcflow(&pty, FlowArg::TCOOFF).unwrap();
    let output = command(&["--warm-up", "0", "--duration", "2.5", &target()])
        .stderr(stderr)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(terminal.read(), "");
}

#[test]
fn a_signal_ends_it_while_nobody_takes_the_report() {
    let folder = TempFolder::new();
    let file = folder.path().join("out.hgrm");
    let (_terminal, stdout) = terminal();
    let pty = stdout.try_clone().unwrap();
    tcflow(&pty, FlowArg::TCOOFF).unwrap();
    let histogram = file.to_str().unwrap();
    let mut child = command(&[&SHORT[..], &["--histogram", histogram, &target()]].concat())
        .stdout(stdout)
        .spawn()
        .unwrap();
    // It is written when the run is over, and before the report.
    eventually("the run to be over", DEADLINE, || file.exists());
    processes::send_signal(child.id().cast_signed(), Signal::SIGTERM);
    let mut ended = None;
    eventually("the program to end", DEADLINE, || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn latencies_are_drawn() {
    let folder = TempFolder::new();
    let file = folder.path().join("chart.svg");
    let (first, second) = (target(), target());
    let file = file.to_str().unwrap();
    let ended = run(&[
        &SHORT[..],
        &[
            "--rounds", "1", "--versus", &second, "--chart", file, &first,
        ],
    ]
    .concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let svg = fs::read_to_string(file).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.contains(&first) && svg.contains(&second),
        "{svg}"
    );
}

#[test]
fn the_log_of_a_distribution_has_all_rounds() {
    let folder = TempFolder::new();
    let file = folder.path().join("out.hlog");
    let file = file.to_str().unwrap();
    let ended = run(&[
        &SHORT[..],
        &["--rounds", "3", "--histogram", file, &target()],
    ]
    .concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let log = fs::read_to_string(file).unwrap();
    assert_eq!(
        log.lines().filter(|line| line.starts_with("Tag=")).count(),
        3,
        "{log}"
    );
}
