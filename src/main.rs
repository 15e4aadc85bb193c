//! Arguments in, exit code out.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use log::LevelFilter;
use mcp_tcp_proxy::cli::{self, Command, ConnectOptions, ServeOptions, ServerCommand};
use mcp_tcp_proxy::connect::Connector;
use mcp_tcp_proxy::serve::Proxy;
use mcp_tcp_proxy::{demo, logger};

/// The command line was wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::parse(env::args_os().skip(1).collect()) {
        Ok(Command::Serve(options)) => serve(&options),
        Ok(Command::DemoServer) => {
            demo::run().map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
        }
        Ok(Command::Help(text)) => print(text),
        Ok(Command::Connect(options)) => connect(options),
        Ok(Command::Version) => print(&format!("{}\n", cli::VERSION)),
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

fn serve(options: &ServeOptions) -> ExitCode {
    logger::init(if options.debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    });
    let served = match server_command(&options.server) {
        Ok(command) => Proxy::set_up(options, &command),
        Err(error) => return fail(&error, 1),
    };
    let ended = match served {
        Ok(proxy) => proxy.run(),
        Err(error) => return fail(&error, 1),
    };
    log::logger().flush();
    ended.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

fn connect(options: ConnectOptions) -> ExitCode {
    logger::init(if options.debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Warn
    });
    let ended = Connector::new(options).and_then(Connector::run);
    log::logger().flush();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error, 1),
    }
}

/// The demo server is this program too.
fn server_command(server: &ServerCommand) -> io::Result<Vec<OsString>> {
    match server {
        ServerCommand::Demo => Ok(vec![
            env::current_exe()?.into_os_string(),
            "demo-server".into(),
        ]),
        ServerCommand::Program(command) => Ok(command.clone()),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One line on stderr, if it takes one.
fn fail(error: &dyn Display, code: u8) -> ExitCode {
    // It may quote what is no line: a command, a script's first line.
    let error = logger::one_line(error);
    let _ = writeln!(io::stderr(), "mcp-tcp-proxy: {error}");
    ExitCode::from(code)
}
