//! The other side of an upgrade: this program goes on where another one was.
//!
//! It opens, binds, drops and checks nothing that the state has, and what would refuse a start is only warned of. As long
//! as it is not sure to go on, everything stays as it was and is on its way back already.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{info, warn};
use nix::unistd::dup2_stdin;

use super::super::reload::Files;
use super::super::setup::{self, SetupError, failed_to};
use super::super::source::{Beginning, Source};
use super::super::system::Linux;
use super::super::visitors::Visitors;
use super::super::{Plan, Proxy, ProxyState, limits, rules, surroundings};
use super::rehearsal::ABLE;
use super::whole::Whole;
use crate::cli::keys::Given;
use crate::cli::{self, Command, VERSION};
use crate::config::Configuration;
use crate::entrance::Directory;
use crate::logger;
use crate::options::{ServeOptions, Served};
use crate::process::{DescriptorLimit, ServiceManager};
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
    /// The state, once it was read.
    whole: Option<Box<Whole>>,
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
            whole: None,
        })
    }

    /// What was served, as it was in force.
    ///
    /// # Errors
    /// It is not understood. Call [`Self::give_back`] then.
    pub fn configuration(
        &mut self,
        options: ServeOptions,
        given: &Given,
    ) -> Result<Configuration, String> {
        caught(|| {
            let whole: Whole = text::read_from_file(&self.parcel.state).map_err(not_taken_up)?;
            let configuration = whole.source.configuration(options, given);
            self.whole = Some(Box::new(whole));
            configuration
        })
    }

    /// Goes on with it. Its [configuration](Self::configuration) was asked for.
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
        let whole = self.whole.take().ok_or("the state was not read")?;
        caught(|| self.take_up(*whole, others, options, all, beginning))
    }

    fn take_up(
        &self,
        mut whole: Whole,
        others: Vec<OwnedFd>,
        options: &ServeOptions,
        all: &[Served],
        beginning: Beginning,
    ) -> Result<Proxy, String> {
        logger::go_on_with(std::mem::take(&mut whole.log_rest));
        let program = whole.program.clone().of_generation(self.generation);
        let sessions = whole.proxy.sessions();
        let is_next = self.generation > whole.program.generation();
        let began = whole.at;
        let sources = whole.sources(others).map_err(|error| error.to_string())?;
        let mut proxy = proxy_of(options, all, beginning, &whole, program)
            .map_err(|error| error.to_string())?;
        if whole.reloads_on_hangup {
            proxy.system.signals.reload_on_hangup();
        }
        let addresses = whole.proxy.addresses().map(str::to_owned);
        let about = addresses.map(|addresses| {
            let launchers = proxy.system.launchers.iter();
            let served: Vec<Served> = launchers.map(|it| it.served().clone()).collect();
            setup::about(options, &served, addresses)
        });
        proxy
            .restore(whole.proxy, sources, about)
            .map_err(|error| format!("not everything can be taken over: {error}"))?;
        proxy.follow_predecessor(options);
        proxy.counts.note_upgrade(is_next);
        let pause = timers::now().saturating_since(began).as_secs_f64() * 1000.0;
        info!(
            "{VERSION} goes on with {} and {}, after {pause:.1} ms",
            Counted(sessions, "session"),
            Counted(proxy.servers.left(), "server")
        );
        proxy.take_charge();
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

/// A panic is one more thing that can go wrong.
fn caught<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err("this program has panicked".to_owned()))
}

fn not_taken_up(why: impl Display) -> String {
    format!("the state can't be taken up: {why}")
}

/// The answer to the question whether a program could go on that is told these words, with the state on stdin.
///
/// # Errors
/// It could not, for this reason.
pub fn rehearse(words: Vec<OsString>) -> Result<&'static [u8], String> {
    let (options, given) = match cli::parse(words) {
        Ok(Command::TakeOver { options, given, .. }) => (options, given),
        Ok(_) => return Err("by these arguments it would not serve".to_owned()),
        Err(error) => return Err(format!("it does not take the arguments: {error}")),
    };
    let written = text::read(&mut io::stdin().lock()).map_err(not_taken_up)?;
    let whole: Whole = written.read().map_err(not_taken_up)?;
    let configuration = whole.source.configuration(*options, &given)?;
    whole.source.tls(&configuration.options).map(|_| ABLE)
}

/// A proxy of these options that has no sessions and listens nowhere yet.
fn proxy_of(
    options: &ServeOptions,
    all: &[Served],
    beginning: Beginning,
    whole: &Whole,
    program: Program,
) -> Result<Proxy, SetupError> {
    let descriptors = DescriptorLimit::raised_before(whole.original_descriptors)
        .map_err(failed_to("cannot raise the limit of descriptors"))?;
    // The process has become that user before.
    let user = surroundings::find_user(options).unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    let plans = whole.proxy.plans();
    let launchers = whole
        .source
        .launchers(&plans, all, user.as_ref(), descriptors);
    let poller = Poller::new().map_err(failed_to("cannot create an epoll instance"))?;
    let mut reactor = Reactor::new(poller);
    let signals = setup::watch_signals(&mut reactor, false)?;
    let directory = directory(&whole.proxy, all);
    let served = whole.proxy.served();
    let served: Vec<Plan> = served.map(|(_, plan)| plan.clone()).collect();
    let limits = limits::limits(options, &served, &directory, descriptors);
    let mut source = Source::of(
        options.clone(),
        whole.source.beginning(beginning),
        user,
        descriptors,
    );
    source.bound = whole.source.bound();
    let system = Linux {
        launchers,
        signals,
        peers: Peers::new(),
        ports: Vec::new(),
        files: Files::of(options),
        tls: whole.source.tls(options)?,
        manager: ServiceManager::of_environment(),
        source,
        program,
    };
    let memory = setup::buffer_budget(options);
    let rules = rules::of(options, directory, whole.proxy.tokens().cloned());
    let entrance = whole.proxy.has_entrance();
    let entrance = entrance.then(|| Visitors::of(rules.clone(), limits.places));
    let mut proxy = Proxy::of_plans(system, reactor, Vec::new(), limits, rules, plans, memory);
    // It stays although nothing may be asked any more.
    proxy.visitors = entrance.map(Box::new);
    Ok(proxy)
}

/// What clients can ask for.
fn directory<S, K>(state: &ProxyState<S, K>, all: &[Served]) -> Directory {
    let mut names = vec![None; state.plans().len()];
    let mut default = None;
    for (key, plan) in state.served() {
        let mut all = all.iter();
        let is_default = |served: &&Served| served.is_default && served.name == plan.name;
        if all.any(|served| is_default(&served)) {
            default = Some(key);
        }
        names[key.0].clone_from(&plan.name);
    }
    Directory::new(names, default)
}

impl Proxy<Linux> {
    /// All is here.
    fn follow_predecessor(&mut self, options: &ServeOptions) {
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

    /// Nothing can fail any more. Until then, whatever is dropped leaves the files of unix sockets to the other program, and
    /// their locks.
    fn take_charge(&mut self) {
        for listener in self.all_listeners_mut() {
            if let Listener::Unix(socket) = listener
                && let Err(error) = socket.take_charge()
            {
                warn!("the lock of {listener} was lost: {error}");
            }
        }
    }
}
