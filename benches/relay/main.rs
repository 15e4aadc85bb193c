//! What the way through a proxy costs: this one, and what else there is to put a stdio server on TCP, in one run.
//!
//! `cargo bench --bench relay [-- --quick]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "what can't be measured ends the benchmark"
)]

#[path = "../common/mod.rs"]
mod common;

mod charts;
mod contender;
mod figures;
mod goals;
mod link;
mod measure;
mod report;
mod rounds;

use common::affinity::Affinity;
use common::{echo_server, family, results};
use contender::Contender;
use rounds::{Plan, Results};

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let quick = std::env::args().any(|word| word == "--quick");
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    let affinity = Affinity::of_this_process().expect("the system tells its cores");
    let cores = affinity.count();
    family::adopt_orphans().expect("orphans can be adopted");

    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| contender.version().is_some());
    let measured = Results::measure(&contenders, plan, affinity);
    let text = report::text(&measured, &contenders, plan, cores);
    println!("{text}");
    if !quick {
        results::write("relay.txt", &text).expect("results can be written");
        for (name, chart) in charts::all(&measured, &contenders) {
            results::write(name, &chart).expect("results can be written");
        }
    }
}
