//! Who waits for a server and which servers start up, as it is written down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Client, StartQueue, Ticket, Turns, Waiting};
use crate::reactor::timers::Timers;
use crate::serve::Due;
use crate::serve::servers::ServerKey;
use crate::util::time::Time;

/// The queue without its limit.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct StartQueueState {
    last_number: u64,
    tickets: Vec<Ticket>,
    ranks: [TurnsState; 3],
    warming_up: VecDeque<(Time, ServerKey)>,
    deadline: Option<Time>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TurnsState {
    last_turn: u64,
    order: Vec<(u64, Client)>,
}

impl Turns {
    fn state(&self) -> TurnsState {
        let order = self.order.iter().map(|(turn, client)| (*turn, *client));
        TurnsState {
            last_turn: self.last_turn,
            order: order.collect(),
        }
    }
}

impl TurnsState {
    /// The origins with their turns, and nobody who waits.
    fn restore(self) -> Turns {
        let waiting = |(turn, client): &(u64, Client)| {
            let waiting = Waiting {
                turn: *turn,
                sessions: BTreeMap::new(),
            };
            (*client, waiting)
        };
        Turns {
            last_turn: self.last_turn,
            origins: self.order.iter().map(waiting).collect(),
            order: self.order.into_iter().collect(),
        }
    }
}

impl StartQueue {
    pub(in crate::serve) fn state(&self) -> StartQueueState {
        let mut tickets: Vec<Ticket> = self.tickets.values().copied().collect();
        tickets.sort_unstable_by_key(|ticket| ticket.number);
        StartQueueState {
            last_number: self.last_number,
            tickets,
            ranks: self.ranks.each_ref().map(Turns::state),
            warming_up: self.warming_up.clone(),
            deadline: self.deadline.at(),
        }
    }

    /// Goes on with those who wait.
    pub(in crate::serve) fn restore(&mut self, state: StartQueueState, timers: &mut Timers<Due>) {
        self.last_number = state.last_number;
        self.ranks = state.ranks.map(TurnsState::restore);
        self.warming_up = state.warming_up;
        for ticket in state.tickets {
            self.ranks[ticket.rank as usize].insert(&ticket);
            self.insert(ticket);
        }
        self.deadline.set(state.deadline, Due::Starting, timers);
        debug_assert!(self.ranks.iter().all(Turns::are_consistent));
    }
}

impl Turns {
    fn are_consistent(&self) -> bool {
        let clients: BTreeSet<_> = self.order.keys().collect();
        let turns: BTreeSet<_> = self.origins.values().map(|it| &it.turn).collect();
        let is_waiting = |waiting: &Waiting| !waiting.sessions.is_empty();
        clients == turns && self.origins.values().all(is_waiting)
    }
}
