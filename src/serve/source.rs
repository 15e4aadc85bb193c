//! The configuration that is served, as the system has it: reads it again and has everything ready for the loop to put it
//! in force, or says why not.

mod state;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use log::{error, warn};
use serde::{Deserialize, Serialize};

pub(super) use self::state::SourceState;
use super::accept::ListenerKey;
use super::change::{Change, Placed, Wanted};
use super::doors::Doors;
use super::launcher::Launcher;
use super::listen::{self, Group, Origin};
use super::reload::{Contents, Files};
use super::stamps::Stamps;
use super::system::Linux;
use super::{limits, plans, rules, setup};
use crate::buffers::budget::BudgetSize;
use crate::cli::keys::Given;
use crate::config;
use crate::entrance::Name;
use crate::options::{ServeOptions, Served};
use crate::process::memory_limit::MemoryLimit;
use crate::process::{DescriptorLimit, RunAs};
use crate::transport::listener::Listener;
use crate::util::service_key::ServiceKey;

/// Where what is served comes from, and what of it is in force.
#[derive(Debug)]
pub(super) struct Source {
    /// The configuration; `None`: the command line says it all.
    pub(super) path: Option<PathBuf>,
    /// What is in it.
    pub(super) text: Option<String>,
    pub(super) given: Given,
    pub(super) options: ServeOptions,
    pub(super) user: Option<RunAs>,
    pub(super) descriptors: DescriptorLimit,
    pub(super) bound: Vec<Bound>,
    pub(super) stamps: Stamps,
    /// What is ready to be put in force.
    pub(super) staged: Option<Staged>,
}

/// What was known before anything was read.
#[derive(Debug)]
pub struct Beginning {
    given: Given,
    text: Option<String>,
    stamps: Stamps,
}

impl Beginning {
    /// Call it before the configuration is read.
    pub fn new(given: Given, configuration: Option<&Path>) -> Self {
        let paths = configuration.map(Path::to_owned);
        Self {
            given,
            text: None,
            stamps: Stamps::of(paths.into_iter().collect()),
        }
    }

    /// The configuration was read, and this is in it.
    #[must_use]
    pub fn with_text(self, text: Option<String>) -> Self {
        Self { text, ..self }
    }

    /// Call it before all else that these name is read.
    pub(super) fn note(&mut self, options: &ServeOptions, servers: &[Served]) {
        let others = Stamps::of(other_files(&Files::of(options), servers));
        self.stamps = std::mem::take(&mut self.stamps).and(others);
    }
}

/// What is read besides a configuration.
fn other_files<'a>(files: &Files, servers: impl IntoIterator<Item = &'a Served>) -> Vec<PathBuf> {
    let mut paths = files.paths();
    for served in servers {
        paths.extend_from_slice(&served.options.env_files);
    }
    paths
}

/// Sockets of one origin that are listened on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bound {
    pub(super) origin: Origin,
    /// The server that alone is served there, by its name.
    pub(super) owner: Option<Name>,
    pub(super) keys: Vec<ListenerKey>,
    pub(super) addresses: Vec<SocketAddr>,
}

/// The system's part of a [`Change`].
#[derive(Debug)]
pub(super) struct Staged {
    text: Option<String>,
    options: ServeOptions,
    launchers: Vec<Launcher>,
    files: Files,
    /// Those to come, with the number of sockets of each.
    bound: Vec<(Bound, usize)>,
    /// What is said once it is in force.
    warnings: Vec<String>,
    errors: Vec<String>,
    stamps: Stamps,
}

impl Source {
    pub(super) fn of(
        options: ServeOptions,
        beginning: Beginning,
        user: Option<RunAs>,
        descriptors: DescriptorLimit,
    ) -> Self {
        let Beginning {
            given,
            text,
            stamps,
        } = beginning;
        Self {
            path: options.config.clone(),
            text,
            given,
            options,
            user,
            descriptors,
            bound: Vec::new(),
            stamps,
            staged: None,
        }
    }

    /// The ports that clients connect to.
    pub(super) fn ports(&self) -> Vec<u16> {
        let addresses = self.bound.iter().flat_map(|bound| &bound.addresses);
        addresses.map(SocketAddr::port).collect()
    }
}

impl Bound {
    pub(super) fn of(group: &Group, servers: &[Served], keys: Vec<ListenerKey>) -> Self {
        Self {
            origin: group.origin.clone(),
            owner: owner(servers, group.door),
            keys,
            addresses: tcp_addresses(&group.sockets),
        }
    }
}

