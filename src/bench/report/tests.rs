//! The reports of figures that are known.

use std::time::Duration;

use super::ratio::ratios;
use super::*;
use crate::bench::failure::Failure;
use crate::options::BenchOptions;

fn round(micros: u64) -> Figures {
    let mut figures = Figures::default();
    let tally = &mut figures.tally;
    for _ in 0..100 {
        tally.latency.add(Duration::from_micros(micros));
    }
    tally.first_response.add(Duration::from_millis(3));
    tally.requests = 101;
    tally.in_time = 100;
    tally.bytes = 5000;
    tally.opened = 2;
    tally.fail(Failure::Error(502, Some("unreachable".to_owned())));
    figures.opening = Duration::from_millis(4);
    figures.measured = Duration::from_secs(2);
    figures
}

fn measured(target: &str, rounds: &[u64]) -> Measured {
    let mut measured = Measured::new(target.to_owned(), Era::Legacy, 2);
    for micros in rounds {
        measured.add(round(*micros));
    }
    measured
}

#[test]
fn ratios_are_of_each_round_and_not_of_the_sum() {
    let first = measured("a", &[100, 200, 1000]);
    let second = measured("b", &[200, 300, 1100]);
    let p50 = |ratios: Vec<ratio::Ratio>| ratios.into_iter().find(|ratio| ratio.name == "p50");
    let ratio = p50(ratios(&first, &second)).unwrap();
    for (found, expected) in [(ratio.median, 1.5), (ratio.min, 1.1), (ratio.max, 2.0)] {
        assert!((found - expected).abs() < 0.01, "{ratio:?}");
    }
    // Of these there are too few samples.
    let all = ratios(&first, &second);
    assert!(all.iter().all(|ratio| ratio.name != "p99_9"));
    assert!(ratios(&measured("a", &[]), &second).is_empty());
}

#[test]
fn json_has_all_figures_and_null_for_what_is_not_known() {
    let text = json::text(&[measured("exec:a \"b\"", &[100])]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["target"], "exec:a \"b\"");
    assert_eq!(report["era"], "legacy");
    assert_eq!(report["sessions"], 2);
    assert_eq!(report["open"]["seconds"], 0.004);
    assert_eq!(report["requests"], 101);
    assert_eq!(report["errors"]["502 unreachable"], 1);
    assert_eq!(report["requests_per_second"], 50.0);
    assert_eq!(report["bytes_per_second"], 2500.0);
    assert!((report["latency_us"]["p99"].as_f64().unwrap() - 100.0).abs() < 0.2);
    assert!(report["latency_us"]["p99_9"].is_null());
    assert!(report["lag_us"].is_null());

    let both = json::text(&[measured("a", &[100]), measured("b", &[200])]);
    let both: serde_json::Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["targets"][1]["target"], "b");
    let ratio = both["ratio"]["p50"]["median"].as_f64().unwrap();
    assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
    assert_eq!(both["ratio"]["requests_per_second"]["max"], 1.0);
}

#[test]
fn csv_has_a_line_for_each_round_and_target() {
    let text = csv::text(&[measured("a,b", &[100, 200]), measured("c", &[300, 400])]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    let columns = |line: &str| line.replace("\"a,b\"", "a").split(',').count();
    for line in &lines {
        assert_eq!(columns(line), columns(lines[0]), "{line}");
    }
    assert!(
        lines[1].starts_with("\"a,b\",legacy,1,2,2,0.004000,"),
        "{text}"
    );
    assert!(lines[2].starts_with("c,legacy,1,") && lines[3].contains(",legacy,2,"));
}

#[test]
fn people_are_told_the_same() {
    let options = BenchOptions::default();
    let text = text::text(
        &[measured("a", &[100, 200]), measured("b", &[200, 300])],
        &options,
    );
    for part in [
        "a (legacy), 2 sessions, 1 in flight each",
        "opened     4 in 8 ms (500/s), first response p50 3.00 ms",
        "requests   202 in 4.0 s, 50/s, 2.5 kB/s",
        "errors     2: 2 502 unreachable",
        "p50 by round: 100 µs, 200 µs",
        "b ÷ a, median of the rounds (least to most)",
        "p50                  1.7",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
