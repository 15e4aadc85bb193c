//! Log lines that say what they are about.

use std::fmt::{self, Display};

use log::kv::{ToValue, Value};

use super::client_address::ClientAddress;

/// What a log line can be about: in text its name stands in brackets, and what is known of it becomes fields.
pub trait Subject: Display {
    /// The number of the session.
    fn session(&self) -> Option<u64> {
        None
    }

    /// The name of the server that is served, if it has one.
    fn server(&self) -> Option<&str> {
        None
    }

    /// Where its client comes from.
    fn client(&self) -> Option<ClientAddress> {
        None
    }

    /// The process of the server.
    fn pid(&self) -> Option<u32> {
        None
    }
}

impl ToValue for ClientAddress {
    fn to_value(&self) -> Value<'_> {
        Value::from_display(self)
    }
}

/// A server process that is not, or not only, a session's.
#[derive(Debug, Clone)]
pub(crate) struct ServerProcess {
    /// What it is there for.
    pub what: &'static str,
    /// The name of the server, if it has one.
    pub server: Option<Box<str>>,
    /// Its number.
    pub pid: i32,
}

impl Subject for ServerProcess {
    fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    fn pid(&self) -> Option<u32> {
        self.pid.try_into().ok()
    }
}

impl Display for ServerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, server, pid } = self;
        match server {
            Some(name) => write!(f, "{what} {name} pid {pid}"),
            None => write!(f, "{what} pid {pid}"),
        }
    }
}

/// Logs a line, with what it is about. Other fields come first, and end with a semicolon.
macro_rules! about {
    (at $level:expr, $subject:expr $(, $key:ident = $value:expr)*; $($text:tt)+) => {{
        #[allow(unused_imports, reason = "whoever knows its subject as a trait object has it")]
        use crate::util::about::Subject as _;
        log::log!(
            target: $subject.to_string().as_str(),
            $level,
            session = $subject.session(),
            server = $subject.server(),
            client = $subject.client(),
            pid = $subject.pid()
            $(, $key = $value)*;
            $($text)+
        )
    }};
    (error, $($rest:tt)+) => { about!(@split log::Level::Error, $($rest)+) };
    (warn, $($rest:tt)+) => { about!(@split log::Level::Warn, $($rest)+) };
    (info, $($rest:tt)+) => { about!(@split log::Level::Info, $($rest)+) };
    (debug, $($rest:tt)+) => { about!(@split log::Level::Debug, $($rest)+) };
    (@split $level:expr, $subject:expr, $($key:ident = $value:expr),+; $($text:tt)+) => {
        about!(at $level, $subject, $($key = $value),+; $($text)+)
    };
    (@split $level:expr, $subject:expr, $($text:tt)+) => {
        about!(at $level, $subject; $($text)+)
    };
}
pub(crate) use about;
