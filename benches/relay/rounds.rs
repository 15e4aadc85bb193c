//! The run: each round measures everything with every contender in turn, so that a disturbance hits all alike.

use std::time::Duration;

use super::contender::{Contender, Running};
use super::measure::Measure;
use crate::common::affinity::{Affinity, Cores};
use crate::common::stats::median;
use crate::common::{family, time_limit};

/// How long a run is.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// How long each measure takes.
    pub(crate) slice: Duration,
    /// How much longer it may take before it counts as hanging.
    pub(crate) patience: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        slice: Duration::from_millis(300),
        patience: Duration::from_secs(3),
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        slice: Duration::from_millis(80),
        patience: Duration::from_secs(1),
    };
}

/// One contender on these cores, and its results so far.
struct Entry {
    contender: Contender,
    cores: Cores,
    running: Option<Running>,
    /// One for each measure.
    cells: Vec<Cell>,
}

/// The results of one contender in one measure.
#[derive(Clone, Default)]
struct Cell {
    /// One for each round; in each, one number for each figure.
    rounds: Vec<Vec<Option<f64>>>,
    trouble: Option<Trouble>,
}

/// Why there is no result.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was ended at the time limit.
    Hangs,
    Fails(String),
    /// There were too few samples.
    TooFew,
    /// It was not measured.
    NotMeasured,
}

impl Trouble {
    /// A word that fits into a table.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::Fails(_) => "fails",
            Self::TooFew => "–",
            Self::NotMeasured => "not measured",
        }
    }
}

/// All that was measured.
pub(crate) struct Results {
    entries: Vec<Entry>,
    affinity: Affinity,
}

impl Results {
    /// Measures these contenders.
    pub(crate) fn measure(contenders: &[Contender], plan: Plan, affinity: Affinity) -> Self {
        let mut entries = Vec::new();
        for cores in Cores::BOTH {
            entries.extend(contenders.iter().map(|&contender| Entry {
                contender,
                cores,
                running: None,
                cells: vec![Cell::default(); Measure::ALL.len()],
            }));
        }
        let mut results = Self { entries, affinity };
        for round in 1..=plan.rounds {
            eprintln!("round {round} of {}", plan.rounds);
            for at in 0..Measure::ALL.len() {
                for entry in 0..results.entries.len() {
                    results.ask(entry, at, plan);
                }
            }
        }
        for entry in &mut results.entries {
            entry.running = None;
        }
        results
    }

    /// The median of this figure over all rounds, or why there is none.
    pub(crate) fn median(
        &self,
        cores: Cores,
        contender: Contender,
        (measure, part): (usize, usize),
    ) -> Result<f64, Trouble> {
        let of_both = |entry: &&Entry| entry.cores == cores && entry.contender == contender;
        let entry = self.entries.iter().find(of_both);
        let entry = entry.ok_or(Trouble::NotMeasured)?;
        let cell = &entry.cells[measure];
        if let Some(trouble) = &cell.trouble {
            return Err(trouble.clone());
        }
        let values: Vec<f64> = cell.rounds.iter().filter_map(|round| round[part]).collect();
        if values.is_empty() {
            return Err(Trouble::TooFew);
        }
        Ok(median(&values))
    }

    /// Measures one contender once, and keeps the result.
    fn ask(&mut self, at: usize, measure: usize, plan: Plan) {
        if self.entries[at].cells[measure].trouble.is_some() {
            return;
        }
        let answer = self.answer(at, Measure::ALL[measure], plan);
        let entry = &mut self.entries[at];
        match answer {
            Ok(figures) => entry.cells[measure].rounds.push(figures),
            Err(trouble) => {
                let (who, cores) = (entry.contender.name(), entry.cores.name());
                let what = Measure::ALL[measure];
                match &trouble {
                    Trouble::Fails(reason) => eprintln!("{who}, {cores}, {what:?}: {reason}"),
                    _ => eprintln!("{who}, {cores}, {what:?}: {}", trouble.word()),
                }
                entry.cells[measure].trouble = Some(trouble);
                // It may be in any state, or dead: start it again.
                entry.running = None;
            }
        }
        let services = self.services();
        let left = family::settle(&services, plan.patience);
        if left > 0 {
            let entry = &self.entries[at];
            eprintln!("{} left {left} processes", entry.contender.name());
        }
    }

    fn answer(
        &mut self,
        at: usize,
        measure: Measure,
        plan: Plan,
    ) -> Result<Vec<Option<f64>>, Trouble> {
        let others = self.services_but(at);
        let entry = &mut self.entries[at];
        let moved = self.affinity.apply(entry.cores);
        moved.map_err(|error| Trouble::Fails(format!("cannot choose cores: {error}")))?;
        if entry.running.is_none() {
            entry.running = Some(entry.contender.start().map_err(Trouble::Fails)?);
        }
        let Some(running) = &entry.running else {
            return Err(Trouble::NotMeasured);
        };
        time_limit::within(
            plan.slice + plan.patience,
            || family::kill_all_but(&others),
            || measure.run(&running.target(), plan.slice),
        )
        .ok_or(Trouble::Hangs)?
        .map_err(Trouble::Fails)
    }

    /// The processes that live on from one measure to the next.
    fn services(&self) -> Vec<i32> {
        self.services_but(usize::MAX)
    }

    fn services_but(&self, excluded: usize) -> Vec<i32> {
        let others = self.entries.iter().enumerate();
        let others = others.filter(|(at, _)| *at != excluded);
        let running = others.filter_map(|(_, entry)| entry.running.as_ref());
        running.filter_map(Running::pid).collect()
    }
}
