//! The target of a figure, and whether it is met.

use super::table::Table;

/// A bound for a figure.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
        }
    }
}

/// A measured figure, what it must be, and what it should be.
#[derive(Clone)]
pub(crate) struct Goal {
    pub(crate) figure: String,
    /// What follows the numbers, including a blank.
    pub(crate) unit: String,
    pub(crate) must: Bound,
    pub(crate) aim: Option<Bound>,
    /// The figure, or why there is none.
    pub(crate) measured: Result<f64, String>,
}

/// The goals as a table.
pub(crate) fn table(goals: &[Goal]) -> Table {
    let mut table = Table::new(["figure", "measured", "must", "aim", ""]);
    for goal in goals {
        let unit = &goal.unit;
        let aim = goal.aim.map(|aim| aim.text(unit)).unwrap_or_default();
        let (measured, verdict) = match &goal.measured {
            Ok(value) => (format!("{value:.2}{unit}"), verdict(goal, *value)),
            Err(reason) => (format!("({reason})"), ""),
        };
        let must = goal.must.text(unit);
        table.row([&goal.figure, &measured, &must, &aim, verdict]);
    }
    table
}

fn verdict(goal: &Goal, value: f64) -> &'static str {
    if goal.aim.is_some_and(|aim| aim.is_met_by(value)) {
        "aim met"
    } else if goal.must.is_met_by(value) {
        "met"
    } else {
        "NOT MET"
    }
}
