//! What holds between two iterations for sessions that can be resumed.

use super::Resuming;
use crate::resume::totals::Totals;
use crate::serve::ClientSession;
use crate::serve::system::System;

impl<C> Resuming<C> {
    /// What is counted of sessions follows from them.
    pub(in crate::serve) fn check<'a, S: System + 'a>(
        &self,
        places: impl Iterator<Item = &'a ClientSession<S>>,
    ) {
        let (mut sessions, mut detached, mut returning) = (0, 0, 0);
        let mut totals = Totals::default();
        for place in places {
            let Some(server) = place.resume.as_deref() else {
                continue;
            };
            sessions += 1;
            detached += usize::from(place.is_detached());
            returning += usize::from(place.is_detached() && !place.gave_up_place);
            server.add_to(&mut totals);
        }
        assert_eq!(self.registry.len(), sessions);
        assert_eq!(self.detached, detached, "others are without a connection");
        assert_eq!(self.returning.len(), returning, "others are expected back");
        assert!(self.totals == totals, "other sessions keep something");
    }
}
