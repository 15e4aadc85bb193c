//! What is wrong with a configuration, or likely to be: gathered with the places where it stands.

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Write as _};
use std::path::Path;

use super::Errors;
use super::json::Json;
use crate::cli::keys::nearest;
use crate::logger;

/// Errors that are shown. Where there are more, they are mostly the same mistake.
const MAX_ERRORS: usize = 50;

/// Where something stands: `$.mcpServers.git.args[1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn root() -> Self {
        Self("$".to_owned())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let mut place = self.0.clone();
        if !key.is_empty() && key.bytes().all(is_plain) {
            let _ = write!(place, ".{key}");
        } else {
            let _ = write!(place, "[{key:?}]");
        }
        Self(place)
    }

    pub(super) fn at(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) struct Problems {
    file: String,
    errors: Vec<String>,
    left_out: usize,
    warnings: Vec<String>,
    /// Keys that mean nothing here.
    foreign: BTreeSet<String>,
}

impl Problems {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            errors: Vec::new(),
            left_out: 0,
            warnings: Vec::new(),
            foreign: BTreeSet::new(),
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn error(&mut self, place: &Place, words: &str) {
        if self.errors.len() == MAX_ERRORS {
            self.left_out += 1;
            return;
        }
        let line = format!("{}: {place}: {words}", self.file);
        self.errors.push(logger::one_line(&line));
    }

    pub(super) fn warn(&mut self, place: &Place, words: &str) {
        let line = format!("{}: {place}: {words}", self.file);
        self.warnings.push(logger::one_line(&line));
    }

    /// A key that is some host's, and means nothing here.
    pub(super) fn foreign(&mut self, key: &str) {
        self.foreign.insert(key.to_owned());
    }

    /// A key that nobody knows.
    pub(super) fn unknown<'a>(
        &mut self,
        place: &Place,
        key: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        let hint = match nearest(key, known) {
            Some(meant) => format!(", did you mean {meant:?}?"),
            None => " (leave it out)".to_owned(),
        };
        self.error(place, &format!("there is no such key{hint}"));
    }

    /// The entries of an object; a key that stands twice is an error, and so is what is no object.
    pub(super) fn object<'a>(&mut self, place: &Place, value: &'a Json) -> &'a [(String, Json)] {
        let Json::Object(entries) = value else {
            self.wrong_kind(place, value, "an object");
            return &[];
        };
        let mut seen = HashSet::new();
        let mut twice = BTreeSet::new();
        for (key, _) in entries {
            if !seen.insert(key) && twice.insert(key) {
                self.error(&place.key(key), "it stands there twice (leave out one)");
            }
        }
        entries
    }

    pub(super) fn wrong_kind(&mut self, place: &Place, value: &Json, wanted: &str) {
        let kind = value.kind();
        self.error(place, &format!("it is {kind}, and has to be {wanted}"));
    }

    /// The warnings, if there are no errors.
    pub(super) fn end(mut self) -> Result<Vec<String>, Errors> {
        if self.left_out > 0 {
            let line = format!("{}: and {} more", self.file, self.left_out);
            self.errors.push(line);
        }
        if !self.errors.is_empty() {
            return Err(Errors(self.errors));
        }
        if !self.foreign.is_empty() {
            let keys: Vec<String> = self.foreign.iter().map(|key| format!("{key:?}")).collect();
            let line = format!(
                "{}: these keys mean nothing here: {}",
                self.file,
                keys.join(", ")
            );
            self.warnings.push(logger::one_line(&line));
        }
        Ok(self.warnings)
    }
}
