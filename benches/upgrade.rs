//! What sessions notice when the proxy goes on as another program: the longest response time of busy ones meanwhile, with
//! many idle sessions beside them and with buffers full.
//!
//! `cargo bench --bench upgrade [-- --quick | --write-results]`; see `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "common/mod.rs"]
mod common;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::affinity::Affinity;
use common::chart::{Bar, Chart, Panel};
use common::end_to_end::processes;
use common::generator::{Load, Report as Loaded, Target};
use common::messages::{FIRST_ID, call};
use common::options::Options;
use common::reach::{self, Bound, Goal};
use common::report::Report;
use common::service::Service;
use common::stats::median;
use common::table::{Table, number};
use common::{PROXY, echo_server, family, results};

/// Sessions, and MiB of half lines that are held for some of them.
const TRIALS: [(usize, usize); 4] = [(500, 0), (1000, 0), (1000, 16), (4500, 16)];

/// Those of them that send requests, and how many a second, all together.
const BUSY: usize = 50;
const RATE: u32 = 1000;

/// How long they do so before the upgrade, and in all.
const BEFORE: Duration = Duration::from_millis(500);
const LOAD: Duration = Duration::from_secs(2);

const MIB: usize = 1 << 20;

/// How long the proxy may take to read what is sent to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause that this many sessions may see, and how much more for each beyond, and for each MiB.
const PAUSE_MS: f64 = 100.0;
const PAUSE_SESSIONS: usize = 1000;
const PAUSE_MIB: usize = 16;
const MS_PER_SESSION: f64 = 0.02;
const MS_PER_MIB: f64 = 1.5;

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    family::adopt_orphans().expect("orphans can be adopted");
    let (trials, rounds) = if options.quick {
        (&TRIALS[..1], 1)
    } else {
        (&TRIALS[..], 3)
    };
    let pauses: Vec<Pauses> = trials
        .iter()
        .map(|&(sessions, mib)| measure(sessions, mib, rounds).expect("pauses can be measured"))
        .collect();
    let goals: Vec<Goal> = pauses.iter().map(Pauses::goal).collect();
    let mut report = Report::default();
    report.add("Targets", &reach::table(&goals));
    report.add(
        &format!("Longest response time less the median, ms; {rounds} upgrades each"),
        &table(&pauses),
    );
    let text = report.text(affinity.count());
    println!("{text}");
    let files = [("upgrade.svg", chart(&pauses)), ("upgrade.txt", text)];
    results::keep(options, files).expect("results can be written");
}

/// What was seen, in ms.
struct Pauses {
    sessions: usize,
    mib: usize,
    /// Of each upgrade.
    upgrades: Vec<f64>,
    /// The same where there was none.
    without: Vec<f64>,
    /// How long the command took.
    commands: Vec<f64>,
}

impl Pauses {
    fn bound(&self) -> f64 {
        let sessions = self.sessions.saturating_sub(PAUSE_SESSIONS);
        let mib = self.mib.saturating_sub(PAUSE_MIB);
        PAUSE_MS + sessions as f64 * MS_PER_SESSION + mib as f64 * MS_PER_MIB
    }

    fn goal(&self) -> Goal {
        Goal {
            figure: self.name(),
            unit: " ms".to_owned(),
            must: Bound::AtMost(self.bound()),
            aim: None,
            measured: Ok(median(&self.upgrades)),
        }
    }

    fn name(&self) -> String {
        format!("{} sessions, {} MiB of buffers", self.sessions, self.mib)
    }
}

