//! The least that a new server can take: its own start and two results, over pipes, without any proxy.

use crate::common::generator::{Load, Target};
use crate::common::table::number;

/// The median and the worst, in ms.
pub(crate) fn measure(command: &[String], rounds: usize) -> [String; 2] {
    let load = Load::of_era("legacy")
        .with_switch("--churn")
        .with("--requests", rounds)
        .with("--warm-up", 0);
    let report = load.run(&Target::Command(command.to_vec()));
    let report = report.expect("the server responds");
    ["p50", "max"].map(|what| {
        let micros = report.latency(what).expect("there are samples");
        number(micros / 1e3)
    })
}
