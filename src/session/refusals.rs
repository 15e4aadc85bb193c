//! What the log says of messages that the client sends and no server gets.

use serde::{Deserialize, Serialize};

use super::log_limits::LogLimits;
use super::report::Label;
use super::{Context, Session};
use crate::protocol::lines::TooLong;
use crate::util::about::about;
use crate::util::log_rate_limit::{LogRate, LogRateLimit};
use crate::util::time::Time;

/// Lines about one kind of refusal in one session. The line at the session's end counts all refusals.
static REFUSALS: LogRate = LogRate {
    burst: 10,
    interval: std::time::Duration::from_secs(1),
};

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not JSON.
    Unreadable,
    /// It, or an id in it, is longer than allowed.
    TooLong,
    /// There is no memory for it.
    NoMemory,
    /// Too many requests wait for their responses.
    InFlight,
    /// The session is about to end, for a reason that the log has.
    AtEnd,
}

/// The kinds that are logged.
const KINDS: usize = Refusal::AtEnd as usize;

impl From<TooLong> for Refusal {
    fn from(why: TooLong) -> Self {
        match why {
            TooLong::Limit | TooLong::Stalled => Self::TooLong,
            TooLong::BufferBudget | TooLong::MemoryShort => Self::NoMemory,
        }
    }
}

/// Limits how often a session's refusals are logged, each kind by itself. Costs a pointer until there is one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Refusals(Option<Box<[LogRateLimit; KINDS]>>);

impl Refusals {
    /// There was none.
    pub(super) const NONE: Self = Self(None);

    fn admit(&mut self, kind: Refusal, logs: &mut LogLimits, now: Time) -> bool {
        let new = || Box::new([const { LogRateLimit::new(&REFUSALS) }; KINDS]);
        let limits = self.0.get_or_insert_with(new);
        let limit = limits.get_mut(kind as usize);
        limit.is_some_and(|limit| limit.take(now)) && logs.unasked.admit(now)
    }

    fn log(&mut self, kind: Refusal, why: &str, label: &Label, cx: &mut Context<'_>) {
        if self.admit(kind, cx.logs, cx.now) {
            about!(warn, label, "refused a message of the client: {why}");
        }
    }
}

impl Session {
    /// Counts and logs a message that no server gets.
    pub(super) fn note_refusal(&mut self, kind: Refusal, why: &str, cx: &mut Context<'_>) {
        self.tally.refused = self.tally.refused.saturating_add(1);
        self.rare.change().refusals.log(kind, why, &self.label, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    #[test]
    fn each_kind_has_its_own_limit_and_all_sessions_share_one() {
        let mut logs = LogLimits::default();
        let mut logged = |refusals: &mut Refusals, kind| {
            (0..1000)
                .filter(|_| refusals.admit(kind, &mut logs, NOW))
                .count()
        };
        let mut one = Refusals::default();
        assert_eq!(logged(&mut one, Refusal::Unreadable), 10);
        assert_eq!(logged(&mut one, Refusal::Unreadable), 0);
        assert_eq!(logged(&mut one, Refusal::InFlight), 10);
        assert_eq!(logged(&mut one, Refusal::AtEnd), 0);
        let mut others = 0;
        for _ in 0..100 {
            others += logged(&mut Refusals::default(), Refusal::TooLong);
        }
        assert_eq!(others, 180);
        assert_eq!(logs.unasked.take_left_out(), 82 * 10);
    }
}
