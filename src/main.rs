//! Arguments in, exit code out.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use log::{LevelFilter, warn};
use mcp_tcp_proxy::cli::keys::Given;
use mcp_tcp_proxy::cli::{self, Command};
use mcp_tcp_proxy::config::{self, Configuration, Errors};
use mcp_tcp_proxy::connect::{Connector, look_up};
use mcp_tcp_proxy::entrance::Name;
use mcp_tcp_proxy::entrance::tokens::{FRESH_BYTES, Fresh};
use mcp_tcp_proxy::logger::Format;
use mcp_tcp_proxy::options::{BenchOptions, ConnectOptions, ServeOptions};
use mcp_tcp_proxy::reactor::signals;
use mcp_tcp_proxy::reactor::stdio::{StandardStreams, Stdio};
use mcp_tcp_proxy::serve::{Beginning, Proxy, TakeOver, rehearse, verify};
use mcp_tcp_proxy::transport::address::Address;
use mcp_tcp_proxy::upgrade::ask;
use mcp_tcp_proxy::{bench, demo, inquiry, logger, malloc, process};
use nix::sys::prctl;
use nix::unistd::Pid;

/// The command line was wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    match cli::parse(words.clone()) {
        Ok(Command::Serve {
            options,
            hint,
            given,
        }) => {
            malloc::start_with_thresholds();
            let beginning = Beginning::new(given.clone(), options.config.as_deref());
            match plan(*options, hint, &given) {
                Ok(configuration) => serve(configuration, beginning, None),
                Err(errors) => fail_for(&errors, 1),
            }
        }
        Ok(Command::TakeOver {
            generation,
            options,
            given,
        }) => {
            malloc::start_with_thresholds();
            take_over(generation, *options, &given)
        }
        Ok(Command::Check(path)) => check(&path),
        Ok(Command::DemoServer) => demo_server(),
        Ok(Command::Connect(options)) => {
            malloc::start_with_thresholds();
            connect(*options)
        }
        Ok(Command::Bench(options)) => bench(&options),
        Ok(Command::Resolve { host, port }) => resolve(&host, port),
        Ok(Command::Token(name)) => token(&name),
        Ok(Command::Status { address, watch }) => status(address, watch),
        Ok(Command::Upgrade(pid)) => upgrade(pid),
        Ok(Command::Rehearse(words)) => rehearse_upgrade(words),
        Ok(Command::Print(text)) => print(&text),
        Err(error) => match cli::generation(&words).map(TakeOver::receive) {
            Some(Ok(left)) => {
                fail(&error, EXIT_USAGE);
                give_back(left, &error)
            }
            Some(Err(_)) | None => fail(&error, EXIT_USAGE),
        },
    }
}

/// What the command line says, or the configuration that it names.
fn plan(
    options: ServeOptions,
    hint: Option<String>,
    given: &Given,
) -> Result<Configuration, Errors> {
    match &options.config {
        Some(path) => config::load(path, given),
        None => Ok(Configuration {
            warnings: hint.into_iter().collect(),
            ..Configuration::of_one(options)
        }),
    }
}

/// Whether a configuration can be served, on stderr why not.
fn check(path: &Path) -> ExitCode {
    let configuration = match config::load(path, &Given::default()) {
        Ok(configuration) => configuration,
        Err(errors) => return fail_for(&errors, 1),
    };
    for warning in &configuration.warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let errors = verify(&configuration);
    if !errors.is_empty() {
        let named = errors
            .iter()
            .map(|error| format!("{}: {error}", path.display()));
        return fail_for(&Errors(named.collect()), 1);
    }
    let servers = configuration.servers.iter();
    let names: Vec<&str> = servers
        .filter_map(|served| served.name.as_ref().map(Name::as_str))
        .collect();
    print(&format!(
        "{}: fine ({})\n",
        path.display(),
        names.join(", ")
    ))
}

/// `left` is what another program in this process has left, if one has.
fn serve(configuration: Configuration, beginning: Beginning, left: Option<TakeOver>) -> ExitCode {
    let Configuration {
        options,
        servers,
        warnings,
        text,
    } = configuration;
    let beginning = beginning.with_text(text);
    let (level, format) = (options.log_level, options.log_format);
    let stderr = StandardStreams::open().error;
    let prepared = match &left {
        None => prepare(level, format, stderr, "proxy"),
        // Signals that wait are blocked, and stay so.
        Some(_) => logger::install(level, format, stderr, "proxy"),
    };
    if let Err(error) = prepared {
        return left.map_or_else(|| fail(&error, 1), |left| give_back(left, &error));
    }
    if !options.traceable {
        process::hide_memory();
    }
    let (proxy, left) = match left {
        None => {
            for warning in warnings {
                warn!("{warning}");
            }
            let proxy = Proxy::set_up(&options, &servers, beginning);
            (proxy.map_err(|error| fail(&error, 1)), None)
        }
        Some(mut left) => match left.proxy(&options, &servers, beginning) {
            Ok(proxy) => (Ok(proxy), Some(left)),
            Err(error) => (Err(give_back(left, &error)), None),
        },
    };
    let ended = match proxy {
        Ok(proxy) => proxy.run(left),
        Err(code) => return code,
    };
    log::logger().flush();
    ended.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

fn take_over(generation: u64, options: ServeOptions, given: &Given) -> ExitCode {
    let mut left = match TakeOver::receive(generation) {
        Ok(left) => left,
        Err(error) => return fail(&error, 1),
    };
    // Whatever is in the files by now, what was in force is.
    let beginning = Beginning::new(given.clone(), None);
    match left.configuration(options, given) {
        Ok(configuration) => serve(configuration, beginning, Some(left)),
        Err(error) => give_back(left, &error),
    }
}

/// The program that was here before goes on. If it can't either, this is the end.
fn give_back(left: TakeOver, why: &dyn Display) -> ExitCode {
    let error = left.give_back(&why.to_string());
    fail(&format_args!("the program before can't go on: {error}"), 1)
}

fn upgrade(pid: i32) -> ExitCode {
    match ask::upgrade(Pid::from_raw(pid)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&format_args!("upgrade: {error}"), 1),
    }
}

