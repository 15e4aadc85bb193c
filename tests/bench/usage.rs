//! Command lines that make no sense, and what can be read about those that do.

use crate::run;

#[test]
fn what_is_wrong_is_said_in_a_line() {
    for (arguments, part) in [
        (&[][..], "bench: the target is missing"),
        (&["somewhere"], "bench: 'somewhere' is not a target"),
        (
            &["a:1", "--sessions", "0"],
            "--sessions: '0' is not a whole number of sessions (1 to 100000)",
        ),
        (
            &["a:1", "--spawn", "lazy"],
            "--spawn: no such option of bench",
        ),
    ] {
        let ended = run(arguments);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(part), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1);
    }
    for (arguments, part) in [
        (
            &[
                "--tool",
                "t",
                "--arguments",
                "[]",
                "--era",
                "legacy",
                "127.0.0.1:1",
            ][..],
            "--arguments: not a JSON object",
        ),
        (
            &["--message", "/no/such/file", "127.0.0.1:1"],
            "--message /no/such/file: No such file",
        ),
        (
            &["--sessions", "100000", "127.0.0.1:1"],
            "--sessions: the limit on open files",
        ),
    ] {
        let mut command = crate::command(arguments);
        crate::common::proxy::in_shell("ulimit -n 500", &mut command);
        let ended = crate::Ended::of(
            command
                .stdout(std::process::Stdio::piped())
                .output()
                .unwrap(),
        );
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}

#[test]
fn the_help_says_what_is_measured() {
    let ended = run(&["--help"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "--versus TARGET",
        "the system calls of this program are a part of it",
        "--churn",
    ] {
        assert!(ended.stdout.contains(part), "{part}");
    }
}
