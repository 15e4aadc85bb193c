//! What TLS costs: a round trip on one core, an idle session's memory, and what a session notices of 200 handshakes at once.
//!
//! `cargo bench --bench tls [-- --quick]`; needs the command `openssl`, which makes the certificates.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "common/mod.rs"]
mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::affinity::{Affinity, Cores};
use common::end_to_end::client::stream_from;
use common::end_to_end::processes;
use common::messages::{FIRST_ID, call, check_answer};
use common::options::Options;
use common::service::Service;
use common::stats::{median, micros, percentile};
use common::{PROXY, echo_server, family};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const REQUEST_BYTES: usize = 200;

/// Sessions that are held open.
const SESSIONS: usize = 300;

/// Buffers that were not needed for some time are let go.
const SETTLING: Duration = Duration::from_secs(6);

/// Handshakes at once, from as many addresses as it takes for none to be turned away.
const ADDRESSES: u8 = 4;
const HANDSHAKES_OF_EACH: usize = 50;

/// Times that this is done, for enough round trips beside it.
const CROWDS: u32 = 8;

/// Has this program be such a crowd.
const CROWD: &str = "--crowd";

fn main() {
    if echo_server::run_if_asked() || crowd_if_asked() {
        return;
    }
    let options = Options::from_args();
    let affinity = Affinity::of_this_process().expect("the affinity mask can be read");
    family::adopt_orphans().expect("orphans can be adopted");
    let p256 = Certificate::make("p256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let rsa = Certificate::make("rsa", &["rsa:2048"]);
    let rounds = if options.quick { 3 } else { 9 };
    round_trips(&p256, rounds, &affinity).expect("round trips can be measured");
    affinity
        .apply(Cores::All)
        .expect("the affinity mask can be set");
    memory(&p256).expect("memory can be measured");
    for certificate in [&p256, &rsa] {
        handshakes(certificate).expect("handshakes can be measured");
    }
}

/// A certificate for localhost, signed by itself.
struct Certificate {
    name: &'static str,
    folder: PathBuf,
}

impl Certificate {
    fn make(name: &'static str, key: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("tls-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let status = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ])
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
        Self { name, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn client(&self) -> Arc<ClientConfig> {
        client(&self.path("pem"))
    }

    fn serve(&self, options: &[&str]) -> Result<Service, String> {
        let (pem, key) = (self.path("pem"), self.path("key"));
        let files = ["--tls-cert", &pem, "--tls-key", &key];
        start(&[&files, options].concat())
    }
}

fn client(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(pem).expect("a certificate");
    roots.add(own).expect("it is one");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(options: &[&str]) -> Result<Service, String> {
    let mut command = Command::new(PROXY);
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    command.args(options).arg("--").args(echo_server::command());
    Service::start(&mut command)
}

/// A session with TLS or without.
struct Link {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    call: Vec<u8>,
    buffer: Vec<u8>,
}

impl Link {
    fn open(address: SocketAddr, config: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut link = Self::begin(TcpStream::connect(address)?, config)?;
        link.shake()?;
        link.ask()?;
        Ok(link)
    }

    /// Says hello, if there is one to be said.
    fn begin(mut stream: TcpStream, config: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let tls = config.map(|config| ClientConnection::new(Arc::clone(config), name));
        let mut tls = tls.transpose().map_err(io::Error::other)?;
        if let Some(tls) = &mut tls {
            tls.write_tls(&mut stream)?;
        }
        Ok(Self {
            stream,
            tls,
            call: call(FIRST_ID, REQUEST_BYTES),
            buffer: vec![0; 16 * 1024],
        })
    }

    fn shake(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut self.stream)?;
            }
        }
        Ok(())
    }

    /// One round trip.
    fn ask(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(&self.call)?,
            Some(tls) => {
                tls.writer().write_all(&self.call)?;
                tls.write_tls(&mut self.stream)?;
            }
        }
        let mut length = 0;
        while length == 0 || self.buffer[length - 1] != b'\n' {
            length += self.read(length)?;
        }
        check_length(length)
    }

    fn read(&mut self, from: usize) -> io::Result<usize> {
        let room = &mut self.buffer[from..];
        let Some(tls) = &mut self.tls else {
            return self.stream.read(room);
        };
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tls.read_tls(&mut self.stream)?;
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
                read => return read,
            }
        }
    }
}

fn check_length(length: usize) -> io::Result<()> {
    if length < REQUEST_BYTES {
        return Err(io::Error::other("a short response"));
    }
    Ok(())
}

