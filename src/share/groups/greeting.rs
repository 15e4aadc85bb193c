//! Processes of legacy clients: the proxy initialises each of them, and what the first of a group answers is recorded for
//! its clients. Each later one has to agree to the same.

use std::ops::Range;

use log::{info, warn};

use super::{GroupKey, VERSIONS};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::ErrorReason;
use crate::share::process::{Life, Pool};
use crate::share::record::Record;
use crate::share::seat::SeatEra;
use crate::share::server_line::{self, ServerLine};
use crate::share::{Context, Effect, ProcessKey, Share};

/// Why a process could not be initialised.
enum Failure<'a> {
    /// It answered this line, with the number there.
    Refused(&'a [u8], Range<usize>),
    /// It did not answer, or not so that it can be used.
    Otherwise(&'a str),
}

impl Share {
    /// A process of legacy clients was started: it is initialised.
    pub(in crate::share) fn greet(
        &mut self,
        key: ProcessKey,
        group: GroupKey,
        cx: &mut Context<'_>,
    ) {
        self.last_number += 1;
        let number = self.last_number;
        let process = &mut self.processes[key.0];
        process.life = Life::Greeting(cx.now + self.limits.handshake_time);
        process.greeting = Some(number);
        let version = VERSIONS[usize::from(group.0)];
        let own = env!("CARGO_PKG_VERSION");
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{number},"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"mcp-tcp-proxy","version":"{own}"}}}}}}"#
        );
        self.tell(key, (line + "\n").into_bytes(), cx);
    }

    /// Takes a line of a process that is being initialised. Returns whether it was the answer.
    pub(in crate::share) fn greeting_line(
        &mut self,
        key: ProcessKey,
        line: &[u8],
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let process = &self.processes[key.0];
        let Some(group) = process.group() else {
            return false;
        };
        if !matches!(process.life, Life::Greeting(_)) || process.is_stopped {
            return false;
        }
        let at = match server_line::read_legacy(line, message) {
            ServerLine::Response(number, at) if Some(number) == process.greeting => at,
            _ => return false,
        };
        match Record::of(line) {
            Ok(record) => self.greeted(key, group, record, cx),
            Err(None) => self.greeting_failed(key, group, Failure::Refused(line, at), cx),
            Err(Some(why)) => self.greeting_failed(key, group, Failure::Otherwise(why), cx),
        }
        true
    }

    fn greeted(&mut self, key: ProcessKey, group: GroupKey, record: Record, cx: &mut Context<'_>) {
        let known = self.groups.get(group).record.as_ref();
        let is_first = known.is_none();
        if known.is_some_and(|known| known.agreement != record.agreement) {
            return self.server_changed(key, group, cx);
        }
        let line = concat!(
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "\n"
        );
        self.tell(key, line.into(), cx);
        self.processes[key.0].greeted(cx.now);
        if is_first {
            let group = self.record(group, record, cx);
            return self.wake_group(group, cx);
        }
        self.restore_all(key, cx);
        self.dispatch(key, cx);
    }

    /// Keeps what the first process of a group has answered, and answers those who wait for it. Returns the group that they
    /// are in from now on.
    fn record(&mut self, group: GroupKey, record: Record, cx: &mut Context<'_>) -> GroupKey {
        info!("the server has answered initialize: legacy clients share its processes");
        let other = self.groups.agreed(group, &record.agreement);
        let asking = std::mem::take(&mut self.groups.get_mut(group).asking);
        let group = if let Some(other) = other {
            self.merge(group, other, cx);
            other
        } else {
            self.groups.get_mut(group).record = Some(record);
            group
        };
        for (seat, number) in asking {
            let Some(id) = self.close_asking(seat, number) else {
                continue;
            };
            if let Some(record) = &self.groups.get(group).record {
                let (id, line) = (id.to_string(), record.line(&id));
                self.respond(seat, &id, line, cx);
            }
        }
        group
    }

    /// Two groups have agreed to the same: they become one.
    fn merge(&mut self, group: GroupKey, into: GroupKey, cx: &mut Context<'_>) {
        for seat in self.seats_of_group(group) {
            self.seats[seat.0].era = SeatEra::Legacy(Some(into));
        }
        let seats = std::mem::take(&mut self.groups.get_mut(group).seats);
        self.groups.get_mut(group).same_as = Some(into);
        self.groups.get_mut(into).seats += seats;
        for key in self.places_of(Pool::Legacy(group)) {
            self.processes[key.0].pool = Pool::Legacy(into);
            if self.places_of(Pool::Legacy(into)).len() > self.limits.processes {
                self.retire(key, cx);
            }
        }
    }

    fn greeting_failed(
        &mut self,
        key: ProcessKey,
        group: GroupKey,
        failure: Failure<'_>,
        cx: &mut Context<'_>,
    ) {
        if self.groups.is_ready(group) {
            return self.server_changed(key, group, cx);
        }
        self.dismiss(key);
        match failure {
            Failure::Refused(line, at) => self.refuse_group(group, line, &at, cx),
            Failure::Otherwise(why) => {
                self.fail_group(group, ErrorReason::SpawnFailed, why, cx);
            }
        }
    }

    /// A process was not initialised in time, or ended before: whoever waits for the first of a group is told.
    pub(in crate::share) fn greeting_missed(
        &mut self,
        key: ProcessKey,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        if let Pool::Legacy(group) = self.processes[key.0].pool
            && !self.groups.is_ready(group)
        {
            self.fail_group(group, ErrorReason::SpawnFailed, why, cx);
        }
    }

    /// A process does not agree to what the others have: their clients can't go on as if nothing had happened.
    fn server_changed(&mut self, key: ProcessKey, group: GroupKey, cx: &mut Context<'_>) {
        warn!(
            "shared server {}: it is not the server that its clients know",
            key.0
        );
        for seat in self.seats_of_group(group) {
            let place = &mut self.seats[seat.0];
            if !place.is_closing {
                place.is_closing = true;
                place.to_client.clear();
                self.effects.push_back(Effect::Changed(seat));
                self.recharge_seat(seat, cx);
            }
        }
        self.groups.reset(group);
        for place in self.places_of(Pool::Legacy(group)) {
            if place != key {
                self.retire(place, cx);
            }
        }
        self.dismiss(key);
    }

    /// Ends a process that has answered, but not as it should. That is no loss.
    pub(in crate::share) fn dismiss(&mut self, key: ProcessKey) {
        self.processes[key.0].life = Life::Up;
        self.stop_process(key);
    }
}
