//! A session with a seat at servers that others use, too, instead of a server of its own.
//!
//! A seat is an upstream like any other, but it is never lost: what becomes of the servers behind it is their share's
//! business. Only sessions of modern clients keep one.

use super::Session;
use super::era::Era;
use super::leaving::Sign;
use super::upstream::Upstream;
use super::{Action, Context};

impl Upstream {
    /// Whether it is a seat.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Up(up) if up.is_shared)
    }
}

impl Session {
    /// Whether the client speaks a version of MCP with a handshake, as far as is known.
    pub fn is_legacy(&self) -> bool {
        self.era == Era::Legacy
    }

    /// Whether it speaks one without.
    pub fn is_modern(&self) -> bool {
        self.era.is_modern()
    }

    /// Leaves a seat for a server of the session's own, if the client has shown that it needs one.
    pub(super) fn leave_shared(&mut self, cx: &mut Context<'_>) {
        if self.upstream.is_shared() && self.is_legacy() {
            self.begin_leaving(Sign::ToldToStop, cx);
            if let Upstream::Leaving(leaving) = &mut self.upstream {
                leaving.is_left = true;
            }
            cx.actions.push(Action::StopUpstream);
        }
    }
}
