//! What is measured: the ways to reach an MCP server, each started with the options that make it fast.

use std::path::Path;
use std::process::Command;

use super::bare;
use crate::common::generator::Target;
use crate::common::service::Service;
use crate::common::{PROXY, earlier_build, echo_server, machine, reference};

/// More sessions at a time than the benchmark ever opens.
const MOST_SESSIONS: &str = "1000";

const OPTIONS_OF_PROXY: [&str; 5] = ["--host", "127.0.0.1", "--port", "0", "--"];

/// A way to reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Pipes,
    Proxy,
    Connect,
    Earlier,
    Bare,
    TcpServer,
    Socat,
    Ncat,
    Script,
}

impl Contender {
    pub(crate) const ALL: [Self; 9] = [
        Self::Pipes,
        Self::Proxy,
        Self::Connect,
        Self::Earlier,
        Self::Bare,
        Self::TcpServer,
        Self::Socat,
        Self::Ncat,
        Self::Script,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pipes => "bare pipes",
            Self::Proxy => "mcp-tcp-proxy",
            Self::Connect => "proxy + connect",
            Self::Earlier => "earlier build",
            Self::Bare => "bare relay",
            Self::TcpServer => "tcpserver",
            Self::Socat => "socat",
            Self::Ncat => "ncat",
            Self::Script => "Python script",
        }
    }

    /// Whether it is part of this crate.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Pipes | Self::Proxy | Self::Connect | Self::Bare)
    }

    /// The version found; `None` if it is not installed and cannot be measured.
    pub(crate) fn version(self) -> Option<String> {
        match self {
            Self::Pipes | Self::Proxy | Self::Connect | Self::Bare => {
                Some(env!("CARGO_PKG_VERSION").to_owned())
            }
            Self::Earlier => machine::version(&earlier_build()?, &["--version"], "mcp-tcp-proxy"),
            Self::Socat => machine::version("socat", &["-V"], "version"),
            Self::Ncat => machine::version("ncat", &["--version"], "Version"),
            // It does not print its version.
            Self::TcpServer => machine::is_installed("tcpserver").then(|| {
                machine::version("dpkg-query", &["--show", "ucspi-tcp"], "ucspi-tcp")
                    .map_or_else(|| "installed".to_owned(), |line| line.replace('\t', " "))
            }),
            Self::Script => {
                reference()?;
                machine::version("python3", &["--version"], "Python")
            }
        }
    }

    /// Why it is missing.
    pub(crate) fn why_missing(self) -> &'static str {
        match self {
            Self::Earlier => "MCP_TCP_PROXY_EARLIER is not set",
            Self::Script => "MCP_TCP_PROXY_REFERENCE is not set",
            _ => "not installed",
        }
    }

    pub(crate) fn start(self) -> Result<Running, String> {
        let service = self
            .command()
            .map(|mut command| Service::start(&mut command));
        Ok(Running {
            contender: self,
            service: service.transpose()?,
        })
    }

    /// The program that serves it, listening on a port of its own choice; `None` if it needs none.
    fn command(self) -> Option<Command> {
        let server = echo_server::command();
        Some(match self {
            Self::Pipes => return None,
            Self::Proxy | Self::Connect => command(PROXY, OPTIONS_OF_PROXY, server),
            Self::Earlier => command(&earlier_build()?, OPTIONS_OF_PROXY, server),
            Self::Bare => bare::command(server),
            Self::TcpServer => {
                let options = ["-HR", "-l0", "-c", MOST_SESSIONS, "127.0.0.1", "0"];
                command("tcpserver", options, server)
            }
            Self::Socat => {
                let (folder, server) = in_one_word(&server);
                let listen = "TCP-LISTEN:0,bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=128";
                let mut command = command("socat", [listen], [format!("EXEC:{server},pipes")]);
                command.current_dir(folder);
                command
            }
            Self::Ncat => {
                let (folder, server) = in_one_word(&server);
                let listen = ["--listen", "127.0.0.1", "0", "--keep-open"];
                let mut command = command("ncat", listen, ["--exec".to_owned(), server]);
                command.args(["--max-conns", MOST_SESSIONS]);
                command.current_dir(folder);
                command
            }
            Self::Script => {
                let script = reference()?;
                let options = [&script, "--host", "127.0.0.1", "--port", "0", "--"];
                command("python3", options, server)
            }
        })
    }
}

/// A contender that is ready for clients.
pub(crate) struct Running {
    contender: Contender,
    service: Option<Service>,
}

impl Running {
    /// What a session is opened to.
    pub(crate) fn target(&self) -> Target {
        match (&self.service, self.contender) {
            (None, _) => Target::Command(echo_server::command()),
            (Some(service), Contender::Connect) => {
                let address = service.address().to_string();
                Target::Command([PROXY, "connect", &address].map(str::to_owned).to_vec())
            }
            (Some(service), _) => Target::Address(service.address()),
        }
    }

    /// The process that serves all of its sessions, if there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.service.as_ref().map(Service::pid)
    }
}

fn command<'a>(
    program: &str,
    options: impl IntoIterator<Item = &'a str>,
    server: impl IntoIterator<Item = String>,
) -> Command {
    let mut command = Command::new(program);
    command.args(options).args(server);
    command
}

/// The server's command for programs that take it as one word in which some characters are special. A relative path has
/// none of these; so this also returns the folder to start in.
fn in_one_word(server: &[String]) -> (&Path, String) {
    let (path, arguments) = server.split_at(1);
    let path = Path::new(&path[0]);
    let (folder, name) = (path.parent(), path.file_name());
    let name = name.unwrap_or_default().display();
    (
        folder.unwrap_or(path),
        format!("./{name} {}", arguments.join(" ")),
    )
}
