//! Tells the service manager how far the program is (`sd_notify(3)`): a datagram for each change, which is lost rather than
//! waited for. There are crates for that; they block once nobody reads, or need `unsafe`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io, process};

/// Where the service manager listens. By default there is none.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that has started this program, if it wants to be told.
    pub fn of_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET");
        Self {
            socket: address.and_then(|address| open(&address).ok()),
            watchdog: watchdog(
                env::var("WATCHDOG_USEC").ok().as_deref(),
                env::var("WATCHDOG_PID").ok().as_deref(),
            ),
        }
    }

    /// Says so, in lines of `NAME=value`.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // Whether anybody listens is not our business.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }

    /// How often it wants to hear that the program is alive.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }
}

/// A name that begins with `@` stands in no file system.
fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Twice as often as is asked for, if it is this process that is asked.
fn watchdog(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid == process::id().to_string());
    let micros: u64 = micros.filter(|_| is_ours)?.parse().ok()?;
    (micros > 1).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(address: &str) -> ServiceManager {
        ServiceManager {
            socket: Some(open(address.as_ref()).unwrap()),
            watchdog: None,
        }
    }

    #[test]
    fn what_is_told_is_a_datagram() {
        let name = format!("mcp-tcp-proxy-notify-{}", process::id());
        let path = env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let in_files = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
        let told = [
            (path.display().to_string(), in_files),
            (format!("@{name}"), abstract_one),
        ];
        for (address, socket) in told {
            manager(&address).tell("READY=1\nSTATUS=x");
            let mut buffer = [0; 64];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"READY=1\nSTATUS=x");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nobody_is_waited_for() {
        let name = format!("mcp-tcp-proxy-deaf-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let deaf = UnixDatagram::bind_addr(&address).unwrap();
        let manager = manager(&format!("@{name}"));
        for _ in 0..10_000 {
            manager.tell("WATCHDOG=1");
        }
        drop(deaf);
        manager.tell("STOPPING=1");
        ServiceManager::default().tell("READY=1");
    }

    #[test]
    fn the_watchdog_is_heard_of_twice_as_often_as_it_asks() {
        let own = process::id().to_string();
        let second = Some(Duration::from_millis(500));
        assert_eq!(watchdog(Some("1000000"), None), second);
        assert_eq!(watchdog(Some("1000000"), Some(&own)), second);
        for (micros, pid) in [
            (None, None),
            (Some("x"), None),
            (Some("0"), None),
            (Some("1000000"), Some("1")),
        ] {
            assert_eq!(watchdog(micros, pid), None);
        }
    }
}
