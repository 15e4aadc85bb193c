//! What the loop asks of the system below it. The program has [`Linux`] there, the simulation a script, and both run the
//! same loop.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::pipe;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::change::{Change, Placed};
use super::launcher::Launcher;
use super::listen;
use super::reload::{Contents, Files};
use super::source::Source;
use super::unread::Unread;
use crate::process::reap::{self, Reaped};
use crate::process::{self, ClientFacts, ServiceManager, Spawned, Spawner, Surroundings};
use crate::reactor::peers::Peers;
use crate::reactor::poller::{Poll, Poller, Register, Reregister};
use crate::reactor::signals::{Pending, Signals};
use crate::reactor::timers;
use crate::scheduler::SessionKey;
use crate::session::{Action, Session};
use crate::status::facts::ProcessFacts;
use crate::transport::connection::Connection;
use crate::transport::listener::Listener;
use crate::transport::tls::identity;
use crate::transport::tls::server::ServerTls;
use crate::upgrade::program::{Program, REHEARSE};
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;

/// What a pipe is to hold that carries lines of many times its default, in bytes: users other than root can have it for
/// 32 servers (/proc/sys/fs/pipe-user-pages-soft, pipe(7)).
const WIDE_PIPE_BYTES: i32 = 512 * 1024;

/// Connections, processes, signals and the wall clock.
pub trait System: Sized {
    /// Waits for events.
    type Poller: Poll
        + Reregister<Self::Client>
        + Register<Self::Listener>
        + Register<Self::Stdin>
        + Register<Self::Output>;
    /// Where connections come in.
    type Listener;
    /// A connection to a client.
    type Client: ClientSocket;
    /// Our end of the stdin of a server.
    type Stdin: Write + Pipe + Unread;
    /// Our end of the stdout or the stderr of a server.
    type Output: Read + Pipe;

    /// Takes the signals that have come.
    fn take_signals(&mut self) -> Pending;

    /// Accepts a connection (accept(2)).
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Client, ClientAddress)>;

    /// Starts a server of a service, for this session or for none yet. Errors are those of pipe(2), `posix_spawn(3)` and execve(2).
    fn spawn(
        &mut self,
        service: ServiceKey,
        user: Option<ServerUser<'_, Self::Client>>,
    ) -> io::Result<Spawned<Self::Stdin, Self::Output>>;

    /// Reaps one process.
    fn reap(&mut self) -> Reaped;

    /// Whether a process of this number is there, reaped or not.
    fn process_exists(&self, pid: Pid) -> bool;

    /// Whether anyone is left in the process group of this leader.
    fn group_exists(&self, leader: Pid) -> bool;

    /// Sends a signal to a process that was not reaped, and to its group, which it may have left. An error tells that the
    /// process itself can't be signalled.
    fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()>;

    /// Sends a signal to all of a process group.
    fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()>;

    /// Of these clients, those that owe acknowledgements and have sent nothing for longer than `time`.
    fn vanished<'a>(
        &mut self,
        clients: impl Iterator<Item = (SessionKey, &'a Self::Client)>,
        time: Duration,
    ) -> Vec<SessionKey>
    where
        Self::Client: 'a;

    /// What was written to this client and not acknowledged, in bytes; `None` if that is not known.
    fn unsent(&mut self, client: &Self::Client) -> Option<u32>;

    /// The time since 1970.
    fn unix_time(&self) -> Duration;

    /// From here on, this connection is TLS. This was read of it already.
    fn start_tls(&mut self, _: &mut Self::Client, _early: Vec<u8>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether clients that come in there may be asked for TLS.
    fn speaks_tls(&self, _: &Self::Listener) -> bool {
        false
    }

    /// Whether the certificate of this client, if one was asked for, is still good.
    fn would_take(&self, _: &Self::Client) -> bool {
        true
    }

    /// Reads the files again that may have changed. Those of TLS are in force once all were read.
    fn read_files(&mut self) -> Result<Contents, String>;

    /// Reads the configuration again, if there is one, and has all that it asks for ready. Nothing of it is in force yet.
    fn read_configuration(&mut self) -> Option<Result<Change<Self::Listener>, String>> {
        None
    }

    /// What was read last is put in force.
    fn configured(&mut self, _: &Contents, _: Placed) {}

    /// Says where a socket listens.
    fn log_listener(&self, _: &Self::Listener, _: Option<&str>) {}

    /// Says that nobody listens there any more.
    fn log_closed(&self, _: &Self::Listener) {}

    /// Whether files have changed that may be read again.
    fn have_files_changed(&self) -> bool {
        false
    }

    /// When our own certificate ends, in seconds since 1970, if there is one.
    fn certificate_not_after(&self) -> Option<i64> {
        None
    }

    /// Tells the service manager, if there is one.
    fn tell_manager(&self, _: &str) {}

    /// How often it wants to hear that the program lives.
    fn watchdog(&self) -> Option<Duration> {
        None
    }

    /// What the system knows of this process.
    fn process_facts(&self) -> ProcessFacts {
        ProcessFacts::default()
    }

    /// A session wants something done, which is done next. The program has nothing to say to that.
    fn action_taken(&mut self, _: SessionKey, _: Action, _: &Session) {}

    /// A session is forgotten. The program has nothing to say to that.
    fn session_freed(&mut self, _: SessionKey, _: &Session) {}
}

