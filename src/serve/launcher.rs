//! Starts the servers of one service. What keeps it from that is found out at the start, and again by each session that
//! needs a server: by then it may have been put right.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::setup::{SetupError, failed_to};
use super::surroundings;
use crate::options::{Served, ServerCommand};
use crate::process::{DescriptorLimit, Environment, RunAs, Spawner};
use crate::util::shell_words;

/// This very program is the demo server, too. Under this name it can be run although its file was replaced or deleted, as
/// by an upgrade, and then it is still the same version.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the servers of a service are started with.
#[derive(Debug)]
pub struct Launcher {
    served: Served,
    descriptors: DescriptorLimit,
    /// What servers get of the user that the program becomes.
    user: Option<RunAs>,
    environment: Option<Environment>,
    spawner: Option<Spawner>,
    /// Whether it is for sessions that began before a reload, and nobody else.
    pub(super) is_retired: bool,
}

impl Launcher {
    /// What is to be started, once it was found.
    pub(super) fn new(served: Served, user: Option<&RunAs>, descriptors: DescriptorLimit) -> Self {
        Self {
            served,
            descriptors,
            user: user.cloned(),
            environment: None,
            spawner: None,
            is_retired: false,
        }
    }

    /// Reads the variables of servers, for whoever the program is now.
    pub(super) fn read_environment(&mut self) -> Result<(), SetupError> {
        if let Some(fault) = &self.served.fault {
            return Err(SetupError::from(fault.clone()));
        }
        let environment = surroundings::environment(&self.served.options, self.user.as_ref())?;
        self.environment = Some(environment);
        Ok(())
    }

    /// Checks whether servers can be started, for whoever the program is now.
    pub(super) fn find(&mut self) -> Result<(), SetupError> {
        if self.environment.is_none() {
            self.read_environment()?;
        }
        let environment = self.environment.clone().unwrap_or_default();
        let options = &self.served.options;
        let surroundings = surroundings::surroundings(options, environment)?;
        let command = words(&options.command).map_err(failed_to("cannot run"))?;
        // A client may hear of this, and arguments hold secrets more often than not.
        let is_named = self.served.name.is_some();
        let shown = command.get(..1).filter(|_| is_named).unwrap_or(&command);
        let spawner = Spawner::new(&command, surroundings, self.descriptors).map_err(failed_to(
            format!("cannot run {}", shell_words::join(shown)),
        ))?;
        self.spawner = Some(spawner);
        Ok(())
    }

    /// What starts servers. The error is of the kind [`io::ErrorKind::InvalidInput`]: no attempt changes anything before
    /// somebody puts right what is wrong.
    pub(super) fn spawner(&mut self) -> io::Result<&Spawner> {
        if self.spawner.is_none() {
            self.find()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        }
        self.spawner
            .as_ref()
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Whether servers can be started, as far as that is known.
    pub(super) fn is_fine(&self) -> bool {
        self.spawner.is_some()
    }

    /// Whether another one starts servers in the same way.
    pub(super) fn starts_like(&self, other: &Self) -> bool {
        let (own, others) = (&self.served.options, &other.served.options);
        own.command == others.command
            && own.cwd == others.cwd
            && own.tells_clients() == others.tells_clients()
            && self.environment == other.environment
            && self.served.fault == other.served.fault
    }

    /// Starts servers by this.
    #[cfg(test)]
    pub(super) fn of(spawner: Spawner, descriptors: DescriptorLimit) -> Self {
        let served = Served::only(crate::options::ServerOptions::default());
        Self {
            spawner: Some(spawner),
            ..Self::new(served, None, descriptors)
        }
    }

    /// The variables of servers, if files had a say in them: what is in these may be something else by now.
    pub(super) fn environment_of_files(&self) -> Option<&Environment> {
        let has_files = !self.served.options.env_files.is_empty();
        self.environment.as_ref().filter(|_| has_files)
    }

    /// The same, with these variables.
    #[must_use]
    pub(super) fn with_environment(self, environment: Option<Environment>) -> Self {
        Self {
            environment: environment.or(self.environment),
            ..self
        }
    }

    /// Another one for the same. What keeps it from starting servers, a session will find out.
    pub(super) fn again(&self) -> Self {
        let mut again = Self::new(self.served.clone(), self.user.as_ref(), self.descriptors);
        let _ = again.find();
        again
    }

    /// What it starts.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }
}

/// The command and its arguments.
pub(super) fn words(command: &ServerCommand) -> io::Result<Vec<OsString>> {
    match command {
        ServerCommand::Demo => Ok(vec![own_program()?, "demo-server".into()]),
        ServerCommand::Program(command) => Ok(command.clone()),
    }
}

/// Without a `/proc`, the name by which this program was called has to do.
fn own_program() -> io::Result<OsString> {
    if Path::new(OWN_PROGRAM).exists() {
        return Ok(OWN_PROGRAM.into());
    }
    std::env::args_os().next().ok_or_else(|| {
        io::Error::other("--demo: this program can't find itself, as /proc is not mounted")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ServerOptions, Value, Variable};

    fn launcher(change: impl FnOnce(&mut Served)) -> Launcher {
        let mut served = Served::only(ServerOptions {
            command: ServerCommand::Program(vec!["serve".into(), "it".into()]),
            ..ServerOptions::default()
        });
        change(&mut served);
        let mut launcher = Launcher::new(served, None, DescriptorLimit::of(100));
        let _ = launcher.read_environment();
        launcher
    }

    #[test]
    fn servers_are_started_alike_if_they_find_the_same_around_them() {
        let plain = launcher(|_| {});
        assert!(plain.starts_like(&launcher(|_| {})));
        assert!(plain.starts_like(&launcher(|it| it.options.max_sessions = Some(3))));
        let others: [fn(&mut Served); 5] = [
            |it| it.options.command = ServerCommand::Demo,
            |it| it.options.cwd = Some("/".into()),
            |it| it.options.prespawn = 1,
            |it| {
                it.options.env.push(Variable {
                    name: "OF_MINE".into(),
                    value: Value::Given("1".into()),
                });
            },
            |it| it.fault = Some("it is broken".to_owned()),
        ];
        for change in others {
            let other = launcher(change);
            assert!(!plain.starts_like(&other) && !other.starts_like(&plain));
        }
    }

    #[test]
    fn what_keeps_servers_from_being_started_is_found_out_again_by_each_that_is_wanted() {
        let mut launcher = launcher(|it| it.options.cwd = Some("/no/such/directory".into()));
        assert!(!launcher.is_fine());
        for _ in 0..2 {
            let error = launcher.spawner().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("--cwd"), "{error}");
        }
        launcher.served.options.cwd = None;
        launcher.served.options.command = ServerCommand::Program(vec!["/bin/sh".into()]);
        assert!(launcher.spawner().is_ok() && launcher.is_fine());
        assert!(launcher.again().is_fine());
    }

    #[test]
    fn the_demo_server_is_this_very_program() {
        let words = words(&ServerCommand::Demo).unwrap();
        assert_eq!(words[1..], ["demo-server"]);
        assert!(!words[0].is_empty());
    }
}
