//! Numbers as people read them.

use std::time::Duration;

/// `1.2 MB`
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `2 h 5 min`
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time that things take, in seconds; none if it is zero.
pub fn seconds(time: f64) -> String {
    if time <= 0.0 {
        "–".to_owned()
    } else if time < 0.001 {
        format!("{:.0} µs", time * 1e6)
    } else {
        span(Duration::try_from_secs_f64(time).unwrap_or(Duration::MAX))
    }
}

/// A time in microseconds with three digits, if it is known.
pub fn micros(time: Option<f64>) -> String {
    let Some(time) = time else {
        return "–".to_owned();
    };
    let (value, unit) = match time {
        ..1e3 => (time, "µs"),
        1e3..1e6 => (time / 1e3, "ms"),
        _ => (time / 1e6, "s"),
    };
    let digits = match value {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0, 999, 1000, 1_234_567, 5_000_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 TB"]);
        let shown = [7, 1500, 61_000, 7_500_000, 90_000_000].map(Duration::from_millis);
        let shown = shown.map(span);
        assert_eq!(
            shown,
            ["7 ms", "1.5 s", "1 min 1 s", "2 h 5 min", "1 d 1 h"]
        );
        let shown = [0.0, 0.0002, 0.005, 2.0].map(seconds);
        assert_eq!(shown, ["–", "200 µs", "5 ms", "2.0 s"]);
        let shown = [None, Some(7.123), Some(81.24), Some(1234.0), Some(2e6)].map(micros);
        assert_eq!(shown, ["–", "7.12 µs", "81.2 µs", "1.23 ms", "2.00 s"]);
    }
}
