//! What TLS costs: a round trip on one core, an idle session's memory, and what a session notices while others shake hands.
//!
//! `cargo bench --bench tls [-- --quick | --write-results]`; needs the command `openssl`, which makes the certificates; see
//! `benches/README.md`.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::affinity::{Affinity, Cores};
use common::chart::{Bar, Chart, Panel};
use common::end_to_end::processes;
use common::generator::{Load, Target};
use common::options::Options;
use common::report::Report;
use common::service::Service;
use common::stats::median;
use common::table::{Table, number};
use common::{PROXY, echo_server, family, results};

const REQUEST_BYTES: usize = 200;

/// Sessions that are held open.
const SESSIONS: usize = 300;

/// Buffers that were not needed for some time are let go.
const SETTLING: Duration = Duration::from_secs(6);

/// Clients that connect, are answered once, and leave, all the time; fewer than may be shaking hands from one address.
const CROWD: usize = 50;

/// What one session sends meanwhile, a second.
const RATE: u32 = 1000;

const WARM_UP: Duration = Duration::from_millis(200);

/// With what sessions are secured.
const NAMES: [&str; 3] = ["plain", "TLS, P-256", "TLS, RSA 2048"];

fn main() {
    if echo_server::run_if_asked() {
        return;
    }
    let options = Options::from_args();
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    family::adopt_orphans().expect("orphans can be adopted");
    let p256 = Certificate::make("p256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let rsa = Certificate::make("rsa", &["rsa:2048"]);
    let rounds = if options.quick { 3 } else { 9 };
    let [round_trip, p99] =
        round_trips(&p256, rounds, &affinity).expect("round trips can be measured");
    affinity
        .apply(Cores::All)
        .expect("the affinity mask can be set");
    let memory = memory(&p256).expect("memory can be measured");
    let time = Duration::from_secs(if options.quick { 1 } else { 5 });
    let crowds = [None, Some(&p256), Some(&rsa)]
        .map(|certificate| handshakes(certificate, time).expect("handshakes can be measured"));
    let mut report = Report::default();
    report.add(
        &format!("Round trip of {REQUEST_BYTES} B on one core, and memory of an idle session"),
        &costs_table(round_trip, p99, memory),
    );
    report.add(
        &format!(
            "One session at {RATE} requests a second, beside {CROWD} clients that come and go"
        ),
        &crowds_table(&crowds),
    );
    let text = report.text(affinity.count());
    println!("{text}");
    let files = [
        ("tls.svg", chart(round_trip, memory, &crowds)),
        ("tls.txt", text),
    ];
    results::keep(options, files).expect("results can be written");
}

/// A certificate for localhost, signed by itself.
struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    fn make(name: &'static str, key: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("tls-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let status = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key", "-out", "pem", "-newkey"])
            .args(key)
            .current_dir(&folder)
            .stderr(Stdio::null())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "openssl failed"
        );
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The proxy with or without TLS.
fn serve(
    certificate: Option<&Certificate>,
    options: &[&str],
    server: &[String],
) -> Result<Service, String> {
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    if let Some(certificate) = certificate {
        command.args(["--tls-cert", &certificate.path("pem")]);
        command.args(["--tls-key", &certificate.path("key")]);
    }
    Service::start(command.args(options).arg("--").args(server))
}

/// The load on such a proxy.
fn secured(load: Load, certificate: Option<&Certificate>) -> Load {
    match certificate {
        None => load,
        Some(certificate) => load
            .with("--tls-ca", certificate.path("pem"))
            .with("--tls-name", "localhost"),
    }
}

/// The median round trip in µs without and with TLS, in turns on one core; and the 99th percentile.
fn round_trips(
    certificate: &Certificate,
    rounds: usize,
    affinity: &Affinity,
) -> Result<[[f64; 2]; 2], String> {
    affinity
        .apply(Cores::One)
        .map_err(|error| error.to_string())?;
    let server = echo_server::command();
    let mut sides = Vec::new();
    for certificate in [None, Some(certificate)] {
        let service = serve(certificate, &[], &server)?;
        let load = secured(Load::echo(REQUEST_BYTES), certificate);
        let load = load.lasting(Duration::from_millis(700), WARM_UP);
        sides.push((service, load));
    }
    let mut found: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..rounds {
        for (at, (service, load)) in sides.iter().enumerate() {
            let report = load.run(&Target::Address(service.address()))?;
            for (found, name) in found.iter_mut().zip(["p50", "p99"]) {
                found[at].extend(report.latency(name));
            }
        }
    }
    Ok(found.map(|of_both| of_both.map(|values| median(&values))))
}

/// KiB of the proxy for each idle session, without and with TLS.
fn memory(certificate: &Certificate) -> Result<[f64; 2], String> {
    let mut costs = [0.0; 2];
    for (cost, certificate) in costs.iter_mut().zip([None, Some(certificate)]) {
        let service = serve(certificate, &[], &echo_server::command())?;
        let target = Target::Address(service.address());
        let hold =
            |sessions| secured(Load::echo(REQUEST_BYTES), certificate).hold(&target, sessions);
        let _first = hold(1)?;
        thread::sleep(SETTLING);
        let before = processes::rss_kib(service.pid());
        let _all = hold(SESSIONS)?;
        thread::sleep(SETTLING);
        let grown = processes::rss_kib(service.pid()).saturating_sub(before);
        *cost = grown as f64 / SESSIONS as f64;
    }
    Ok(costs)
}

/// What came of a crowd.
struct Crowd {
    /// A second.
    sessions: f64,
    /// Of the session beside it, in µs.
    p50: f64,
    p99: f64,
}

/// What a session notices of clients that come and go. They share a server: what it costs to start one for each is another
/// question.
fn handshakes(certificate: Option<&Certificate>, time: Duration) -> Result<Crowd, String> {
    let server = [PROXY, "demo-server"].map(str::to_owned);
    let service = serve(certificate, &["--share", "1"], &server)?;
    let target = Target::Address(service.address());
    let crowd = secured(Load::modern_list(), certificate)
        .with("--sessions", CROWD)
        .with_switch("--churn")
        .lasting(time + 4 * WARM_UP, WARM_UP)
        .nicely()
        .start(&target)?;
    let beside = secured(Load::modern_list(), certificate)
        .with("--rate", RATE)
        .lasting(time, WARM_UP)
        .run(&target)?;
    let crowd = crowd.report()?;
    let known = || {
        Some(Crowd {
            sessions: crowd.requests_per_second()?,
            p50: beside.latency("p50")?,
            p99: beside.latency("p99")?,
        })
    };
    known().ok_or_else(|| "nothing was measured".to_owned())
}

fn costs_table(p50: [f64; 2], p99: [f64; 2], memory: [f64; 2]) -> Table {
    let mut table = Table::new(["", "unit", NAMES[0], NAMES[1], "ratio"]);
    for (name, unit, [plain, tls]) in [
        ("round trip p50", "µs", p50),
        ("round trip p99", "µs", p99),
        ("memory of an idle session", "KiB", memory),
    ] {
        table.row([
            name.to_owned(),
            unit.to_owned(),
            number(plain),
            number(tls),
            format!("{:.2}", tls / plain),
        ]);
    }
    table
}

fn crowds_table(crowds: &[Crowd; 3]) -> Table {
    let mut table = Table::new([
        "",
        "sessions/s of the others",
        "p50 µs",
        "p99 µs",
        "p99 / plain",
    ]);
    for (name, crowd) in NAMES.iter().zip(crowds) {
        table.row([
            (*name).to_owned(),
            number(crowd.sessions),
            number(crowd.p50),
            number(crowd.p99),
            format!("{:.2}", crowd.p99 / crowds[0].p99),
        ]);
    }
    table
}

fn chart(round_trip: [f64; 2], memory: [f64; 2], crowds: &[Crowd; 3]) -> String {
    let panel = |title: &str, values: &[f64]| Panel {
        title: title.to_owned(),
        bars: NAMES
            .iter()
            .zip(values)
            .map(|(name, value)| Bar {
                name: (*name).to_owned(),
                value: Ok(*value),
                own: *name != NAMES[0],
            })
            .collect(),
    };
    let chart = Chart {
        title: "What TLS costs".to_owned(),
        note: format!(
            "Less is better, but for sessions/s. Beside a crowd: {RATE} requests a second, and {CROWD} clients that come and go."
        ),
        panels: vec![
            panel("round trip on one core, p50, µs", &round_trip),
            panel("memory of an idle session, KiB", &memory),
            panel(
                "round trip beside a crowd, p99, µs",
                &crowds.each_ref().map(|crowd| crowd.p99),
            ),
            panel(
                "sessions/s of the crowd",
                &crowds.each_ref().map(|crowd| crowd.sessions),
            ),
        ],
    };
    chart.svg()
}
