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

    /// Starts servers by this.
    #[cfg(test)]
    pub(super) fn of(spawner: Spawner, descriptors: DescriptorLimit) -> Self {
        let served = Served::only(crate::options::ServerOptions::default());
        Self {
            spawner: Some(spawner),
            ..Self::new(served, None, descriptors)
        }
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
