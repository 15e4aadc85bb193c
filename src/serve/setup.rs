//! What has to be right before anything is served, in the order in which it is made sure.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};

use log::{error, warn};
use mio::Interest;

use super::accept::ListenerKey;
use super::launcher::Launcher;
use super::listen::{self, Group, Listening};
use super::reload::{self, Files};
use super::source::{Beginning, Bound, Source};
use super::status::About;
use super::system::Linux;
use super::{
    Channel, Door, Due, Limits, Plan, Proxy, limits, plans, rules, start_log, surroundings,
};
use crate::buffers::budget::{BudgetSize, BufferBudget};
use crate::entrance::Rules;
use crate::options::{ServeOptions, Served, ServerCommand};
use crate::process::memory_limit::MemoryLimit;
use crate::process::{DescriptorLimit, RunAs, ServiceManager};
use crate::reactor::Reactor;
use crate::reactor::io::Io;
use crate::reactor::peers::Peers;
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::timers;
use crate::reactor::token::Target;
use crate::status::request::Hosts;
use crate::transport::listener::Listener;
use crate::upgrade::program::Program;
use crate::util::shell_words;

/// What kept the program from serving, in one line.
#[derive(Debug)]
pub struct SetupError(String);

impl Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for SetupError {
    fn from(words: String) -> Self {
        Self(words)
    }
}

/// Turns an error into one that says what was being done.
pub(super) fn failed_to<E: Display>(what: impl Display) -> impl FnOnce(E) -> SetupError {
    move |error| SetupError(format!("{what}: {error}"))
}

impl Proxy {
    /// Binds the addresses and checks whether the servers can be run.
    pub fn set_up(
        options: &ServeOptions,
        all: &[Served],
        mut beginning: Beginning,
    ) -> Result<Self, SetupError> {
        beginning.note(options, all);
        let descriptors =
            DescriptorLimit::raise().map_err(failed_to("cannot raise the limit of descriptors"))?;
        let user = surroundings::find_user(options)?;
        let mut launchers = launchers(all, user.as_ref(), descriptors)?;
        let files = Files::of(options);
        let contents = files.read().map_err(SetupError)?;
        let has_files = !files.are_none() || options.config.is_some();
        let poller = Poller::new().map_err(failed_to("cannot create an epoll instance"))?;
        let mut reactor = Reactor::new(poller);
        let listening = listen::open(options, all)?;
        let asked = listen::open_status(options)?;
        // Whoever is killed by a signal leaves the files of its sockets.
        let signals = watch_signals(&mut reactor, has_files)?;
        if let Some(user) = &user {
            let served = listening.groups.iter().flat_map(|group| &group.sockets);
            become_user(user, options, served.chain(&asked), &files)?;
            for_each(&mut launchers, Launcher::find)?;
        }
        let Listening { groups, summary } = listening;
        let plans = plans::plans(options, &launchers, descriptors);
        let directory = rules::directory(all);
        let limits = limits::limits(options, &plans, &directory, descriptors);
        limits::check_descriptors(descriptors)?;
        start_log::log_services(&summary, &launchers, &plans);
        start_log::log_session_limit(options, limits, descriptors);
        let asked = watch_status(&mut reactor, asked, options)?;
        let mut source = Source::of(options.clone(), beginning, user, descriptors);
        let listeners = watch(&mut reactor, groups, all, &mut source)?;
        adopt_orphans();
        let system = Linux {
            launchers,
            signals,
            peers: Peers::new(),
            ports: source.ports(),
            files,
            tls: contents.tls.clone(),
            manager: ServiceManager::of_environment(),
            program: Program::of_start(options.upgrade_from.as_deref()),
            source,
        };
        let memory = buffer_budget(options);
        contents.log(&directory);
        let rules = rules::of(options, directory, contents.tokens);
        let mut proxy = Self::of_plans(system, reactor, listeners, limits, rules, plans, memory);
        proxy.begin(options, has_files);
        if !asked.is_empty() {
            proxy.serve_status(asked, about(options, all, summary));
        }
        Ok(proxy)
    }

    /// The loop, with a service for each plan.
    pub(super) fn of_plans(
        system: Linux,
        reactor: Reactor<Channel, Due>,
        listeners: Vec<Door<Listener>>,
        limits: Limits,
        rules: Rules,
        mut plans: Vec<Plan>,
        memory: BufferBudget,
    ) -> Self {
        let first = plans.remove(0);
        let mut proxy = Self::new(system, reactor, listeners, limits, rules, first, memory);
        for plan in plans {
            proxy.add_service(plan);
        }
        proxy
    }

