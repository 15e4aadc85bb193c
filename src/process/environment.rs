//! The variables that servers get: those of the proxy, without what is not meant for them, and those that the user sets.

mod file;

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

pub use self::file::read_file;
use super::client_facts;
use crate::malloc::is_own_variable;

/// What the proxy itself was told, and no server. Servers are told of their own clients alone; a token of the proxy's is
/// not theirs; and what a service manager says to one process (`sd_listen_fds(3)`, `sd_notify(3)`,
/// `sd_watchdog_enabled(3)`, credentials) would have another one speak for it.
const WITHHELD: [&str; 3] = [
    "MCP_TCP_PROXY_TOKEN",
    "NOTIFY_SOCKET",
    "CREDENTIALS_DIRECTORY",
];

/// The same, for all names that begin so.
const WITHHELD_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];

/// What is left when the environment is cleared: without these, hardly any program finds its files, and none knows the
/// language and the time of its user.
const KEPT: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/// The same, for all names that begin so (locale(7)).
const KEPT_PREFIX: &str = "LC_";

/// The variables of servers.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
    /// Names that the user has decided about.
    decided: Vec<OsString>,
}

impl Environment {
    /// What servers inherit; if the environment is cleared, next to nothing.
    pub fn inherited(is_cleared: bool) -> Self {
        Self::of(
            env::vars_os().filter(|(name, _)| !is_own_variable(name)),
            is_cleared,
        )
    }

    fn of(all: impl Iterator<Item = (OsString, OsString)>, is_cleared: bool) -> Self {
        let passes = |name: &OsStr| !is_withheld(name) && (!is_cleared || is_kept(name));
        Self {
            variables: all.filter(|(name, _)| passes(name)).collect(),
            decided: Vec::new(),
        }
    }

    /// Sets a variable, whatever it was.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.variables.retain(|(other, _)| *other != name);
        self.decided.push(name.clone());
        self.variables.push((name, value.into()));
    }

    /// Has servers not get a variable.
    pub fn remove(&mut self, name: impl Into<OsString>) {
        let name = name.into();
        self.variables.retain(|(other, _)| *other != name);
        self.decided.push(name);
    }

    /// Sets a variable to what the proxy has it set to, although servers would not get it. False if the proxy does not
    /// have it.
    pub fn let_through(&mut self, name: &OsStr) -> bool {
        let value = env::var_os(name).filter(|_| !is_own_variable(name));
        value.map(|value| self.set(name, value)).is_some()
    }

    /// Whether the user has decided what this variable is.
    pub(super) fn decides(&self, name: &str) -> bool {
        self.decided.iter().any(|other| other == name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        let mut all = self.variables.iter();
        let found = all.find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// As execve(2) takes them. Nothing in an environment holds a NUL.
    pub(super) fn to_strings(&self) -> Vec<CString> {
        let all = self.variables.iter();
        all.filter_map(|(name, value)| variable(name.as_bytes(), value.as_bytes()))
            .collect()
    }
}

/// A variable as execve(2) takes it; `None` if it holds a NUL.
pub(super) fn variable(name: &[u8], value: &[u8]) -> Option<CString> {
    CString::new([name, b"=", value].concat()).ok()
}

fn is_withheld(name: &OsStr) -> bool {
    let is = |known: &&str| name == *known;
    let begins = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
    WITHHELD.iter().any(is)
        || client_facts::NAMES.iter().any(is)
        || WITHHELD_PREFIXES.iter().any(begins)
}

fn is_kept(name: &OsStr) -> bool {
    KEPT.iter().any(|kept| name == *kept) || name.as_bytes().starts_with(KEPT_PREFIX.as_bytes())
}

/// Values are secrets more often than not.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.variables.iter().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(names: &[&str], is_cleared: bool) -> Environment {
        let all = names
            .iter()
            .map(|name| (OsString::from(name), OsString::from("x")));
        Environment::of(all, is_cleared)
    }

    fn names(environment: &Environment) -> Vec<&str> {
        let all = environment.variables.iter();
        all.map(|(name, _)| name.to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_about_the_proxy_alone_is_not_inherited() {
        let withheld = [
            "PROTO",
            "TCPREMOTEIP",
            "TCPREMOTEPORT",
            "TCPLOCALIP",
            "TCPLOCALPORT",
            "MCP_SESSION",
            "MCP_CLIENT",
            "MCP_CLIENT_UID",
            "MCP_TCP_PROXY_TOKEN",
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
            "LISTEN_PIDFDID",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
            "CREDENTIALS_DIRECTORY",
        ];
        assert_eq!(names(&environment(&withheld, false)), Vec::<&str>::new());
        let others = [
            "PROTOCOL",
            "TCPREMOTE",
            "MCP_CLIENTS",
            "LISTENER",
            "LC_ALL",
            "A",
            "PATH",
        ];
        assert_eq!(names(&environment(&others, false)), others);
    }

    #[test]
    fn a_cleared_environment_keeps_what_programs_can_not_do_without() {
        let kept = [
            "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR",
        ];
        let all = [&kept[..], &["SHELL", "LANGUAGE", "API_KEY", "LISTEN_FDS"]].concat();
        assert_eq!(names(&environment(&all, true)), kept);
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_was_there() {
        let mut environment = environment(&["A", "B", "A"], false);
        assert!(!environment.decides("A"));
        environment.set("A", "1");
        environment.set("C", "2");
        environment.set("A", "3");
        assert_eq!(names(&environment), ["B", "C", "A"]);
        assert_eq!(environment.get("A"), Some(OsStr::new("3")));
        assert!(environment.decides("A") && !environment.decides("B"));
        assert_eq!(
            environment.to_strings(),
            [c"B=x".into(), c"C=2".into(), CString::from(c"A=3")]
        );
        assert!(!environment.let_through(OsStr::new("NO_SUCH_VARIABLE")));
        assert!(environment.let_through(OsStr::new("PATH")));
        assert_eq!(
            environment.get("PATH").map(OsStr::to_owned),
            env::var_os("PATH")
        );
        assert_eq!(format!("{environment:?}"), r#"["B", "C", "A", "PATH"]"#);
    }
}
