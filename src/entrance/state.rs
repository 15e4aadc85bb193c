//! The entrance as it is written down: who may come in by a token, and what is known of those who could not. Whoever is in
//! the entrance is not passed on, and what else is asked the options say.

use serde::{Deserialize, Serialize};

use super::Entrance;
use super::failures::FailuresState;
use super::tokens::Tokens;
use super::{LogRateLimit, RefusalCounts};

/// All of that.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntranceState {
    tokens: Option<Tokens>,
    failures: FailuresState,
    refusals: RefusalCounts,
    log: LogRateLimit,
}

impl EntranceState {
    /// Who may come in, if tokens are asked for.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }
}

impl<P> Entrance<P> {
    /// All that is written down.
    pub fn state(&self) -> EntranceState {
        EntranceState {
            tokens: self.rules.tokens.clone(),
            failures: self.failures.state(),
            refusals: self.refusals,
            log: self.log.clone(),
        }
    }

    /// Goes on with it.
    pub fn restore(&mut self, state: EntranceState) {
        self.rules.tokens = state.tokens;
        self.failures = state.failures.into();
        self.refusals = state.refusals;
        self.log = state.log;
    }
}
