//! What is around the session: our own stdin and stdout, and the link.

use super::kept_link::KeptLink;
use super::kept_run::{Carrier, KeptRun};
use super::link::Link;
use super::stdio_pair::StdioPair;
use crate::pump::pump;
use crate::scheduler::{Driver, SessionKey};
use crate::session::{Context, Event, Session};

/// What is around the session.
pub(super) struct Sides {
    pub(super) stdio: StdioPair,
    pub(super) link: Link,
    /// Present if the link may be lost and come back.
    pub(super) kept: Option<Box<KeptLink>>,
}

impl Sides {
    /// Whether there is no connection, or one of which it is not known whether the session goes on over it.
    pub(super) fn is_lost(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_lost())
    }

    /// Whether our side has ended, once that was begun.
    pub(super) fn has_ended_side(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.has_ended_side())
    }
}

impl Driver for Sides {
    type Place = ();

    fn run(
        &mut self,
        _: SessionKey,
        session: &mut Session,
        (): &mut (),
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        self.stdio.notice_failures(session, cx);
        if self.kept.is_some() {
            let mut run = KeptRun {
                kept: &mut self.kept,
                carrier: &mut self.link,
            };
            return run.run(session, &mut self.stdio, scratch, cx);
        }
        if let Err(error) = self.link.flush() {
            session.handle(Event::UpstreamEof(Some(&error)), cx);
        }
        let has_more = pump(session, &mut self.stdio, &mut self.link, scratch, cx);
        has_more | (self.link.note_held_input() && session.wants_upstream_output(cx.memory))
    }
}
