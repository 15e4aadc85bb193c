//! How the program of a server treats the one that started it.

use super::Kind;
use crate::rng::Rng;

/// How it takes a replayed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    Agrees,
    Differs,
    Refuses,
    TooLong,
    Never,
}

/// How it takes a `server/discover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Answers,
    Ignores,
    Dies,
}

/// How the program treats the one that started it.
#[derive(Debug)]
pub(super) struct Manners {
    pub(super) calm: bool,
    pub(super) ignores_end: bool,
    pub(super) ignores_sigterm: bool,
    /// It has another user, and the loop may not signal it.
    pub(super) is_untouchable: bool,
    /// It leaves a child behind that holds its output open.
    pub(super) leaves_child: bool,
    /// It reads what the server leaves unread, and nobody knows.
    pub(super) child_holds_input: bool,
    /// No signal ends that child.
    pub(super) has_deaf_child: bool,
    pub(super) replay: Replay,
    pub(super) probe: Probe,
    /// It ends before it does anything.
    pub(super) dies_at_once: bool,
    pub(super) chatty: bool,
}

impl Manners {
    pub(super) fn choose(kind: Kind, calm: bool, is_deaf: bool, rng: &mut Rng) -> Self {
        let is_untouchable = !calm && kind == Kind::Process && rng.percent(3);
        Self {
            calm,
            is_untouchable,
            ignores_end: is_untouchable || (!calm && rng.percent(15)),
            ignores_sigterm: !calm && rng.percent(15),
            leaves_child: !calm && rng.percent(10),
            child_holds_input: rng.percent(30),
            has_deaf_child: rng.percent(10),
            replay: match rng.below(20) {
                _ if calm => Replay::Agrees,
                0 => Replay::Differs,
                1 => Replay::Refuses,
                2 => Replay::TooLong,
                3 => Replay::Never,
                _ => Replay::Agrees,
            },
            dies_at_once: false,
            probe: match rng.below(10) {
                _ if calm => Probe::Answers,
                0 => Probe::Ignores,
                1 | 2 if kind == Kind::Process => Probe::Dies,
                _ => Probe::Answers,
            },
            chatty: is_deaf || rng.percent(20),
        }
    }
}