/// The answer on stdout.
fn rehearse_upgrade(words: Vec<OsString>) -> ExitCode {
    match rehearse(words) {
        Ok(able) => print(&String::from_utf8_lossy(able)),
        Err(why) => {
            print(&format!("{why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn connect(options: ConnectOptions) -> ExitCode {
    // Before the logger puts its pipe in the place of stdout.
    let StandardStreams {
        input,
        output,
        error,
    } = StandardStreams::open();
    if let Err(error) = prepare(options.log_level, options.log_format, error, "connect") {
        return fail(&error, 1);
    }
    let ended = Connector::new(options, input, output).and_then(Connector::run);
    log::logger().flush();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error, 1),
    }
}

/// The report on stdout, and on stderr why there is none, or why a run ended before its time.
fn bench(options: &BenchOptions) -> ExitCode {
    if let Err(error) = signals::reset_inherited() {
        return fail(&error, 1);
    }
    match bench::run(options) {
        Ok(outcome) => {
            let printed = bench::print(&outcome.report);
            for trouble in &outcome.troubles {
                fail(trouble, 1);
            }
            if outcome.is_clean() && printed.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => fail(&error, 1),
    }
}

/// The addresses on stdout, or on stderr why there are none.
fn resolve(host: &str, port: u16) -> ExitCode {
    match look_up(host, port) {
        Ok(addresses) => print(&addresses),
        Err(error) => {
            // Without the program's name: `connect` quotes it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// The token alone on stdout, so that it can go into a file of its own; what is for the proxy's file on stderr.
fn token(name: &Name) -> ExitCode {
    let mut random = [0; FRESH_BYTES];
    if let Err(error) = getrandom::fill(&mut random) {
        return fail(&format_args!("no random bytes: {error}"), 1);
    }
    let Fresh { token, line } = Fresh::new(name, random);
    let printed = print(&format!("{token}\n"));
    if printed == ExitCode::SUCCESS {
        let _ = writeln!(
            io::stderr(),
            "The line above is the token, for the client. This is the line for --token-file:\n{line}"
        );
    }
    printed
}

/// Where a proxy is asked if nothing else is said.
const STATUS_VARIABLE: &str = "MCP_TCP_PROXY_STATUS";
const STATUS_PORT: u16 = 9180;

/// Of `status`: the proxy serves no new sessions, or there is no answer from it.
const EXIT_NOT_READY: u8 = 1;
const EXIT_NO_ANSWER: u8 = 2;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal, and begins at its top (`console_codes(4)`).
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

fn status(address: Option<Address>, watch: bool) -> ExitCode {
    let address = match (address, env::var_os(STATUS_VARIABLE)) {
        (Some(address), _) => address,
        (None, Some(value)) => match cli::address_of_variable(STATUS_VARIABLE, &value) {
            Ok(address) => address,
            Err(error) => return fail(&error, EXIT_USAGE),
        },
        (None, None) => Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: STATUS_PORT,
        },
    };
    loop {
        let (text, code) = match inquiry::ask(&address) {
            Ok(answer) if answer.is_ready => (answer.text, ExitCode::SUCCESS),
            Ok(answer) => (answer.text, ExitCode::from(EXIT_NOT_READY)),
            Err(error) if watch => (format!("{error}\n"), ExitCode::SUCCESS),
            Err(error) => return fail(&error, EXIT_NO_ANSWER),
        };
        if !watch {
            print(&text);
            return code;
        }
        let clear = if io::stdout().is_terminal() {
            CLEAR
        } else {
            ""
        };
        if print(&format!("{clear}{text}")) != ExitCode::SUCCESS {
            return ExitCode::FAILURE;
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

/// What comes before all else that may go wrong or be logged.
fn prepare(
    level: LevelFilter,
    format: Format,
    stderr: Stdio,
    name: &'static str,
) -> io::Result<()> {
    signals::reset_inherited()?;
    logger::install(level, format, stderr, name)
}

fn demo_server() -> ExitCode {
    // For ps(1), which would call it "exe". It fails only for names that are no names.
    let _ = prctl::set_name(c"mcp-tcp-proxy");
    demo::run().map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The same for each of several errors.
fn fail_for(errors: &Errors, code: u8) -> ExitCode {
    for error in &errors.0 {
        fail(error, code);
    }
    ExitCode::from(code)
}

/// One line on stderr, if it takes one.
fn fail(error: &dyn Display, code: u8) -> ExitCode {
    // It may quote what is no line: a command, a script's first line.
    let line = format!("mcp-tcp-proxy: {}", logger::one_line(error));
    // Once there is a log, whoever does not read it must not keep the program from its end.
    if !logger::write_line(&line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    ExitCode::from(code)
}
