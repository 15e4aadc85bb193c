//! What the service manager is told (`sd_notify(3)`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;

use crate::common::{DEADLINE, Proxy, TempFolder, servers};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    folder: TempFolder,
}

impl Manager {
    fn new() -> Self {
        let folder = TempFolder::for_sockets();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, folder }
    }

    fn start(&self, options: &[&str], variables: &[(&str, &str)]) -> Proxy {
        Proxy::start_configured(options, &servers::mirror(), |command| {
            command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
            command.envs(variables.iter().copied());
        })
    }

    /// The next thing that it is told, but for signs of life.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let said = self.next_of_any();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }

    #[track_caller]
    fn next_of_any(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }
}

#[test]
fn it_hears_of_the_start_and_of_the_end() {
    let manager = Manager::new();
    let mut proxy = manager.start(&[], &[]);
    assert_eq!(manager.next_of_any(), "READY=1\nSTATUS=serving");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(manager.next_of_any(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn it_hears_of_reloads_good_and_bad() {
    let manager = Manager::new();
    let path = manager.folder.path().join("tokens");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    };
    write("ann a-long-enough-secret\n");
    let file = path.display().to_string();
    let proxy = manager.start(&["--token-file", &file], &[]);
    assert!(manager.next().starts_with("READY=1\n"));
    let reload = || {
        proxy.signal(Signal::SIGHUP);
        let began = manager.next();
        let time = began.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{began}");
        manager.next()
    };
    assert_eq!(reload(), "READY=1\nSTATUS=serving");
    write("nonsense\n");
    let said = reload();
    let beginning = "READY=1\nSTATUS=serving; nothing was changed by SIGHUP: --token-file: ";
    assert!(said.starts_with(beginning), "{said}");
}

#[test]
fn it_hears_that_the_proxy_lives_if_it_asks_this_process() {
    let manager = Manager::new();
    let proxy = manager.start(&[], &[("WATCHDOG_USEC", "20000")]);
    assert!(manager.next().starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(manager.next_of_any(), "WATCHDOG=1");
    }
    drop(proxy);
    let manager = Manager::new();
    let another = [("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let mut proxy = manager.start(&[], &another);
    assert!(manager.next_of_any().starts_with("READY=1\n"));
    proxy.connect().close();
    proxy.wait_for_log("closed: ");
    proxy.signal(Signal::SIGTERM);
    assert!(manager.next_of_any().starts_with("STOPPING=1\n"));
    proxy.wait_exit(DEADLINE);
}