    /// What else the options say.
    pub(super) fn begin(&mut self, options: &ServeOptions, has_files: bool) {
        self.stop_timers.drain_delay = options.drain_delay;
        if options.watch {
            self.watch_files();
        }
        self.counts.reload = has_files.then(|| (true, timers::unix_time()));
    }
}

/// What starts the servers. What can be run is for the other user to say; without one, nothing is bound for a command that
/// can't be run.
fn launchers(
    all: &[Served],
    user: Option<&RunAs>,
    descriptors: DescriptorLimit,
) -> Result<Vec<Launcher>, SetupError> {
    let all = all.iter().cloned();
    let mut launchers: Vec<Launcher> = all
        .map(|served| Launcher::new(served, user, descriptors))
        .collect();
    for_each(&mut launchers, Launcher::read_environment)?;
    if user.is_none() {
        for_each(&mut launchers, Launcher::find)?;
    }
    Ok(launchers)
}

/// Becomes another user, to whom the files of the sockets belong from now on.
fn become_user<'a>(
    user: &RunAs,
    options: &ServeOptions,
    sockets: impl IntoIterator<Item = &'a Listener>,
    files: &Files,
) -> Result<(), SetupError> {
    listen::give_to(user, sockets)?;
    surroundings::become_user(user, options)?;
    files.warn_if_unreadable();
    reload::warn_if_unreadable(options);
    Ok(())
}

/// What servers leave behind becomes ours, to be ended and reaped.
pub(super) fn adopt_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        warn!("orphans of servers can't be adopted: {error}");
    }
}

pub(super) fn buffer_budget(options: &ServeOptions) -> BufferBudget {
    let size = BudgetSize::new(options.max_buffer_bytes, MemoryLimit::find());
    size.log();
    BufferBudget::new(size.bytes)
}

/// What those are told who ask how things are.
pub(super) fn about(options: &ServeOptions, servers: &[Served], addresses: String) -> About {
    let program = |served: &Served| match &served.options.command {
        ServerCommand::Demo => "the built-in demo server".to_owned(),
        ServerCommand::Program(command) => command
            .first()
            .map_or_else(String::new, |word| shell_words::quoted(word)),
    };
    About {
        addresses,
        commands: servers.iter().map(program).collect(),
        started: timers::now(),
        started_unix: timers::unix_time(),
        hosts: Hosts(options.status_host.clone()),
        is_public: options.status_public,
    }
}

/// Watches the sockets that clients connect to. Their keys are those of the order.
fn watch(
    reactor: &mut Reactor<Channel, Due>,
    groups: Vec<Group>,
    servers: &[Served],
    source: &mut Source,
) -> Result<Vec<Door<Listener>>, SetupError> {
    let directory = rules::directory(servers);
    let mut listeners = Vec::new();
    for group in groups {
        let first = listeners.len();
        let keys = (first..first + group.sockets.len()).map(ListenerKey);
        source
            .bound
            .push(Bound::of(&group, servers, keys.collect()));
        for socket in group.sockets {
            let owner = group.door.map(|door| directory.name(door));
            listen::log(&socket, owner, &source.options);
            let target = Target {
                key: listeners.len(),
                channel: Channel::Listener,
            };
            let listener = reactor.register(socket, target, Interest::READABLE);
            let listener = listener.map_err(failed_to("cannot watch a listening socket"))?;
            listeners.push((listener, group.door));
        }
    }
    Ok(listeners)
}

fn watch_status(
    reactor: &mut Reactor<Channel, Due>,
    sockets: Vec<Listener>,
    options: &ServeOptions,
) -> Result<Vec<Io<Listener>>, SetupError> {
    let mut listeners = Vec::new();
    for (key, socket) in sockets.into_iter().enumerate() {
        listen::log_status(&socket, options);
        let channel = Channel::StatusListener;
        let listener = reactor.register(socket, Target { key, channel }, Interest::READABLE);
        listeners.push(listener.map_err(failed_to("cannot watch a listening socket"))?);
    }
    Ok(listeners)
}

/// Does something for each service. What goes wrong with one of several is no reason not to serve the others.
fn for_each(
    launchers: &mut [Launcher],
    act: impl Fn(&mut Launcher) -> Result<(), SetupError>,
) -> Result<(), SetupError> {
    for launcher in launchers {
        if let Err(error) = act(launcher) {
            let Some(name) = &launcher.served().name else {
                return Err(error);
            };
            error!("{name} can't be served: {error}");
        }
    }
    Ok(())
}