/// The session that a server is started for, and what is known of its client.
#[derive(Debug)]
pub struct ServerUser<'a, C> {
    /// The session.
    pub key: SessionKey,
    /// Its number, as the log has it.
    pub number: u64,
    /// Where the client comes from.
    pub address: ClientAddress,
    /// The name that the client has shown to be its own.
    pub name: Option<&'a str>,
    /// The connection to the client, if it is still there.
    pub connection: Option<&'a C>,
}

/// A connection to a client.
pub trait ClientSocket: Read + Write {
    /// Sets its options.
    fn configure(&self) -> io::Result<()>;

    /// Ends our side of it. What has found no room yet goes out before.
    fn end(&mut self);

    /// Takes the error that it has run into, if any (`SO_ERROR`, socket(7)).
    fn take_error(&self) -> Option<io::Error>;

    /// Whether it is a TLS connection.
    fn is_tls(&self) -> bool {
        false
    }

    /// Takes the TLS handshake as far as the connection allows it now.
    fn shake(&mut self) -> Shake {
        Shake::Done { name: None }
    }

    /// Whether a read would find something although no event tells.
    fn holds_input(&self) -> bool {
        false
    }

    /// Whether something that was written has found no room yet. [`Write::flush`] sends it once there is some.
    fn holds_output(&self) -> bool {
        false
    }
}

/// What has become of a TLS handshake.
#[derive(Debug)]
pub enum Shake {
    /// More has to come.
    Waits,
    /// It is done.
    Done {
        /// The name in the client's certificate, if one was asked for. It may be anything.
        name: Option<String>,
    },
    /// It has failed, for this reason; the client was told, as far as that can be.
    Failed(String),
}

/// A pipe.
pub trait Pipe {
    /// Has it hold more. The system may refuse that, and then it has to do as it is.
    fn widen(&self);
}

/// The system itself.
#[derive(Debug)]
pub struct Linux {
    /// Starts servers of each service.
    pub launchers: Vec<Launcher>,
    /// Takes signals.
    pub signals: Signals,
    /// Knows about clients.
    pub peers: Peers,
    /// The ports that clients connect to.
    pub ports: Vec<u16>,
    /// What is read again on SIGHUP.
    pub files: Files,
    /// What TLS sessions are made with from now on, if TLS is spoken.
    pub tls: Option<ServerTls>,
    /// Where what is served comes from.
    pub(super) source: Source,
    /// Who has started this program, if that is a service manager.
    pub manager: ServiceManager,
    /// What goes on in this process after SIGUSR2.
    pub program: Program,
}

impl Linux {
    /// Starts the program that is to go on, to be asked whether it could.
    pub(super) fn spawn_rehearsal(&self) -> Result<Spawned, String> {
        let words = self.program.next().words().into_iter().skip(1);
        let path = self.program.path();
        let command: Vec<OsString> = [path.into(), REHEARSE.into()]
            .into_iter()
            .chain(words)
            .collect();
        Spawner::new(&command, Surroundings::inherited(), self.source.descriptors)
            .and_then(|spawner| spawner.spawn(None))
            .map_err(|error| error.to_string())
    }
}

impl System for Linux {
    type Poller = Poller;
    type Listener = Listener;
    type Client = Connection;
    type Stdin = pipe::Sender;
    type Output = pipe::Receiver;

    fn take_signals(&mut self) -> Pending {
        self.signals.take()
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<(Connection, ClientAddress)> {
        let (socket, address) = listener.accept()?;
        Ok((socket.into(), address))
    }

    fn spawn(
        &mut self,
        service: ServiceKey,
        user: Option<ServerUser<'_, Connection>>,
    ) -> io::Result<Spawned> {
        let spawner = self.launchers[service.0].spawner()?;
        let user = user.filter(|_| spawner.tells_clients());
        let client = user.map(|user| ClientFacts {
            session: user.number,
            address: user.address,
            local: user.connection.and_then(local_address),
            name: user.name,
        });
        spawner.spawn(client.as_ref())
    }

    fn reap(&mut self) -> Reaped {
        reap::reap()
    }

    fn process_exists(&self, pid: Pid) -> bool {
        reap::exists(pid)
    }

    fn group_exists(&self, leader: Pid) -> bool {
        reap::group_exists(leader)
    }

    fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        reap::signal_process(leader, signal)
    }

    fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        reap::signal_group(leader, signal)
    }

    fn vanished<'a>(
        &mut self,
        clients: impl Iterator<Item = (SessionKey, &'a Connection)>,
        time: Duration,
    ) -> Vec<SessionKey> {
        // Whoever is at the other end of a unix socket is on this machine.
        let clients = clients.filter_map(|(key, client)| Some((key, client.socket().tcp()?)));
        self.peers.vanished(&self.ports, clients, time)
    }

    fn unsent(&mut self, client: &Connection) -> Option<u32> {
        let queued = self.peers.unsent(client.socket().tcp()?)?;
        let held = u32::try_from(client.unsent()).unwrap_or(u32::MAX);
        Some(queued.saturating_add(held))
    }

    fn unix_time(&self) -> Duration {
        timers::unix_time()
    }

    fn start_tls(&mut self, client: &mut Connection, early: Vec<u8>) -> io::Result<()> {
        let tls = self.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        client.accept_tls(Arc::clone(&tls.config), early)
    }

    fn speaks_tls(&self, listener: &Listener) -> bool {
        self.tls.is_some() && matches!(listener, Listener::Tcp(_))
    }

    fn would_take(&self, client: &Connection) -> bool {
        let shown = self.tls.as_ref().zip(client.certificates());
        shown.is_none_or(|(tls, certificates)| tls.would_take(certificates))
    }

    fn certificate_not_after(&self) -> Option<i64> {
        self.tls.as_ref()?.not_after
    }

    fn tell_manager(&self, state: &str) {
        self.manager.tell(state);
    }

    fn watchdog(&self) -> Option<Duration> {
        self.manager.watchdog()
    }

    fn process_facts(&self) -> ProcessFacts {
        process::facts::own()
    }

    fn read_files(&mut self) -> Result<Contents, String> {
        self.take_stamps();
        let contents = self.files.read()?;
        self.tls.clone_from(&contents.tls);
        Ok(contents)
    }

    fn read_configuration(&mut self) -> Option<Result<Change<Listener>, String>> {
        self.prepare()
    }

    fn configured(&mut self, contents: &Contents, placed: Placed) {
        self.finish(contents, placed);
    }

    fn log_listener(&self, listener: &Listener, owner: Option<&str>) {
        listen::log(listener, owner, &self.source.options);
    }

    fn log_closed(&self, listener: &Listener) {
        log::info!("not listening on {listener} any more");
    }

    fn have_files_changed(&self) -> bool {
        self.source.stamps.have_changed()
    }
}

impl ClientSocket for Connection {
    fn configure(&self) -> io::Result<()> {
        self.socket().configure()
    }

    fn end(&mut self) {
        Self::end(self);
    }

    fn take_error(&self) -> Option<io::Error> {
        self.socket().take_error().ok().flatten()
    }

    #[inline]
    fn is_tls(&self) -> bool {
        Self::is_tls(self)
    }

    fn shake(&mut self) -> Shake {
        match Self::shake(self) {
            Ok(false) => Shake::Waits,
            Ok(true) => Shake::Done {
                // One without a name has a name that is not fit.
                name: self
                    .certificates()
                    .and_then(|certificates| certificates.first())
                    .map(|certificate| identity::name(certificate).unwrap_or_default()),
            },
            Err(error) => Shake::Failed(error.words_for_server()),
        }
    }

    fn holds_input(&self) -> bool {
        Self::holds_input(self)
    }

    fn holds_output(&self) -> bool {
        self.unsent() > 0
    }
}

impl Pipe for pipe::Sender {
    fn widen(&self) {
        widen(self);
    }
}

impl Pipe for pipe::Receiver {
    fn widen(&self) {
        widen(self);
    }
}

/// What a client has connected to, over TCP.
fn local_address(client: &Connection) -> Option<SocketAddr> {
    client.socket().tcp()?.local_addr().ok()
}

fn widen(pipe: &impl AsFd) {
    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(WIDE_PIPE_BYTES));
}

#[cfg(test)]
mod tests {
    use std::net;

    use mio::net::TcpListener;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{getsockopt, sockopt};

    use super::*;
    use crate::cli::keys::Given;
    use crate::options::ServeOptions;
    use crate::process::DescriptorLimit;
    use crate::serve::source::Beginning;
    use crate::session::report::Exit;

