//! What holds between two iterations for sessions that can be resumed.

use super::Resuming;
use crate::resume::Server;
use crate::resume::totals::Totals;

impl<C> Resuming<C> {
    /// `kept` is what is kept of each session that can be resumed. What is counted of them follows from them.
    pub(in crate::serve) fn check<'a>(&self, kept: impl Iterator<Item = &'a Server>) {
        let (mut sessions, mut detached) = (0, 0);
        let mut totals = Totals::default();
        for server in kept {
            sessions += 1;
            detached += usize::from(server.lost_since().is_some());
            server.add_to(&mut totals);
        }
        assert_eq!(self.registry.len(), sessions);
        assert_eq!(
            self.detached.len(),
            detached,
            "others are without a connection"
        );
        assert!(self.totals == totals, "other sessions keep something");
    }
}
