//! Where the old server has to go before the new one is started: that one is tried when it has taken the place of the other, and
//! if it is not fit it is lost like any other.

use super::{NOTICE_DELAY, Stage, SwapEnd};
use crate::session::replay::Greeting;
use crate::session::upstream::Upstream;
use crate::session::{Action, Context, Session};

impl Session {
    /// Whether the old server is on its way out, and the next one is started when it is gone.
    pub fn is_swapped_in_place(&self) -> bool {
        let swap = self.swap.as_ref();
        let is_first = |stage: &Stage| {
            matches!(
                stage,
                Stage::InPlace {
                    is_started: false,
                    ..
                }
            )
        };
        swap.is_some_and(|swap| is_first(&swap.stage))
    }

    /// The server that is to take the place of the old one was started.
    pub(in crate::session) fn note_started_in_place(&mut self, cx: &Context<'_>) {
        let is_due =
            matches!(&self.upstream, Upstream::Up(up) if matches!(up.greeting, Greeting::Due));
        if let Some(swap) = &mut self.swap
            && let Stage::InPlace { is_started, fit_at } = &mut swap.stage
        {
            *is_started = true;
            *fit_at = (!is_due).then(|| cx.now + NOTICE_DELAY);
        }
    }

    /// Whether the present server is tried in the place of the old one, or is to be started.
    pub fn is_tried_in_place(&self) -> bool {
        let swap = self.swap.as_ref();
        swap.is_some_and(|swap| matches!(swap.stage, Stage::InPlace { .. }))
    }

    /// It is fit.
    pub(in crate::session) fn moved_in_place(&mut self, cx: &mut Context<'_>) {
        self.swap = None;
        cx.actions.push(Action::EndSwap(SwapEnd::Moved));
    }

    /// What was to take the place of the old server can't be started.
    pub(in crate::session) fn not_started_in_place(&mut self, error: &str, cx: &mut Context<'_>) {
        if self.is_tried_in_place() {
            self.fail_swap(error, cx);
        }
    }

    /// What has taken the place of the old server is lost: it was not fit.
    pub(in crate::session) fn lost_in_place(&mut self, why: &str, cx: &mut Context<'_>) {
        if self.is_tried_in_place() && !self.is_swapped_in_place() {
            self.fail_swap(why, cx);
        }
    }
}
