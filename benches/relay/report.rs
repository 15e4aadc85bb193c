//! The results as text: targets, ratios, and then the figures.

use std::fmt::Display;

use super::contender::Contender;
use super::figures::{self, Figure};
use super::goals::{self, ratio};
use super::rounds::{Plan, Results, Trouble};
use crate::common::affinity::Cores;
use crate::common::machine;
use crate::common::reach;
use crate::common::table::{Table, number};

/// Everything, as one text.
pub(crate) fn text(
    results: &Results,
    contenders: &[Contender],
    plan: Plan,
    cores: usize,
) -> String {
    let mut parts = Vec::new();
    let mut add = |title: &str, table: &dyn Display| parts.push(format!("{title}\n\n{table}"));
    add("Targets", &reach::table(&goals::all(results)));
    for on in Cores::BOTH {
        let title = format!("mcp-tcp-proxy : others, {}", on.name());
        add(&title, &ratios(results, contenders, on));
    }
    for on in Cores::BOTH {
        let title = format!("Figures, {}", on.name());
        add(&title, &absolute(results, contenders, on));
    }
    add("How and where", &about(plan, cores));
    parts.join("\n")
}

fn ratios(results: &Results, contenders: &[Contender], cores: Cores) -> Table {
    figure_table(contenders, |contender, figure| {
        let own = contender == Contender::Proxy;
        let ratio = ratio(results, cores, figure.at, contender);
        (!own).then(|| ratio.map(|ratio| format!("{ratio:.2}")))
    })
}

fn absolute(results: &Results, contenders: &[Contender], cores: Cores) -> Table {
    figure_table(contenders, |contender, figure| {
        Some(results.median(cores, contender, figure.at).map(number))
    })
}

/// A row for each figure, a column for each contender that has a cell.
fn figure_table(
    contenders: &[Contender],
    cell: impl Fn(Contender, &Figure) -> Option<Result<String, Trouble>>,
) -> Table {
    let figures = figures::all();
    let shown = |contender: &Contender| cell(*contender, &figures[0]).is_some();
    let contenders: Vec<Contender> = contenders.iter().copied().filter(shown).collect();
    let names = contenders.iter().map(|contender| contender.name());
    let mut table = Table::new(["", "unit"].into_iter().chain(names));
    for figure in &figures {
        let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
        row.extend(contenders.iter().filter_map(|&contender| {
            let cell = cell(contender, figure)?;
            Some(cell.unwrap_or_else(|trouble| trouble.word().to_owned()))
        }));
        table.row(row);
    }
    table
}

fn about(plan: Plan, cores: usize) -> String {
    let rounds = format!(
        "{} of {} ms for each figure; medians",
        plan.rounds,
        plan.slice.as_millis()
    );
    let mut facts = vec![("rounds".to_owned(), rounds)];
    facts.extend(machine::facts(cores));
    for contender in Contender::ALL {
        if !contender.is_own() {
            let version = contender.version();
            let version = version.unwrap_or_else(|| contender.why_missing().to_owned());
            facts.push((contender.name().to_owned(), version));
        }
    }
    machine::list(&facts)
}
