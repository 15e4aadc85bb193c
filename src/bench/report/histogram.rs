//! The distribution of latencies in a file: as the text that plotters of `HdrHistogram` read, or as its log, from which all
//! percentiles of all rounds can still be had.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Measured;
use crate::bench::samples::Samples;

/// Steps in each half of what is left to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Nanoseconds in a microsecond, which is what the text counts in.
const SCALE: f64 = 1e3;

/// What the name of a log ends in.
const LOG_EXTENSION: &str = "hlog";

/// Writes a text for each target, or a log of all. The error is one line.
pub(in crate::bench) fn write_files(path: &Path, measured: &[Measured]) -> Result<(), String> {
    if path.extension().is_some_and(|end| end == LOG_EXTENSION) {
        let log = log(measured);
        return log
            .and_then(|log| fs::write(path, log).map_err(|error| error.to_string()))
            .map_err(|error| format!("--histogram {}: {error}", path.display()));
    }
    for (at, target) in measured.iter().enumerate() {
        let path = if at > 0 {
            second(path)
        } else {
            path.to_owned()
        };
        fs::write(&path, text(&target.total.tally.latency))
            .map_err(|error| format!("--histogram {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The name of the file for the target that the other is compared with.
fn second(path: &Path) -> PathBuf {
    let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
    name.push("-versus");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Each round of each target, one after the other, with the targets as tags.
fn log(measured: &[Measured]) -> Result<Vec<u8>, String> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| error.to_string())?;
    let mut begin = Duration::ZERO;
    let rounds = measured.iter().map(|target| target.rounds.len()).max();
    for round in 0..rounds.unwrap_or(0) {
        for target in measured {
            let Some(figures) = target.rounds.get(round) else {
                continue;
            };
            // A tag is one word.
            let tag = target.target.replace([' ', ','], "_");
            let histogram = figures.tally.latency.histogram();
            writer
                .write_histogram(histogram, begin, figures.measured, Tag::new(&tag))
                .map_err(|error| format!("{error:?}"))?;
            begin += figures.measured;
        }
    }
    Ok(log)
}

fn text(samples: &Samples) -> String {
    let histogram = samples.histogram();
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to().min(histogram.max()) as f64 / SCALE;
        let share = step.quantile_iterated_to();
        // Writing to a `String` does not fail.
        let _ = write!(text, "{value:12.3} {share:2.12} {count:10}");
        let _ = if share < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - share))
        } else {
            writeln!(text)
        };
    }
    let buckets = histogram.buckets();
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {:12}]",
        histogram.mean() / SCALE,
        histogram.stdev() / SCALE,
        histogram.max() as f64 / SCALE,
        histogram.len(),
        2048
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::Figures;
    use crate::bench::workload::Era;

    #[test]
    fn the_text_goes_up_to_all_samples() {
        let mut samples = Samples::default();
        for micros in 1..=1000 {
            samples.add(Duration::from_micros(micros));
        }
        let text = text(&samples);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|field| field.parse().unwrap())
                    .collect()
            })
            .collect();
        let last = rows.last().unwrap();
        assert!((last[0] - 1000.0).abs() < 1.0, "{last:?}");
        assert_eq!(last[1..], [1.0, 1000.0]);
        let half = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 1.0, "{half:?}");
        assert!((half[3] - 2.0).abs() < 0.01, "{half:?}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn a_log_has_each_round_of_each_target() {
        let target = |name: &str| {
            let mut measured = Measured::new(name.to_owned(), Era::Legacy, 1);
            for _ in 0..2 {
                let mut figures = Figures::default();
                figures.tally.latency.add(Duration::from_millis(5));
                figures.measured = Duration::from_secs(3);
                measured.add(figures);
            }
            measured
        };
        let log = log(&[target("exec:a b"), target("c:1")]).unwrap();
        let log = String::from_utf8(log).unwrap();
        let rows: Vec<&str> = log
            .lines()
            .filter(|line| line.starts_with("Tag="))
            .collect();
        assert_eq!(rows.len(), 4, "{log}");
        assert!(rows[0].starts_with("Tag=exec:a_b,0.000,3.000,5.0"), "{log}");
        assert!(rows[3].starts_with("Tag=c:1,9.000,3.000,5.0"), "{log}");
    }

    #[test]
    fn an_empty_histogram_is_a_text_too() {
        assert!(text(&Samples::default()).contains("Total count    =            0]"));
    }

    #[test]
    fn the_second_file_is_beside_the_first() {
        assert_eq!(
            second(Path::new("a/b.c.hgrm")),
            Path::new("a/b.c-versus.hgrm")
        );
        assert_eq!(second(Path::new("b")), Path::new("b-versus"));
    }
}
