//! Legacy clients, who open with `initialize`: those that ask for the same version of MCP share processes, which the proxy
//! has initialised itself.
//!
//! The first process of a group tells what the group is: its answer is recorded, and is what all clients of the group
//! are answered. Each later process has to agree to the same. Groups whose servers have agreed to the same version are one.

mod greeting;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::client_line::{Legacy, Request};
use super::edit::Edits;
use super::process::{Life, Pool};
use super::record::Record;
use super::seat::{Open, SeatEra, State};
use super::{Context, ProcessKey, SeatKey, Share};
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::{self, ErrorReason};
use crate::session::Agreement;

/// The versions with a handshake that are known. Whoever asks for another gets the newest of them.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// As many groups there are at most.
pub(super) const MAX_GROUPS: usize = VERSIONS.len();

const NOT_INITIALIZED: &str = "initialize comes first, and has not succeeded";

/// Names a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct GroupKey(u8);

/// The groups, one for each version that is asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Groups {
    all: [Group; VERSIONS.len()],
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Group {
    /// What its processes have agreed to.
    record: Option<Record>,
    /// The group that it has become one with.
    same_as: Option<GroupKey>,
    /// Who waits for the first process to answer, with the numbers of their requests.
    asking: Vec<(SeatKey, u64)>,
    /// How many seats belong to it.
    seats: usize,
}

impl Groups {
    /// The group of those who ask for this version.
    fn of_version(&self, version: Option<&str>) -> GroupKey {
        let known = VERSIONS.iter().position(|known| Some(*known) == version);
        let at = known.unwrap_or(VERSIONS.len() - 1);
        self.all[at].same_as.unwrap_or(GroupKey(at as u8))
    }

    fn get(&self, key: GroupKey) -> &Group {
        &self.all[usize::from(key.0)]
    }

    fn get_mut(&mut self, key: GroupKey) -> &mut Group {
        &mut self.all[usize::from(key.0)]
    }

    /// Whether it is known what the processes of a group have agreed to.
    pub(super) fn is_ready(&self, key: GroupKey) -> bool {
        self.get(key).record.is_some()
    }

    /// A seat belongs to a group no more.
    pub(super) fn leave(&mut self, key: GroupKey, seat: SeatKey) {
        let group = self.get_mut(key);
        group.seats -= 1;
        group.asking.retain(|(other, _)| *other != seat);
    }

    /// Forgets what a group has agreed to.
    fn reset(&mut self, key: GroupKey) {
        self.get_mut(key).record = None;
        for group in &mut self.all {
            group.same_as = group.same_as.filter(|other| *other != key);
        }
    }

    /// The other group that has agreed to this.
    fn agreed(&self, than: GroupKey, agreement: &Agreement) -> Option<GroupKey> {
        let mut groups = self.all.iter();
        let at = groups.position(|group| {
            let record = group.record.as_ref();
            record.is_some_and(|record| record.agreement == *agreement)
        })?;
        Some(GroupKey(at as u8)).filter(|other| *other != than)
    }
}

// Clients.
impl Share {
    /// Answers a request of a legacy client in place of the server. Returns whether that is all.
    pub(super) fn answer_legacy(
        &mut self,
        key: SeatKey,
        request: &Request<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        match &request.legacy {
            Legacy::Initialize(version) => {
                self.initialize(key, RequestId::new(request.id), version.as_deref(), cx);
            }
            Legacy::SetLogLevel => {
                let line = own_messages::empty_result(&request.id);
                self.deliver(key, (line + "\n").into_bytes(), cx);
            }
            _ => return false,
        }
        true
    }

    fn initialize(
        &mut self,
        key: SeatKey,
        id: RequestId,
        version: Option<&str>,
        cx: &mut Context<'_>,
    ) {
        let group = match self.seats[key.0].group() {
            Some(group) => group,
            None => self.groups.of_version(version),
        };
        self.join_group(key, group);
        if let Some(record) = &self.groups.get(group).record {
            let (id, line) = (id.to_string(), record.line(&id));
            self.respond(key, &id, line, cx);
            return self.seek_turn(key, cx);
        }
        self.last_number += 1;
        let number = self.last_number;
        self.seats[key.0]
            .open
            .push(Open::new(id, number, State::Initializing));
        let asking = &mut self.groups.get_mut(group).asking;
        asking.push((key, number));
        if asking.len() == 1 {
            self.start_group(group, cx);
        }
    }