/// The name of the server that alone is served at a door.
pub(super) fn owner(servers: &[Served], door: Option<ServiceKey>) -> Option<Name> {
    door.and_then(|key| servers.get(key.0)?.name.clone())
}

fn tcp_addresses(sockets: &[Listener]) -> Vec<SocketAddr> {
    let addresses = sockets.iter().filter_map(Listener::tcp_address);
    addresses.collect()
}

/// What can only be set at the start.
fn check_fixed(old: &ServeOptions, new: &ServeOptions) -> Result<(), String> {
    let is_same = [
        ("user", old.user == new.user),
        ("traceable", old.traceable == new.traceable),
        ("unixMode", old.unix_mode == new.unix_mode),
        (
            "resumeTimeout",
            old.resume_timeout.is_some() == new.resume_timeout.is_some(),
        ),
        ("logFormat", old.log_format == new.log_format),
        ("status", old.status == new.status),
        ("statusHost", old.status_host == new.status_host),
        ("statusPublic", old.status_public == new.status_public),
    ];
    let changed = is_same.into_iter().filter(|(_, is_same)| !is_same);
    let changed: Vec<&str> = changed.map(|(key, _)| key).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} can't be changed while the proxy runs (restart it)",
        changed.join(", ")
    ))
}

impl Linux {
    /// Reads everything, checks it and binds what is new.
    pub(super) fn prepare(&mut self) -> Option<Result<Change<Listener>, String>> {
        self.source.staged = None;
        let path = self.source.path.clone()?;
        self.take_stamps();
        let own_stamps = Stamps::of(vec![path.clone()]);
        let prepared = config::load(&path, &self.source.given)
            .map_err(|errors| errors.0.join("; "))
            .and_then(|configuration| self.prepare_for(configuration, own_stamps));
        Some(prepared.map(|(change, staged)| {
            self.source.staged = Some(staged);
            change
        }))
    }

    fn prepare_for(
        &self,
        configuration: config::Configuration,
        own_stamps: Stamps,
    ) -> Result<(Change<Listener>, Staged), String> {
        let config::Configuration {
            options,
            servers,
            warnings,
            text,
        } = configuration;
        let source = &self.source;
        check_fixed(&source.options, &options)?;
        let files = Files::of(&options);
        let stamps = own_stamps.and(Stamps::of(other_files(&files, &servers)));
        let contents = files.read()?;
        let mut errors = Vec::new();
        let launchers = servers.iter();
        let launchers = launchers.map(|served| self.launcher(served, &mut errors));
        let launchers: Result<Vec<(Launcher, bool)>, String> = launchers.collect();
        let (launchers, alike): (Vec<Launcher>, Vec<bool>) = launchers?.into_iter().unzip();
        let doors = Doors::find(&source.bound, &options, &servers)?;
        let summary: Vec<String> = listen::addresses(&options, &servers)
            .iter()
            .map(|(address, _)| address.to_string())
            .collect();
        let summary = summary.join(", ");
        let plans = plans::plans(&options, &launchers, source.descriptors);
        let directory = rules::directory(&servers);
        let limits = limits::limits(&options, &plans, &directory, source.descriptors);
        let size = BudgetSize::new(options.max_buffer_bytes, MemoryLimit::find());
        let services = plans.into_iter().zip(&servers).zip(alike);
        let services = services.map(|((plan, served), starts_alike)| Wanted {
            plan,
            is_default: served.is_default,
            starts_alike,
        });
        let change = Change {
            rules: rules::of(&options, directory, None),
            contents,
            limits,
            buffer_bytes: size.bytes,
            log_level: options.log_level,
            drain_delay: options.drain_delay,
            about: setup::about(&options, &servers, summary),
            services: services.collect(),
            doors: doors.wanted,
        };
        let staged = Staged {
            text,
            options,
            launchers,
            files,
            bound: doors.bound,
            warnings,
            errors,
            stamps,
        };
        Ok((change, staged))
    }

    /// What starts a server, and whether it does so as before. One that could not be started before, and is the same, is no
    /// reason to change nothing.
    fn launcher(
        &self,
        served: &Served,
        errors: &mut Vec<String>,
    ) -> Result<(Launcher, bool), String> {
        let source = &self.source;
        let mut launcher = Launcher::new(served.clone(), source.user.as_ref(), source.descriptors);
        let found = launcher.find();
        let mut all = self.launchers.iter().filter(|it| !it.is_retired);
        let old = all.find(|old| old.served().name == served.name);
        if let Err(error) = found {
            let name = served.name.as_ref().map_or("", |name| name.as_str());
            let was_broken = |old: &Launcher| !old.is_fine() && old.served() == served;
            if !old.is_some_and(was_broken) {
                return Err(format!("{name} can't be served: {error}"));
            }
            errors.push(format!("{name} can't be served: {error}"));
        }
        let is_alike = old.is_some_and(|old| old.starts_like(&launcher));
        Ok((launcher, is_alike))
    }

