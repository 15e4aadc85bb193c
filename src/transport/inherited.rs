//! Listening sockets that systemd has opened for this program (`sd_listen_fds(3)`).

use std::env;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use log::debug;
use mio::net::TcpListener;
use nix::sys::socket::{getsockopt, sockopt};

use super::listener::Listener;
use super::unix_listener::UnixSocket;

/// Whom the sockets are for, how many there are, and what they are called.
const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";

/// The number of the first one.
const FIRST: usize = 3;

/// Takes the sockets, each with its name (`FileDescriptorName=`); there are none if the variables are not there or for another process. The error is one line.
///
/// To be called before descriptors are opened that the variables could name by mistake.
pub fn take() -> Result<Vec<(Listener, Option<String>)>, String> {
    let Some(count) = env::var_os(COUNT) else {
        return Ok(Vec::new());
    };
    let own = std::process::id().to_string();
    if env::var_os(PID).is_none_or(|pid| *pid != *own) {
        debug!("sockets of systemd are for another process ({PID})");
        return Ok(Vec::new());
    }
    // No process is passed more.
    let count = count.to_str().and_then(|count| count.parse::<u16>().ok());
    if count.is_none() {
        return Err(format!("{COUNT} is not a number of sockets"));
    }
    let names = env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .map(|at| {
            let number = FIRST + at;
            let name = names.next().filter(|name| !name.is_empty());
            take_one(&mut sockets, at)
                .map(|socket| (socket, name))
                .map_err(|why| format!("descriptor {number}, passed by systemd ({COUNT}), {why}"))
        })
        .collect()
}

fn take_one(sockets: &mut ListenFd, at: usize) -> Result<Listener, String> {
    if let Ok(Some(listener)) = sockets.take_unix_listener(at) {
        check_listening(&listener)?;
        listener.set_nonblocking(true).map_err(unusable)?;
        return Ok(Listener::Unix(UnixSocket::opened_elsewhere(listener)));
    }
    if let Ok(Some(listener)) = sockets.take_tcp_listener(at) {
        check_listening(&listener)?;
        listener.set_nonblocking(true).map_err(unusable)?;
        return Ok(Listener::Tcp(TcpListener::from_std(listener)));
    }
    Err("is not a stream socket of TCP or of unix(7) (ListenStream= makes one)".to_owned())
}

fn check_listening(socket: &impl AsFd) -> Result<(), String> {
    if getsockopt(&socket.as_fd(), sockopt::AcceptConn).map_err(unusable)? {
        return Ok(());
    }
    Err("does not listen: with Accept=yes systemd takes the connections; the socket unit needs Accept=no".to_owned())
}

fn unusable(error: impl std::fmt::Display) -> String {
    format!("can't be used: {error}")
}
