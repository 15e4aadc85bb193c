//! What passing through a proxy costs: this one and the other ways to put a stdio server on TCP, in one run.
//!
//! `cargo bench --bench relay [-- --quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../common/mod.rs"]
mod common;

mod bare;
mod charts;
mod contender;
mod figures;
mod goals;
mod measure;
mod report;
mod rounds;

use common::affinity::Affinity;
use common::options::Options;
use common::{echo_server, family, results};
use contender::Contender;
use rounds::{Plan, Results};

fn main() {
    if echo_server::run_if_asked() || bare::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    let plan = if options.quick {
        Plan::QUICK
    } else {
        Plan::FULL
    };
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    let cores = affinity.count();
    family::adopt_orphans().expect("orphans can be adopted");

    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| contender.version().is_some());
    let measured = Results::measure(&contenders, plan, affinity);
    let text = report::text(&measured, &contenders, plan, cores);
    println!("{text}");
    let mut files = charts::all(&measured, &contenders);
    files.push(("relay.txt", text));
    results::keep(options, files).expect("results can be written");
}