/// The median round trip in µs, with and without TLS in turns, on one core.
fn round_trips(certificate: &Certificate, rounds: usize, affinity: &Affinity) -> io::Result<()> {
    affinity.apply(Cores::One)?;
    let services = [
        start(&[]).map_err(io::Error::other)?,
        certificate.serve(&[]).map_err(io::Error::other)?,
    ];
    let configs = [None, Some(certificate.client())];
    let mut links = Vec::new();
    for (service, config) in services.iter().zip(&configs) {
        let mut link = Link::open(service.address(), config.as_ref())?;
        check_answer(&{
            link.ask()?;
            let end = link.buffer.iter().position(|byte| *byte == b'\n');
            link.buffer[..end.unwrap_or(0)].to_vec()
        })?;
        links.push(link);
    }
    let mut medians = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (link, medians) in links.iter_mut().zip(&mut medians) {
            let mut times = Vec::new();
            let end = Instant::now() + Duration::from_millis(700);
            while Instant::now() < end {
                let begin = Instant::now();
                link.ask()?;
                times.push(micros(begin.elapsed()));
            }
            medians.push(percentile(&mut times, 0.5));
        }
    }
    let [plain, tls] = medians.map(|medians| median(&medians));
    println!(
        "round trip of {REQUEST_BYTES} B on one core, p50 of {rounds} rounds: plain {plain:.1} µs, TLS {tls:.1} µs, {:.2} x",
        tls / plain
    );
    Ok(())
}

/// KiB of the proxy for each idle session that was used once.
fn memory(certificate: &Certificate) -> io::Result<()> {
    let mut costs = [0.0; 2];
    for (cost, is_tls) in costs.iter_mut().zip([false, true]) {
        let service = if is_tls {
            certificate.serve(&[])
        } else {
            start(&[])
        };
        let service = service.map_err(io::Error::other)?;
        let config = is_tls.then(|| certificate.client());
        let _first = Link::open(service.address(), config.as_ref())?;
        thread::sleep(SETTLING);
        let before = processes::rss_kib(service.pid());
        let links: io::Result<Vec<Link>> = (0..SESSIONS)
            .map(|_| Link::open(service.address(), config.as_ref()))
            .collect();
        let _links = links?;
        thread::sleep(SETTLING);
        let grown = processes::rss_kib(service.pid()).saturating_sub(before);
        *cost = grown as f64 / SESSIONS as f64;
    }
    let [plain, tls] = costs;
    println!(
        "memory of an idle session, of {SESSIONS}: plain {plain:.1} KiB, TLS {tls:.1} KiB, {:.1} KiB more",
        tls - plain
    );
    Ok(())
}

/// What a session notices of many handshakes at once.
fn handshakes(certificate: &Certificate) -> io::Result<()> {
    // What it costs to start 200 servers is another question.
    let service = certificate.serve(&["--spawn", "lazy"]);
    let service = service.map_err(io::Error::other)?;
    let address = service.address();
    let config = certificate.client();
    let is_over = AtomicBool::new(false);
    let mut bystander = Link::open(address, Some(&config))?;
    let (waits, took) = thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut waits = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                bystander.ask()?;
                waits.push(micros(begin.elapsed()) / 1000.0);
                thread::sleep(Duration::from_micros(200));
            }
            io::Result::Ok(waits)
        });
        let crowds = (0..CROWDS).map(|_| crowd(certificate, address));
        let took: io::Result<Duration> = crowds.sum();
        is_over.store(true, Ordering::Relaxed);
        let waits = bystander.join().unwrap_or_else(|_| Ok(Vec::new()));
        (waits, took)
    });
    let (mut waits, took) = (waits?, took?);
    println!(
        "{} handshakes at once ({}) took {:.0} ms; a session's {} round trips beside them: p50 {:.2} ms, p99 {:.2} ms",
        usize::from(ADDRESSES) * HANDSHAKES_OF_EACH,
        certificate.name,
        (took / CROWDS).as_secs_f64() * 1000.0,
        waits.len(),
        percentile(&mut waits, 0.5),
        percentile(&mut waits, 0.99)
    );
    Ok(())
}

/// Has a process of its own shake hands. It has the least priority, so that what a session has to wait for is the proxy, and
/// not the processor time of those clients.
fn crowd(certificate: &Certificate, address: SocketAddr) -> io::Result<Duration> {
    let begin = Instant::now();
    let status = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe()?)
        .args([CROWD, &address.to_string(), &certificate.path("pem")])
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the crowd failed"));
    }
    Ok(begin.elapsed())
}

/// Does that, if this is that process.
fn crowd_if_asked() -> bool {
    let mut words = std::env::args().skip_while(|word| word != CROWD).skip(1);
    let (Some(address), Some(pem)) = (words.next(), words.next()) else {
        return false;
    };
    let address = address.parse().expect("an address");
    shake_all(&pem, address).expect("handshakes");
    true
}

/// All hellos are said before the first handshake goes on.
fn shake_all(pem: &str, address: SocketAddr) -> io::Result<()> {
    let mut links = Vec::new();
    for own in 2..2 + ADDRESSES {
        for _ in 0..HANDSHAKES_OF_EACH {
            // No ticket is known to a new configuration.
            let config = client(pem);
            let stream = stream_from(Ipv4Addr::new(127, 0, 0, own), address);
            links.push(Link::begin(stream, Some(&config))?);
        }
    }
    links.iter_mut().try_for_each(Link::shake)
}
