//! The processes that are shared: started, read and written within a budget, and let go of.

use log::{debug, info, warn};

use super::server::{Server, User};
use super::servers::ServerKey;
use super::sharing::Sharing;
use super::system::System;
use super::{Proxy, Stopping};
use crate::pump::{READ_BYTES, READS_PER_RUN, Transport};
use crate::reactor::io::{Input, Io};
use crate::session::stderr::log_last_words;
use crate::share::{Context, ProcessKey};
use crate::transport::listener::is_exhaustion;
use crate::util::about::about;
use crate::util::service_key::ServiceKey;

impl<S: System> Proxy<S> {
    /// Does what there is to do for shared processes: reads and writes, within a budget each, and carries out what follows.
    pub(super) fn run_shared(&mut self) {
        for service in self.services.keys() {
            self.run_shared_of(service);
        }
    }

    fn run_shared_of(&mut self, service: ServiceKey) {
        // What sessions have just written is for these: it is not to wait for another iteration.
        self.carry_out_sharing(service);
        let Some(sharing) = self.services.sharing_mut(service) else {
            return;
        };
        for key in std::mem::take(&mut sharing.ready) {
            self.run_process(service, key);
        }
        self.carry_out_sharing(service);
    }

    fn run_process(&mut self, service: ServiceKey, key: ProcessKey) {
        let now = self.reactor.now();
        let (scratch, memory) = self.scheduler.scratch_and_memory();
        let Some(sharing) = self.services.sharing_mut(service) else {
            return;
        };
        sharing.processes[key.0].is_ready = false;
        let server = sharing.processes[key.0].server;
        let Some((server_key, server)) =
            server.and_then(|key| Some((key, self.servers.get_mut(key)?)))
        else {
            return;
        };
        let mut cx = Context { now, memory };
        server.read_stderr(scratch, |bytes| sharing.log_stderr(key, Some(bytes), now));
        if let Some(unread) = server.take_left_unread() {
            sharing.processes[key.0].unread = unread;
        }
        read(sharing, key, server, scratch, &mut cx);
        write(sharing, key, server, &mut cx);
        if server.exit.is_some() && !has_output(server) {
            return self.process_ended(service, key, server_key);
        }
        let has_closed = server.stdout.is_none() || server.stdin.is_none();
        let has_room = server.stdin.as_ref().is_some_and(Io::is_writable);
        if has_output(server) || (has_room && !sharing.share.to_process(key).is_empty()) {
            sharing.note(key);
        }
        if has_closed && server.stopping.is_none() {
            self.servers.stop(server_key, &mut self.reactor.timers);
        }
    }

    /// A process is gone, and all that it said was read.
    fn process_ended(&mut self, service: ServiceKey, key: ProcessKey, server: ServerKey) {
        let now = self.reactor.now();
        let exit = self.servers.get_mut(server).and_then(|it| it.exit.take());
        let status = exit.map_or_else(String::new, |exit| exit.to_string());
        if let Some(sharing) = self.services.sharing_mut(service) {
            sharing.log_stderr(key, None, now);
            let label = sharing.label(sharing.processes[key.0].pid);
            let process = &mut sharing.processes[key.0];
            process.server = None;
            let unread = std::mem::take(&mut process.unread);
            let is_expected = key == sharing.share.probe() || sharing.share.is_stopped(key);
            let is_loss = self.stopping == Stopping::No && !is_expected;
            if is_loss {
                log_last_words(&mut process.last_words, &label);
                about!(warn, label, "ended ({status})");
            } else {
                process.last_words.clear();
            }
            let (_, memory) = self.scheduler.scratch_and_memory();
            let mut cx = Context { now, memory };
            sharing.share.process_ended(key, &status, &unread, &mut cx);
        }
        self.servers.release(server);
    }

    /// Starts the shared process of a service whose turn it is, or has one that waits become one. Returns whether one was
    /// started.
    pub(super) fn start_shared(&mut self, service: ServiceKey) -> bool {
        let sharing = self.services.sharing_mut(service);
        let next = sharing.and_then(|it| Some((it.to_start.pop_front()?, it.share.probe())));
        let Some((key, probe)) = next else {
            return false;
        };
        // The one that is asked for the era is stopped at once.
        let spare = if key == probe {
            None
        } else {
            self.take_spare(service)
        };
        if let Some(server) = spare {
            self.process_started(service, key, server);
            return false;
        }
        match self.spawn(service, None) {
            Ok(server) => self.process_started(service, key, server),
            Err(error) if is_exhaustion(&error) => {
                self.pause(&error);
                self.with_sharing(service, |it| it.to_start.push_front(key));
                return false;
            }
            Err(error) => {
                warn!("a shared server could not be started: {error}");
                let now = self.reactor.now();
                if let Some(sharing) = self.services.sharing_mut(service) {
                    let (_, memory) = self.scheduler.scratch_and_memory();
                    let mut cx = Context { now, memory };
                    sharing
                        .share
                        .process_failed(key, &error.to_string(), &mut cx);
                }
            }
        }
        self.carry_out_sharing(service);
        true
    }

    fn process_started(&mut self, service: ServiceKey, key: ProcessKey, server_key: ServerKey) {
        let now = self.reactor.now();
        let sharing = self.services.sharing_mut(service);
        let (Some(sharing), Some(server)) = (sharing, self.servers.get_mut(server_key)) else {
            return;
        };
        server.user = Some(User::Share(key));
        let process = &mut sharing.processes[key.0];
        process.server = Some(server_key);
        process.pid = server.pid.as_raw();
        if key == sharing.share.probe() {
            debug!(
                "pid {} is asked which versions of MCP it speaks",
                process.pid
            );
        } else {
            info!("shared server {} is pid {}", key.0, process.pid);
        }
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing
            .share
            .process_started(key, &mut Context { now, memory });
        sharing.note(key);
    }
}

fn has_output<S: System>(server: &Server<S>) -> bool {
    let is_readable = server.stdout.as_ref().is_some_and(Io::is_readable);
    is_readable || server.has_stderr()
}

fn read<S: System>(
    sharing: &mut Sharing,
    key: ProcessKey,
    side: &mut Server<S>,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) {
    for _ in 0..READS_PER_RUN {
        if !side.is_readable() {
            return;
        }
        match side.read(&mut scratch[..READ_BYTES]) {
            Input::Bytes(count) => sharing.share.process_bytes(key, &scratch[..count], cx),
            Input::End | Input::Broken(_) | Input::Blocked => return,
        }
    }
}

fn write<S: System>(
    sharing: &mut Sharing,
    key: ProcessKey,
    side: &mut Server<S>,
    cx: &mut Context<'_>,
) {
    while side.is_writable() && !sharing.share.to_process(key).is_empty() {
        match side.write(sharing.share.to_process(key)) {
            Ok(0) => return,
            Ok(count) => sharing.share.process_written(key, count, cx),
            Err(error) => {
                debug!("shared server {}: its input: {error}", key.0);
                if let Some(unread) = side.take_unread() {
                    sharing.processes[key.0].unread = unread;
                }
                return;
            }
        }
    }
}
