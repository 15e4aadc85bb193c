//! Servers that are to take the places of others that live.

use super::{Journal, Received};
use crate::text;

/// What a server has to do with the wish for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Nothing.
    No,
    /// It is tried beside the present one.
    Beside,
    /// It was, and is not any more.
    Dropped,
    /// It has taken the place of one that was there.
    Moved,
    /// It was started when the one before it was gone.
    InPlace,
}

impl Journal {
    /// The server that gets what the client says.
    pub(super) fn present(&self) -> Option<usize> {
        let is_used = |swap| !matches!(swap, Swap::Beside | Swap::Dropped);
        self.servers.iter().rposition(|server| is_used(server.swap))
    }

    /// How many servers came because the user wanted that, and not because one was lost.
    pub(super) fn swapped(&self) -> usize {
        let servers = self.servers.iter();
        servers.filter(|server| server.swap != Swap::No).count()
    }

    /// A server is to get no other question than who the client is, as long as another one serves.
    pub(super) fn check_beside(&self, server: usize, text: &[u8]) {
        let swap = self.servers[server].swap;
        assert!(
            !matches!(swap, Swap::Beside | Swap::Dropped),
            "a server that is only tried gets {}",
            text::show(text)
        );
    }

    /// A new server is asked what it is.
    pub(super) fn asked(&self, server: usize, id: String, text: &[u8]) -> Received {
        assert!(
            self.servers[server].swap == Swap::Beside && text::is_modern(text),
            "a server is asked for nothing: {}",
            text::show(text)
        );
        Received::Question(id)
    }

    /// A new server has taken the place of the one that was there, of which the session had read this much.
    pub fn moved(&mut self, old: usize, read: u64, new: usize) {
        self.replaced(old);
        let record = &mut self.servers[old];
        record.may_be_cut_off = true;
        record.read_at_release = Some(read);
        let record = &mut self.servers[new];
        assert_eq!(record.swap, Swap::Beside);
        assert!(
            !record.replayed || record.replay_responded,
            "a server serves that has not answered the handshake"
        );
        assert!(
            record.replayed || !record.due,
            "a server serves that knows no client"
        );
        assert!(!record.replay_differs, "a server serves that is not fit");
        record.swap = Swap::Moved;
    }

    /// Another server is to serve in the place of this one, which hears no more answers.
    pub fn replaced(&mut self, old: usize) {
        self.servers[old].is_replaced = true;
    }

    /// A new server is not used.
    pub fn dropped(&mut self, new: usize) {
        let record = &mut self.servers[new];
        record.swap = Swap::Dropped;
        record.may_be_cut_off = true;
        record.read_at_release = Some(0);
    }
}
