//! Peers that may have vanished: a machine that lost its power or its network says no word, and as long as it owes
//! acknowledgements no keep-alive probes go to it. Only the system knows what it owes, so the system is asked, but only
//! about whoever says nothing, and only as often as heartbeats go there.

use std::time::Duration;

use super::{Action, Context, Session};

/// A peer that owes acknowledgements and has sent nothing at all for this long is gone: as long as it takes to notice
/// one that owes nothing.
pub const VANISH_TIME: Duration = Duration::from_mins(2);

impl Session {
    /// A heartbeat is due for the client.
    pub(super) fn check_client(&self, cx: &mut Context<'_>) {
        if self.heartbeat.silence(cx.now) >= VANISH_TIME {
            cx.actions.push(Action::CheckClient);
        }
    }

    /// A heartbeat is due for the proxy at the other end, from which nothing has come for this long.
    pub(super) fn check_upstream(silence: Duration, cx: &mut Context<'_>) {
        if silence >= VANISH_TIME {
            cx.actions.push(Action::CheckUpstream);
        }
    }
}