    /// Notes what all files are now that are read again. Call it before they are.
    pub(super) fn take_stamps(&mut self) {
        let in_force = self.launchers.iter().filter(|it| !it.is_retired);
        let others = other_files(&self.files, in_force.map(Launcher::served));
        let own = self.source.path.iter().cloned().collect();
        self.source.stamps = Stamps::of(own).and(Stamps::of(others));
    }

    /// Puts the system's part in force.
    pub(super) fn finish(&mut self, contents: &Contents, placed: Placed) {
        let Some(staged) = self.source.staged.take() else {
            return;
        };
        for warning in &staged.warnings {
            warn!("{warning}");
        }
        for error in &staged.errors {
            error!("{error}");
        }
        self.tls.clone_from(&contents.tls);
        self.files = staged.files;
        self.source.text = staged.text;
        self.source.options = staged.options;
        self.source.stamps = staged.stamps;
        let mut keys = placed.listeners.iter().copied();
        self.source.bound = staged
            .bound
            .into_iter()
            .map(|(bound, count)| Bound {
                keys: keys.by_ref().take(count).collect(),
                ..bound
            })
            .collect();
        // Sessions go on where nobody listens any more.
        self.ports.extend(self.source.ports());
        self.ports.sort_unstable();
        self.ports.dedup();
        let Placed {
            services, older, ..
        } = placed;
        place_launchers(&mut self.launchers, staged.launchers, &services, &older);
    }
}

/// Has new ones take their places, by their keys. The others are for sessions that go on without them.
fn place_launchers(
    all: &mut Vec<Launcher>,
    new: Vec<Launcher>,
    keys: &[ServiceKey],
    older: &[(ServiceKey, Name)],
) {
    for launcher in &mut *all {
        launcher.is_retired = true;
    }
    for (key, name) in older {
        // A process that is started from now on is the new one, for whomever.
        let mut new = new.iter();
        if let Some(new) = new.find(|it| it.served().name.as_ref() == Some(name))
            && let Some(old) = all.get_mut(key.0)
        {
            *old = new.again();
            old.is_retired = true;
        }
    }
    for (key, launcher) in keys.iter().zip(new) {
        if key.0 < all.len() {
            all[key.0] = launcher;
        } else {
            all.push(launcher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ServerCommand, ServerOptions};

    #[test]
    fn launchers_take_their_places_and_those_before_them_are_for_sessions_that_go_on() {
        let launcher = |name: &str, command: &str| {
            let mut served = Served::only(ServerOptions {
                command: ServerCommand::Program(vec![command.into()]),
                ..ServerOptions::default()
            });
            served.name = Name::new(name);
            Launcher::new(served, None, DescriptorLimit::of(100))
        };
        let mut all = vec![
            launcher("files", "a"),
            launcher("weather", "b"),
            launcher("music", "c"),
        ];
        let new = vec![
            launcher("weather", "d"),
            launcher("files", "e"),
            launcher("video", "f"),
        ];
        // It is changed how the weather is shared, and nobody wants music any more.
        let keys = [ServiceKey(3), ServiceKey(0), ServiceKey(4)];
        let older = [(ServiceKey(1), Name::new("weather").unwrap())];
        place_launchers(&mut all, new, &keys, &older);
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.served().options.command.clone(), it.is_retired))
            .collect();
        let program = |word: &str| ServerCommand::Program(vec![word.into()]);
        let expected = [
            ("e", false),
            ("d", true),
            ("c", true),
            ("d", false),
            ("f", false),
        ];
        assert_eq!(
            all,
            expected.map(|(word, is_retired)| (program(word), is_retired))
        );
    }

    #[test]
    fn what_is_fixed_is_named() {
        let old = ServeOptions::default();
        assert_eq!(check_fixed(&old, &old.clone()), Ok(()));
        let new = ServeOptions {
            user: Some("nobody".to_owned()),
            unix_mode: 0o660,
            max_sessions: Some(7),
            ..old.clone()
        };
        let error = check_fixed(&old, &new).unwrap_err();
        assert!(
            error.starts_with("user, unixMode can't be changed"),
            "{error}"
        );
    }
}
