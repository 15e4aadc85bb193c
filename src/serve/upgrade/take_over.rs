//! The other side of an upgrade: this program goes on where another one was.
//!
//! It opens, binds, drops and checks nothing that the state has, and what would refuse a start is only warned of. As long
//! as it is not sure to go on, everything stays as it was and is on its way back already.

use std::ffi::OsString;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{info, warn};
use nix::unistd::dup2_stdin;

use super::super::launcher::Launcher;
use super::super::reload::Files;
use super::super::setup::{self, SetupError, failed_to};
use super::super::source::{Beginning, Source};
use super::super::system::Linux;
use super::super::{Proxy, limits, plans, rules, surroundings};
use super::rehearsal::ABLE;
use super::whole::Whole;
use crate::cli::{self, Command, VERSION};
use crate::logger;
use crate::options::{ServeOptions, Served};
use crate::process::{DescriptorLimit, RunAs, ServiceManager};
use crate::reactor::Reactor;
use crate::reactor::peers::Peers;
use crate::reactor::poller::Poller;
use crate::reactor::timers;
use crate::transport::listener::Listener;
use crate::upgrade::parcel::Parcel;
use crate::upgrade::program::Program;
use crate::upgrade::text;
use crate::util::plural::Counted;

/// What another program in this process has left to this one.
#[derive(Debug)]
pub struct TakeOver {
    parcel: Parcel,
    /// All of it once more, for the other program, unless there was no room for that.
    way_back: Option<OwnedFd>,
    generation: u64,
}

