//! A session with a seat at servers that others use, too, instead of a server of its own.
//!
//! A seat is an upstream like any other, but it is never lost: what becomes of the servers behind it is their share's
//! business. Sessions of modern clients keep one, and those that open with `initialize` if the user wants that.

use serde::{Deserialize, Serialize};

use super::Session;
use super::era::Era;
use super::leaving::Sign;
use super::report::EndReason;
use super::upstream::Upstream;
use super::{Action, Context};

/// A seat at shared servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shared {
    /// Whether sessions that open with `initialize` may keep it.
    serves_legacy: bool,
}

impl Upstream {
    /// Whether it is a seat.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Up(up) if up.shared.is_some())
    }
}

impl Session {
    /// Whether the client speaks a version of MCP with a handshake, as far as is known.
    pub fn is_legacy(&self) -> bool {
        matches!(self.era, Era::Legacy { .. })
    }

    /// Whether it has opened with a handshake, as all such clients are to.
    pub fn is_opened(&self) -> bool {
        self.era == Era::Legacy { is_opened: true }
    }

    /// Whether it speaks one without.
    pub fn is_modern(&self) -> bool {
        self.era.is_modern()
    }

    /// The session gets a seat; if it opens with `initialize`, it may keep it if that `serves_legacy`.
    pub(super) fn seated(&mut self, serves_legacy: bool, cx: &mut Context<'_>) {
        self.upstream_started(None, cx);
        if let Upstream::Up(up) = &mut self.upstream {
            up.shared = Some(Shared { serves_legacy });
        }
    }

    /// The servers behind the seat are others than the client knows.
    pub(super) fn server_changed(&mut self, cx: &mut Context<'_>) {
        if self.upstream.is_shared() {
            self.end_now(&EndReason::ServerChanged, cx);
        }
    }

    /// Leaves a seat for a server of the session's own, if the client has shown that it needs one.
    pub(super) fn leave_shared(&mut self, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        let keeps = |seat: Shared| seat.serves_legacy && self.is_opened();
        if up.shared.is_some_and(|seat| !keeps(seat)) && self.is_legacy() {
            self.begin_leaving(Sign::ToldToStop, cx);
            if let Upstream::Leaving(leaving) = &mut self.upstream {
                leaving.is_left = true;
            }
            cx.actions.push(Action::StopUpstream);
        }
    }
}
