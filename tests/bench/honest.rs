//! What is measured against servers whose delays are known. They are so long that the way there and back, which is real, is
//! less than a percent of them. On a machine with other work, the delays are others.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::{good, start};
use crate::run;

/// A server that takes this long for each request, by its number, and does one thing after the other.
fn slow(delay: impl Fn(u64) -> Duration + Send + 'static) -> String {
    start(move |number, request| {
        let end = Instant::now() + delay(number);
        // A sleep may last longer than it should.
        thread::sleep(
            end.saturating_duration_since(Instant::now())
                .saturating_sub(Duration::from_millis(1)),
        );
        while Instant::now() < end {}
        Some(good(&request["id"]))
    })
}

#[track_caller]
fn measure(arguments: &[&str]) -> Value {
    let ended = run(&[&["--json", "--warm-up", "0", "--era", "legacy"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.json()
}

/// Within one percent, or 20 microseconds.
#[track_caller]
fn assert_near(report: &Value, name: &str, expected: Duration) {
    let found = report["latency_us"][name].as_f64().unwrap();
    let expected = expected.as_secs_f64() * 1e6;
    let most = (expected / 100.0).max(20.0);
    assert!(
        (found - expected).abs() <= most,
        "{name}: {found} µs is not {expected} µs: {report}"
    );
}

#[test]
#[ignore = "it measures, so the machine has to be idle"]
fn a_fixed_delay() {
    let delay = Duration::from_millis(100);
    let target = slow(move |_| delay);
    let report = measure(&["--requests", "100", &target]);
    for name in ["mean", "p50", "p90", "p99"] {
        assert_near(&report, name, delay);
    }
}

#[test]
#[ignore = "it measures, so the machine has to be idle"]
fn two_delays() {
    let [short, long] = [100, 250].map(Duration::from_millis);
    let target = slow(move |number| if number % 5 == 0 { long } else { short });
    let report = measure(&["--requests", "100", &target]);
    assert_near(&report, "p50", short);
    assert_near(&report, "p90", long);
    assert_near(&report, "p99", long);
    assert_near(&report, "mean", (4 * short + long) / 5);
}

#[test]
#[ignore = "it measures, so the machine has to be idle"]
fn a_stall_of_a_second() {
    let second = Duration::from_secs(1);
    let target = slow(move |number| {
        if number == 100 {
            second
        } else {
            Duration::ZERO
        }
    });
    let report = measure(&["--requests", "5000", "--rate", "1000", &target]);
    // A fifth of all requests were due while it stood still, the first of them for all of it.
    assert_near(&report, "max", second);
    assert_near(&report, "p90", second / 2);
    assert_near(&report, "p99", second * 19 / 20);

    let target = slow(move |number| {
        if number == 100 {
            second
        } else {
            Duration::ZERO
        }
    });
    let report = measure(&["--requests", "5000", &target]);
    assert_near(&report, "max", second);
    assert!(
        report["latency_us"]["p99"].as_f64() < Some(10_000.0),
        "{report}"
    );
}
