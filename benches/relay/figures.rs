//! The figures of the measures: their names and units.

use super::measure::Measure;

/// One number that a measure yields.
pub(crate) struct Figure {
    /// The index of the measure, and the index of the number among those of the measure.
    pub(crate) at: (usize, usize),
    pub(crate) name: String,
    pub(crate) unit: &'static str,
}

/// All figures, in the order of their measures.
pub(crate) fn all() -> Vec<Figure> {
    let measures = Measure::ALL.into_iter().enumerate();
    measures.flat_map(|(at, measure)| of(measure, at)).collect()
}

/// The figures of a measure.
fn of(measure: Measure, at: usize) -> Vec<Figure> {
    let (names, unit) = match measure {
        Measure::RoundTrip { bytes } => {
            let size = size(bytes);
            let name = |percentile| format!("{size} {percentile}");
            (["p50", "p99", "p99.9"].map(name).to_vec(), "µs")
        }
        Measure::Messages { bytes, in_flight } => {
            (vec![format!("{} × {in_flight}", size(bytes))], "msg/s")
        }
        Measure::Bulk { bytes, in_flight } => {
            (vec![format!("{} × {in_flight}", size(bytes))], "MB/s")
        }
        Measure::Sessions { clients: 1 } => (vec!["1 client".to_owned()], "sess/s"),
        Measure::Sessions { clients } => (vec![format!("{clients} clients")], "sess/s"),
    };
    let names = names.into_iter().enumerate();
    names
        .map(|(part, name)| Figure {
            at: (at, part),
            name,
            unit,
        })
        .collect()
}

/// The figure of this measure; the one with the index `part` if it has several.
pub(crate) fn of_measure(measure: Measure, part: usize) -> (usize, usize) {
    let at = Measure::ALL.iter().position(|&other| other == measure);
    (at.unwrap_or_default(), part)
}

fn size(bytes: usize) -> String {
    match bytes {
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        10_000.. => format!("{} KB", bytes / 1000),
        _ => format!("{bytes} B"),
    }
}
