//! A benchmark's report: parts with titles, and last where it was measured.

use std::fmt::Display;

use super::machine;

/// Text that is printed, and kept.
#[derive(Default)]
pub(crate) struct Report(Vec<String>);

impl Report {
    pub(crate) fn add(&mut self, title: &str, part: &dyn Display) {
        self.0.push(format!("{title}\n\n{part}"));
    }

    /// The whole, with what is known of the machine.
    pub(crate) fn text(mut self, cores: usize) -> String {
        self.add("Where", &machine::list(&machine::facts(cores)));
        self.0.join("\n")
    }
}