    /// Waits until there is something to be read.
    fn wait(source: &impl AsFd) {
        let mut descriptors = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut descriptors, PollTimeout::from(10_000_u16)), Ok(1));
    }

    /// The servers of this system echo a line, and exit with 3.
    fn linux() -> Linux {
        let command = ["sh", "-c", "read line; echo $line; exit 3"].map(Into::into);
        let poller = Poller::new().unwrap();
        let descriptors = DescriptorLimit::raise().unwrap();
        let spawner = Spawner::new(&command, Surroundings::inherited(), descriptors).unwrap();
        Linux {
            launchers: vec![Launcher::of(spawner, descriptors)],
            signals: Signals::register(poller.registry(), mio::Token(0)).unwrap(),
            peers: Peers::new(),
            ports: Vec::new(),
            files: Files::default(),
            tls: None,
            source: Source::of(
                ServeOptions::default(),
                Beginning::new(Given::default(), None),
                None,
                descriptors,
            ),
            manager: ServiceManager::default(),
            program: Program::default(),
        }
    }

    #[test]
    fn connections_are_accepted_set_up_ended_and_closed() {
        let mut system = linux();
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = Listener::Tcp(listener);
        let nobody = system.accept(&listener).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        let mut peer = net::TcpStream::connect(listener.tcp_address().unwrap()).unwrap();
        wait(&listener);
        let (mut client, address) = system.accept(&listener).unwrap();
        assert_eq!(address, peer.local_addr().unwrap().into());
        client.configure().unwrap();
        assert!(client.socket().tcp().unwrap().nodelay().unwrap());
        assert!(getsockopt(client.socket(), sockopt::KeepAlive).unwrap());
        assert!(ClientSocket::take_error(&client).is_none());
        ClientSocket::end(&mut client);
        assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(peer.write(b"x").unwrap(), 1, "the other direction is open");
        drop(client);
    }

    #[test]
    fn what_a_client_does_not_take_is_known() {
        let mut system = linux();
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = Listener::Tcp(listener);
        let _peer = net::TcpStream::connect(listener.tcp_address().unwrap()).unwrap();
        wait(&listener);
        let (mut client, _) = system.accept(&listener).unwrap();
        let error = loop {
            if let Err(error) = client.write(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(system.unsent(&client).is_some_and(|bytes| bytes > 1));
    }

    #[test]
    fn servers_are_started_and_reaped_and_signals_reach_their_groups() {
        let mut system = linux();
        let mut server = system.spawn(ServiceKey::ONLY, None).unwrap();
        let killed = system.spawn(ServiceKey::ONLY, None).unwrap();
        for pipe in [&server.stdout, &killed.stderr] {
            pipe.widen();
        }
        server.stdin.widen();
        assert!(system.process_exists(killed.pid) && system.group_exists(killed.pid));
        assert_eq!(system.reap(), Reaped::Nothing);
        server.stdin.write_all(b"echo\n").unwrap();
        wait(&server.stdout);
        let mut line = [0; 8];
        let count = server.stdout.read(&mut line).unwrap();
        assert_eq!(&line[..count], b"echo\n");
        assert_eq!(
            next_reaped(&mut system, &server.stdout),
            (server.pid, Exit::Code(3))
        );
        system.signal_process(killed.pid, Signal::SIGKILL).unwrap();
        assert_eq!(
            next_reaped(&mut system, &killed.stdout),
            (killed.pid, Exit::Signal(9))
        );
        assert!(!system.process_exists(killed.pid) && !system.group_exists(killed.pid));
        assert!(system.unix_time() > Duration::from_secs(1_700_000_000));
    }

    /// A process ends its output before it can be reaped.
    fn next_reaped(system: &mut Linux, output: &pipe::Receiver) -> (Pid, Exit) {
        wait(output);
        loop {
            if let Reaped::Process(pid, exit) = system.reap() {
                return (pid, exit);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_wide_pipe_holds_more_if_the_system_allows_it() {
        type Widen = fn(&pipe::Sender, &pipe::Receiver);
        let from_either_end: [Widen; 2] =
            [|sender, _| sender.widen(), |_, receiver| receiver.widen()];
        for widen in from_either_end {
            let (sender, receiver) = pipe::new().unwrap();
            let size = || fcntl(receiver.as_fd(), FcntlArg::F_GETPIPE_SZ).unwrap();
            let before = size();
            widen(&sender, &receiver);
            let after = size();
            let set = FcntlArg::F_SETPIPE_SZ(WIDE_PIPE_BYTES);
            let is_refused = fcntl(receiver.as_fd(), set).is_err();
            assert!(after == WIDE_PIPE_BYTES || (is_refused && after == before));
        }
    }
}