    fn join_group(&mut self, key: SeatKey, group: GroupKey) {
        let seat = &mut self.seats[key.0];
        if seat.group().is_none() {
            seat.era = SeatEra::Legacy(Some(group));
            self.groups.get_mut(group).seats += 1;
        }
    }

    fn start_group(&mut self, group: GroupKey, cx: &mut Context<'_>) {
        match self.choose(Pool::Legacy(group), cx.now) {
            Ok(process) => self.want(process),
            Err(_) => self.fail_group(group, ErrorReason::RestartLimit, super::pools::BARRED, cx),
        }
    }

    /// What is asked by the members of a group has to wait no longer.
    fn wake_group(&mut self, group: GroupKey, cx: &mut Context<'_>) {
        for seat in self.seats_of_group(group) {
            self.seek_turn(seat, cx);
        }
    }

    /// What has to be told of changes has a process again, if one may be had.
    pub(super) fn wake_subscribers(&mut self, pool: Pool, cx: &mut Context<'_>) {
        if let Pool::Legacy(group) = pool {
            self.wake_group(group, cx);
        }
    }

    /// Whether a group waits for this process to tell what it is.
    pub(super) fn is_asked(&self, process: ProcessKey) -> bool {
        match self.processes[process.0].pool {
            Pool::Legacy(group) => !self.groups.get(group).asking.is_empty(),
            _ => false,
        }
    }

    fn seats_of_group(&self, group: GroupKey) -> Vec<SeatKey> {
        let seats = self.seats.iter();
        let of = seats.filter(|(_, seat)| seat.group() == Some(group));
        of.map(|(key, _)| SeatKey(key)).collect()
    }

    /// Forgets a group that nobody uses: the next process may be of a newer server.
    pub(super) fn forget_unused(&mut self, group: GroupKey) {
        let mut processes = self.processes.iter();
        let is_used = self.groups.get(group).seats > 0
            || processes.any(|process| {
                process.pool == Pool::Legacy(group)
                    && (process.is_running() || process.life == Life::Asked)
            });
        if !is_used {
            self.groups.reset(group);
        }
    }
}

// The end of a group that does not come about.
impl Share {
    /// The server has refused to be initialised: those who asked get its error.
    fn refuse_group(
        &mut self,
        group: GroupKey,
        line: &[u8],
        at: &Range<usize>,
        cx: &mut Context<'_>,
    ) {
        for (seat, number) in std::mem::take(&mut self.groups.get_mut(group).asking) {
            if let Some(id) = self.close_asking(seat, number) {
                let id = id.to_string();
                let mut edits = Edits::default();
                edits.replace(at.clone(), id.as_bytes());
                self.respond(seat, &id, edits.apply(line), cx);
            }
        }
        self.disband(group, cx);
    }

    /// No process could be initialised: those who asked are told, and the next one who asks has it tried again.
    pub(super) fn fail_group(
        &mut self,
        group: GroupKey,
        reason: ErrorReason,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        for (seat, number) in std::mem::take(&mut self.groups.get_mut(group).asking) {
            if let Some(id) = self.close_asking(seat, number) {
                let id = id.to_string();
                self.refuse(seat, Some(id.as_bytes()), reason, why, cx);
            }
        }
        self.disband(group, cx);
    }

    /// Nobody belongs to a group that does not come about.
    fn disband(&mut self, group: GroupKey, cx: &mut Context<'_>) {
        for seat in self.seats_of_group(group) {
            self.seats[seat.0].era = SeatEra::Legacy(None);
            self.groups.leave(group, seat);
            self.refuse_waiting(seat, ErrorReason::InvalidRequest, NOT_INITIALIZED, cx);
        }
    }

    fn close_asking(&mut self, key: SeatKey, number: u64) -> Option<RequestId> {
        let seat = self.seats.get_mut(key.0)?;
        let at = seat.open.numbered(number)?;
        Some(seat.close(at).id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_versions_are_asked_for() {
        let groups = Groups::default();
        assert_eq!(groups.of_version(Some("2024-11-05")), GroupKey(0));
        for version in [
            None,
            Some("2025-11-25"),
            Some("2024-10-07"),
            Some("2026-07-28"),
        ] {
            assert_eq!(groups.of_version(version), GroupKey(3), "{version:?}");
        }
    }
}