/// Takes signals as events. SIGHUP asks for files to be read again if there are any, unless it says that a terminal is gone.
pub(super) fn watch_signals(
    reactor: &mut Reactor<Channel, Due>,
    has_files: bool,
) -> Result<Signals, SetupError> {
    let token = reactor.next_token(Target {
        key: 0,
        channel: Channel::Signals,
    });
    let registry = reactor.poller().registry();
    let mut signals =
        Signals::register(registry, token).map_err(failed_to("cannot receive signals"))?;
    signals.upgrade_on_request();
    if heeds_hangup(has_files, io::stdin().is_terminal()) {
        signals.reload_on_hangup();
    }
    signals.swap_on_user_signal();
    Ok(signals)
}

/// Whether SIGHUP asks for files to be read again.
fn heeds_hangup(has_files: bool, has_terminal: bool) -> bool {
    has_files && !has_terminal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::keys::Given;
    use crate::entrance::Name;
    use crate::options::ServerOptions;
    use crate::transport::address::Address;
    use crate::util::captured_log::captured;

    #[test]
    fn a_signal_asks_for_files_if_there_are_any_and_no_terminal_can_have_sent_it() {
        let heeded = [(true, false), (true, true), (false, false), (false, true)];
        let heeded = heeded.map(|(has_files, has_terminal)| heeds_hangup(has_files, has_terminal));
        assert_eq!(heeded, [true, false, false, false]);
    }

    #[test]
    fn of_several_services_one_that_can_not_be_served_is_no_reason_not_to_serve_the_others() {
        let launcher = |name: Option<&str>| {
            let mut served = Served::only(ServerOptions::default());
            served.name = name.and_then(Name::new);
            Launcher::new(served, None, DescriptorLimit::of(100))
        };
        let act = |launchers: &mut [Launcher]| {
            for_each(launchers, |_| {
                Err(SetupError::from("it is not there".to_owned()))
            })
        };
        assert!(act(&mut []).is_ok());
        let error = act(&mut [launcher(None)]).unwrap_err();
        assert_eq!(error.to_string(), "it is not there");
        let mut several = [launcher(Some("files")), launcher(Some("weather"))];
        let logged = captured(|| act(&mut several).unwrap());
        assert_eq!(
            logged,
            [
                "ERROR: files can't be served: it is not there",
                "ERROR: weather can't be served: it is not there"
            ]
        );
    }

    #[test]
    fn listening_sockets_are_known_by_their_order() {
        let any = || {
            let host = "127.0.0.1".to_owned();
            (Address::Tcp { host, port: 0 }, None)
        };
        let options = ServeOptions::default();
        let servers = [Served::only(ServerOptions::default())];
        let groups = listen::bind(&options, &servers, &[any(), any()], &[]).unwrap();
        let beginning = Beginning::new(Given::default(), None);
        let mut source = Source::of(options, beginning, None, DescriptorLimit::of(100));
        let mut reactor = Reactor::new(Poller::new().unwrap());
        let doors = watch(&mut reactor, groups, &servers, &mut source).unwrap();
        assert_eq!(doors.len(), 2);
        let keys: Vec<Vec<ListenerKey>> = source.bound.iter().map(|it| it.keys.clone()).collect();
        assert_eq!(keys, [[ListenerKey(0)], [ListenerKey(1)]]);
        let ports = source.ports();
        assert!(ports.len() == 2 && ports[0] != ports[1]);
    }

    #[test]
    fn those_who_ask_are_told_what_is_run() {
        let options = ServeOptions {
            status_host: vec!["proxy.example".to_owned()],
            status_public: true,
            ..ServeOptions::default()
        };
        let served = |command| {
            Served::only(ServerOptions {
                command,
                ..ServerOptions::default()
            })
        };
        let program = ServerCommand::Program(vec!["a program".into(), "secret".into()]);
        let all = [
            served(program),
            served(ServerCommand::Demo),
            served(ServerCommand::Program(Vec::new())),
        ];
        let about = about(&options, &all, "[::1]:7".to_owned());
        assert_eq!(
            about.commands,
            ["'a program'", "the built-in demo server", ""]
        );
        assert_eq!((&*about.addresses, about.is_public), ("[::1]:7", true));
        assert_eq!(about.hosts.0, ["proxy.example"]);
    }

    #[test]
    fn an_error_says_what_was_being_done() {
        let failed = failed_to("cannot listen")("in use");
        assert_eq!(failed.to_string(), "cannot listen: in use");
    }
}
