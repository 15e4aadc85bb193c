//! Memory and processes by number of clients.

use std::fs;
use std::path::Path;

use super::common::chart::{Bar, Chart, Panel};
use super::common::end_to_end::processes;
use super::common::generator::{Load, Target};
use super::common::service::Service;
use super::{OWN_EACH, PROCESSES, proxy, settle};

/// Measured with a process each, as far as the machine has the memory for that, and shared.
const CLIENTS: [usize; 4] = [10, 100, 1000, 10_000];

/// What has to be left for a process for each client, in MiB: somewhat more than it takes.
const MIB_EACH: u64 = 15;

/// Each client takes a descriptor here and one in the proxy.
const SPARE_DESCRIPTORS: u64 = 200;

pub(crate) struct Row {
    pub(crate) clients: usize,
    pub(crate) is_shared: bool,
    /// Or why there are none.
    pub(crate) figures: Result<Figures, String>,
}

pub(crate) struct Figures {
    pub(crate) processes: usize,
    pub(crate) servers_mib: f64,
    pub(crate) proxy_mib: f64,
    /// From the first connection to the last client's first response.
    pub(crate) seconds: f64,
}

pub(crate) fn measure(is_quick: bool) -> Vec<Row> {
    let most = if is_quick { 100 } else { usize::MAX };
    let kinds = [false, true].into_iter();
    let all = kinds.flat_map(|is_shared| CLIENTS.map(|clients| (clients, is_shared)));
    let wanted = all.filter(|(clients, _)| *clients <= most);
    let row = |(clients, is_shared)| {
        eprintln!(
            "memory: {clients} clients, {}",
            if is_shared { "shared" } else { "own" }
        );
        let figures = measure_one(clients, is_shared);
        settle();
        Row {
            clients,
            is_shared,
            figures,
        }
    };
    wanted.map(row).collect()
}

fn measure_one(count: usize, is_shared: bool) -> Result<Figures, String> {
    let needed_mib = count as u64 * MIB_EACH;
    if !is_shared && needed_mib > available_mib() {
        return Err(format!("needs {} GiB", needed_mib / 1024));
    }
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_err(|error| error.to_string())?;
    if count as u64 + SPARE_DESCRIPTORS > most {
        return Err(format!("needs more descriptors than {most}"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/sharing/server.py");
    let script = script.to_string_lossy();
    let processes = if is_shared { PROCESSES } else { OWN_EACH };
    let service = Service::start(&mut proxy(processes, &["python3", &script]))?;
    let target = Target::Address(service.address());
    let clients = Load::modern_list().hold(&target, count)?;
    let servers = processes::descendants(service.pid());
    let servers_kib: u64 = servers.iter().map(|server| pss_kib(server.pid)).sum();
    let proxy_mib = processes::rss_kib(service.pid()) as f64 / 1024.0;
    Ok(Figures {
        processes: servers.len(),
        servers_mib: servers_kib as f64 / 1024.0,
        proxy_mib,
        seconds: clients.finish()?.opening().as_secs_f64(),
    })
}

/// Memory that processes may still have.
fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib_of(&text, "MemAvailable:") / 1024
}

/// Its share of the memory that it has in common with others, and all else; nothing if it is gone.
fn pss_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    kib_of(&text, "Pss:")
}

/// What such a file of the kernel says of this, in KiB.
fn kib_of(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

pub(crate) fn chart(rows: &[Row]) -> Chart {
    let mut counts: Vec<usize> = rows.iter().map(|row| row.clients).collect();
    counts.sort_unstable();
    counts.dedup();
    let panel = |clients: usize| Panel {
        title: format!("{clients} clients: memory of servers and proxy, MiB"),
        bars: [true, false]
            .map(|is_shared| bar(rows, clients, is_shared))
            .into(),
    };
    Chart {
        title: format!("One Python process for each client, or {PROCESSES} for all"),
        note: "PSS of the servers and RSS of the proxy, after each client was answered once."
            .to_owned(),
        panels: counts.into_iter().map(panel).collect(),
    }
}

fn bar(rows: &[Row], clients: usize, is_shared: bool) -> Bar {
    let mut rows = rows.iter();
    let row = rows.find(|row| (row.clients, row.is_shared) == (clients, is_shared));
    let value = match row.map(|row| &row.figures) {
        Some(Ok(figures)) => Ok(figures.servers_mib + figures.proxy_mib),
        Some(Err(why)) => Err(why.clone()),
        None => Err("not measured".to_owned()),
    };
    Bar {
        name: if is_shared {
            format!("--share {PROCESSES}")
        } else {
            "one each".to_owned()
        },
        value,
        own: is_shared,
    }
}
