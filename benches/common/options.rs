//! The options that the long benchmarks share.

use std::process::exit;

/// Says that the committed results are to be replaced.
const WRITE_RESULTS: &str = "--write-results";

/// Says that a short run will do.
const QUICK: &str = "--quick";

/// What the command line asks for.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// A short run, whose figures vary more.
    pub(crate) quick: bool,
    /// Replace the results in `benches/results/`.
    pub(crate) write_results: bool,
}

impl Options {
    /// Reads the command line. Ends the benchmark if it asks to keep the results of a short run.
    pub(crate) fn from_args() -> Self {
        let has = |option: &str| std::env::args().any(|word| word == option);
        let options = Self {
            quick: has(QUICK),
            write_results: has(WRITE_RESULTS),
        };
        if options.quick && options.write_results {
            eprintln!("{WRITE_RESULTS}: only a full run is worth keeping (leave out {QUICK})");
            exit(2);
        }
        options
    }
}