fn measure(sessions: usize, mib: usize, rounds: usize) -> Result<Pauses, String> {
    eprintln!("{sessions} sessions, {mib} MiB");
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0", "--"]);
    let service = Service::start(command.args(echo_server::command()))?;
    let target = Target::Address(service.address());
    let idle = sessions - BUSY - mib;
    let held = Load::echo(200).hold(&target, idle)?;
    let half = HalfLines::send(&service, mib).map_err(|error| error.to_string())?;
    let mut pauses = Pauses {
        sessions,
        mib,
        upgrades: Vec::new(),
        without: Vec::new(),
        commands: Vec::new(),
    };
    let load = Load::echo(200)
        .with("--sessions", BUSY)
        .with("--rate", RATE)
        .lasting(LOAD, Duration::from_millis(100));
    for _ in 0..rounds {
        pauses.without.push(pause(&load.run(&target)?)?);
        let busy = load.start(&target)?;
        thread::sleep(BEFORE);
        pauses.commands.push(upgrade(service.pid())?);
        pauses.upgrades.push(pause(&busy.report()?)?);
    }
    half.complete().map_err(|error| error.to_string())?;
    held.finish()?;
    drop(service);
    family::settle(&[], Duration::from_secs(10));
    Ok(pauses)
}

fn pause(report: &Loaded) -> Result<f64, String> {
    let known = || Some((report.latency("max")? - report.latency("p50")?) / 1e3);
    known().ok_or_else(|| "nothing was measured".to_owned())
}

/// Has the proxy go on as the same program anew; returns how long that took in ms, rehearsal and all.
fn upgrade(pid: i32) -> Result<f64, String> {
    let begin = Instant::now();
    let mut command = Command::new(PROXY);
    command.args(["upgrade", &pid.to_string()]);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(begin.elapsed().as_secs_f64() * 1e3);
    }
    let troubles = String::from_utf8_lossy(&output.stderr);
    Err(format!("upgrade: {}", troubles.trim()))
}

/// Sessions whose clients have each sent a line of a MiB but for its end, which the proxy has to hold.
struct HalfLines(Vec<TcpStream>);

impl HalfLines {
    fn send(service: &Service, count: usize) -> io::Result<Self> {
        let before = processes::rss_kib(service.pid());
        let line = call(FIRST_ID, MIB);
        let send = |_| {
            let mut stream = connect(service.address())?;
            stream.write_all(&line[..MIB - 1])?;
            Ok(stream)
        };
        let streams = (0..count).map(send).collect::<io::Result<Vec<_>>>()?;
        let begin = Instant::now();
        // Most of them is memory that it did not have.
        while processes::rss_kib(service.pid()) < before + (count * MIB / 2048) as u64 {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("the proxy does not hold the lines"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        processes::wait_until_quiet(&[service.pid()]);
        Ok(Self(streams))
    }

    /// Sends the ends of all lines, and reads the responses, which have the same length.
    fn complete(self) -> io::Result<()> {
        for mut stream in self.0 {
            stream.write_all(b"\n")?;
            let mut line = Vec::with_capacity(MIB);
            BufReader::new(stream).read_until(b'\n', &mut line)?;
            if line.len() != MIB {
                return Err(io::Error::other("a line was lost"));
            }
        }
        Ok(())
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn table(pauses: &[Pauses]) -> Table {
    let mut table = Table::new([
        "",
        "upgrade",
        "worst",
        "no upgrade",
        "upgrade / none",
        "whole command",
    ]);
    for of in pauses {
        let (upgrade, without) = (median(&of.upgrades), median(&of.without));
        let worst = of.upgrades.iter().copied().fold(0.0, f64::max);
        table.row([
            of.name(),
            number(upgrade),
            number(worst),
            number(without),
            number(upgrade / without),
            number(median(&of.commands)),
        ]);
    }
    table
}

fn chart(pauses: &[Pauses]) -> String {
    let panel = |of: &Pauses| Panel {
        title: format!("{}, ms", of.name()),
        bars: [
            ("upgrade", median(&of.upgrades), true),
            ("no upgrade", median(&of.without), false),
            ("bound", of.bound(), false),
        ]
        .into_iter()
        .map(|(name, value, own)| Bar {
            name: name.to_owned(),
            value: Ok(value),
            own,
        })
        .collect(),
    };
    let chart = Chart {
        title: "What sessions notice of an upgrade".to_owned(),
        note: format!(
            "Longest response time less the median, of {BUSY} sessions that send {RATE} requests a second on schedule."
        ),
        panels: pauses.iter().map(panel).collect(),
    };
    chart.svg()
}