impl TakeOver {
    /// Receives it from stdin, as the program of this generation.
    ///
    /// # Errors
    /// There is nothing of the kind, or not all of it.
    pub fn receive(generation: u64) -> Result<Self, String> {
        let parcel = Parcel::receive(io::stdin().as_fd())
            .map_err(|error| format!("cannot go on where another program was: {error}"))?
            .ok_or("--generation is for upgrades, and no program has left anything to this one")?;
        // From here on, whatever happens to what was received, there is all of it once more. What keeps it from that, as
        // others that are upgraded at the same time, is no reason to go back already.
        let way_back = parcel.send_back().ok();
        Ok(Self {
            parcel,
            way_back,
            generation,
        })
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// It is not possible. Call [`Self::give_back`] then.
    pub fn proxy(
        &mut self,
        options: &ServeOptions,
        all: &[Served],
        beginning: Beginning,
    ) -> Result<Proxy, String> {
        let others = std::mem::take(&mut self.parcel.others);
        let taken = AssertUnwindSafe(|| self.take_up(others, options, all, beginning));
        catch_unwind(taken).unwrap_or_else(|_| Err("this program has panicked".to_owned()))
    }

    fn take_up(
        &self,
        others: Vec<OwnedFd>,
        options: &ServeOptions,
        all: &[Served],
        beginning: Beginning,
    ) -> Result<Proxy, String> {
        let mut whole = read(&mut &self.parcel.state)?;
        logger::go_on_with(std::mem::take(&mut whole.log_rest));
        let program = whole.program.clone().of_generation(self.generation);
        let sessions = whole.proxy.sessions();
        let began = whole.at;
        let sources = whole.sources(others).map_err(|error| error.to_string())?;
        let mut proxy = proxy_of(options, all, beginning, &whole, program)
            .map_err(|error| error.to_string())?;
        if whole.reloads_on_hangup {
            proxy.system.signals.reload_on_hangup();
        }
        let addresses = whole.proxy.addresses().map(str::to_owned);
        let about = addresses.map(|addresses| setup::about(options, all, addresses));
        proxy
            .restore(whole.proxy, sources, about)
            .map_err(|error| format!("not everything can be taken over: {error}"))?;
        proxy.take_charge(options);
        let pause = timers::now().saturating_since(began).as_secs_f64() * 1000.0;
        info!(
            "{VERSION} goes on with {} and {}, after {pause:.1} ms",
            Counted(sessions, "session"),
            Counted(proxy.servers.left(), "server")
        );
        Ok(proxy)
    }

    /// Has the other program go on after all, as it was. Returns only if that fails, too.
    pub fn give_back(self, why: &str) -> io::Error {
        warn!("this program can't go on, and the one before does: {why}");
        log::logger().flush();
        let program = Program::default().of_generation(self.generation.saturating_sub(1));
        let started = match self.way_back {
            None => Err(io::Error::other("descriptors could not be sent back")),
            Some(way_back) => self
                .parcel
                .words_of_sender()
                .and_then(|words| program.start_open(self.parcel.sender.as_fd(), words, &way_back)),
        };
        match started {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

fn read(from: &mut (impl Read + Seek)) -> Result<Whole, String> {
    // It may have been read before.
    from.rewind().map_err(|error| error.to_string())?;
    understood(from)
}

fn understood(from: &mut impl Read) -> Result<Whole, String> {
    let written = text::read(from).map_err(|why| format!("the state can't be taken up: {why}"))?;
    written
        .read()
        .map_err(|error| format!("the state is not understood: {error}"))
}

/// The answer to the question whether a program could go on that is told these words, with the state on stdin.
///
/// # Errors
/// It could not, for this reason.
pub fn rehearse(words: Vec<OsString>) -> Result<&'static [u8], String> {
    match cli::parse(words) {
        Ok(Command::TakeOver { .. }) => {}
        Ok(_) => return Err("by these arguments it would not serve".to_owned()),
        Err(error) => return Err(format!("it does not take the arguments: {error}")),
    }
    understood(&mut io::stdin().lock()).map(|_: Whole| ABLE)
}

/// A proxy of these options that has no sessions and listens nowhere yet.
fn proxy_of(
    options: &ServeOptions,
    all: &[Served],
    mut beginning: Beginning,
    whole: &Whole,
    program: Program,
) -> Result<Proxy, SetupError> {
    beginning.note(options, all);
    let descriptors = DescriptorLimit::raised_before(whole.original_descriptors)
        .map_err(failed_to("cannot raise the limit of descriptors"))?;
    // The process has become that user before.
    let user = surroundings::find_user(options).unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    let launchers = launchers(all, user.as_ref(), descriptors);
    let poller = Poller::new().map_err(failed_to("cannot create an epoll instance"))?;
    let mut reactor = Reactor::new(poller);
    let signals = setup::watch_signals(&mut reactor, false)?;
    let plans = plans::plans(options, &launchers, descriptors);
    let directory = rules::directory(all);
    let limits = limits::limits(options, &plans, &directory, descriptors);
    let system = Linux {
        launchers,
        signals,
        peers: Peers::new(),
        ports: Vec::new(),
        files: Files::of(options),
        tls: None,
        manager: ServiceManager::of_environment(),
        source: Source::of(options.clone(), beginning, user, descriptors),
        program,
    };
    let memory = setup::buffer_budget(options);
    let rules = rules::of(options, directory, whole.proxy.tokens().cloned());
    Ok(Proxy::of_plans(
        system,
        reactor,
        Vec::new(),
        limits,
        rules,
        plans,
        memory,
    ))
}

/// What keeps a server from being started now is found out again by each session that needs one.
fn launchers(all: &[Served], user: Option<&RunAs>, descriptors: DescriptorLimit) -> Vec<Launcher> {
    let mut launchers: Vec<Launcher> = all
        .iter()
        .map(|served| Launcher::new(served.clone(), user, descriptors))
        .collect();
    for launcher in &mut launchers {
        if let Err(error) = launcher.find() {
            warn!("no server can be started for now: {error}");
        }
    }
    launchers
}

impl Proxy<Linux> {
    /// All is here, and nothing can fail any more: what is left of the other program goes.
    fn take_charge(&mut self, options: &ServeOptions) {
        for listener in self.all_listeners_mut() {
            if let Listener::Unix(socket) = listener
                && let Err(error) = socket.take_charge()
            {
                warn!("the lock of {listener} was lost: {error}");
            }
        }
        let ports = self.listeners.sources().filter_map(Listener::tcp_address);
        self.system.ports = ports.map(|address| address.port()).collect();
        setup::adopt_orphans();
        let nothing = std::fs::File::open("/dev/null");
        if let Err(error) = nothing.and_then(|nothing| Ok(dup2_stdin(&nothing)?)) {
            warn!("stdin can't be replaced: {error}");
        }
        let has_files = !self.system.files.are_none();
        let reload = self.counts.reload;
        self.begin(options, has_files);
        self.counts.reload = reload;
    }
}
