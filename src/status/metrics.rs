//! The facts in the text format of Prometheus, version 0.0.4.

mod shared;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric, MetricFamily,
    MetricType,
};

use super::facts::{Facts, ProxyFacts, ServerFacts};
use crate::util::histogram::Histogram;

/// What all names begin with that are not those of any process.
const PREFIX: &str = "mcp_tcp_proxy_";

/// Response times are told from here on, in microseconds.
const FIRST_RESPONSE_MICROS: u64 = 100;

/// Starts of servers from here on: no process is faster.
const FIRST_START_MICROS: u64 = 1000;

/// No iteration of the loop should take longer.
const LAST_ITERATION_MICROS: u64 = 5_000_000;

const LAST_MICROS: u64 = 100_000_000;

type Labels<'a> = &'a [(&'a str, &'a str)];

/// All metrics.
pub fn text(facts: &Facts<'_>) -> String {
    let mut families = Families(Vec::with_capacity(48));
    families.gauge("build_info", "Always 1; the version is a label.");
    families.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    sessions(&mut families, facts);
    messages(&mut families, facts);
    servers(&mut families, facts);
    shared::shared(&mut families, &facts.servers);
    proxy(&mut families, &facts.proxy);
    process(&mut families, &facts.proxy);
    // The encoder takes none for an error.
    families.0.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families.0)
        .unwrap_or_default()
}

fn sessions(to: &mut Families, facts: &Facts<'_>) {
    let all = &facts.servers;
    to.gauge("sessions", "Sessions that are open.");
    to.for_each(all, |server| server.sessions as f64);
    to.gauge("sessions_waiting", "Sessions that wait for a process.");
    to.for_each(all, |server| server.waiting as f64);
    to.gauge(
        "sessions_hibernating",
        "Sessions that have given their processes back until they are used again.",
    );
    to.for_each(all, |server| server.gauges.hibernating as f64);
    to.gauge(
        "sessions_detached",
        "Sessions that have no connection, and may come back.",
    );
    to.for_each(all, |server| server.gauges.detached as f64);
    to.gauge("sessions_limit", "Sessions that may be open.");
    to.add(&[], facts.proxy.max_sessions as f64);
    to.counter(
        "sessions_opened_total",
        "Sessions that were not refused at once.",
    );
    to.for_each(all, |server| server.opened as f64);
    to.counter(
        "sessions_closed_total",
        "Sessions that have ended, by the reason.",
    );
    to.for_each_of(all, "reason", |server| &server.closed);
    to.counter(
        "connections_refused_total",
        "Connections that did not become sessions, by the reason.",
    );
    to.by("reason", &facts.proxy.refused);
    to.counter(
        "resumes_total",
        "Connections that were to go on with a session, by what became of that.",
    );
    to.by("result", &facts.proxy.resumes);
    to.counter(
        "upgrades_total",
        "Times that another program was to go on in this process, by what became of that.",
    );
    to.by("result", &facts.proxy.upgrades);
    to.counter(
        "auth_failures_total",
        "Connections that were not let in because of who they are, by the reason.",
    );
    to.by("reason", &facts.proxy.auth_failures);
}

fn messages(to: &mut Families, facts: &Facts<'_>) {
    let all = &facts.servers;
    to.counter("messages_total", "Messages that were passed on.");
    to.both_ways(all, |server| {
        let counts = server.counts;
        (counts.to_upstream.messages(), counts.to_client.messages())
    });
    to.counter(
        "message_bytes_total",
        "Bytes of messages that were passed on, line ends included.",
    );
    to.both_ways(all, |server| {
        let counts = server.counts;
        (counts.to_upstream.bytes(), counts.to_client.bytes())
    });
    to.gauge("requests_in_flight", "Requests that wait for a response.");
    to.for_each(all, |server| server.gauges.in_flight as f64);
    to.histogram(
        "response_seconds",
        "From the first byte of a request to its server to the response.",
    );
    for server in all {
        let labels = [("server", server.name)];
        let times = &server.counts.responses;
        to.times(&labels, times, FIRST_RESPONSE_MICROS, LAST_MICROS);
    }
    to.counter("errors_total", "Errors of the proxy's own, by their code.");
    for server in all {
        for (code, count) in server.errors.iter() {
            let labels = [("server", server.name), ("code", &code.to_string())];
            to.add(&labels, count as f64);
        }
    }
    // Which server they wanted is not known of all.
    for (code, count) in facts.proxy.errors.iter().filter(|(_, count)| *count > 0) {
        to.add(&[("code", &code.to_string())], count as f64);
    }
}

fn servers(to: &mut Families, facts: &Facts<'_>) {
    let all = &facts.servers;
    to.gauge("server_processes", "Server processes that run.");
    to.for_each(all, |server| server.processes as f64);
    to.gauge(
        "server_ready",
        "Whether a new session would be served, as far as is known: 1 or 0.",
    );
    to.for_each(all, |server| {
        let is_ready = server.trouble.is_none() && facts.proxy.reasons.is_empty();
        f64::from(u8::from(is_ready))
    });
    to.counter("server_starts_total", "Server processes that were started.");
    to.for_each(all, |server| server.starts as f64);
    to.counter(
        "server_restarts_total",
        "Server processes that took the place of one that a session had lost.",
    );
    to.for_each(all, |server| server.counts.restarts as f64);
    to.counter(
        "server_exits_total",
        "Server processes that have ended, or could not be started, by how.",
    );
    to.for_each_of(all, "how", |server| &server.exits);
    to.counter(
        "swaps_total",
        "Sessions that went on with a new server on SIGUSR1, and attempts that ended because a new server was not fit.",
    );
    for server in all {
        let swaps = &server.swaps;
        for (result, count) in [("succeeded", swaps.succeeded), ("failed", swaps.failed)] {
            let labels = [("server", server.name), ("result", result)];
            to.add(&labels, count as f64);
        }
    }
    to.histogram(
        "server_start_seconds",
        "From the start of a server process to its first output, which may have to wait for its first input.",
    );
    for server in all {
        let labels = [("server", server.name)];
        to.times(&labels, server.start_times, FIRST_START_MICROS, LAST_MICROS);
    }
    to.gauge("spares", "Server processes that wait for a session.");
    to.for_each(all, |server| server.spares as f64);
}

fn proxy(to: &mut Families, proxy: &ProxyFacts<'_>) {
    to.gauge(
        "entrance_connections",
        "Connections of which something is asked before they become sessions.",
    );
    to.add(&[], proxy.visitors as f64);
    to.gauge("buffer_bytes", "Memory for messages that are under way.");
    to.add(&[], proxy.buffer_bytes as f64);
    to.gauge("buffer_limit_bytes", "What it may be at most.");
    to.add(&[], proxy.buffer_limit_bytes as f64);
    if let Some(iterations) = proxy.iterations {
        to.histogram(
            "loop_seconds",
            "Iterations of the loop, from one wait to the next: for so long others had to wait.",
        );
        to.times(&[], iterations, 0, LAST_ITERATION_MICROS);
    }
    to.counter(
        "log_lines_lost_total",
        "Lines of the log that stderr did not take.",
    );
    to.add(&[], proxy.log_lines_lost as f64);
    if let Some((was_good, at)) = proxy.reload {
        to.gauge(
            "config_reload_success",
            "Whether the files were read with success the last time: 1 or 0.",
        );
        to.add(&[], f64::from(u8::from(was_good)));
        to.gauge(
            "config_reload_timestamp_seconds",
            "When files were last read with success, since 1970.",
        );
        to.add(&[], at.as_secs_f64());
    }
    if let Some(end) = proxy.certificate_not_after {
        to.gauge(
            "certificate_not_after_seconds",
            "When the certificate of the proxy ends, since 1970.",
        );
        to.add(&[], end as f64);
    }
}

/// The names are those that every process has with Prometheus.
fn process(to: &mut Families, proxy: &ProxyFacts<'_>) {
    let process = &proxy.process;
    let counts = |value: Option<u64>| value.map(|value| value as f64);
    let gauges = [
        (
            "process_open_fds",
            "Number of open file descriptors.",
            counts(process.open_fds),
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            counts(process.max_fds),
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            counts(process.resident_bytes),
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            counts(process.virtual_bytes),
        ),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            Some(proxy.started.as_secs_f64()),
        ),
    ];
    if let Some(seconds) = process.cpu_seconds {
        let help = "Total user and system CPU time spent in seconds.";
        to.family("process_cpu_seconds_total", help, MetricType::COUNTER);
        to.add(&[], seconds);
    }
    for (name, help, value) in gauges {
        if let Some(value) = value {
            to.family(name, help, MetricType::GAUGE);
            to.add(&[], value);
        }
    }
}

/// The families so far; what is added belongs to the last one.
struct Families(Vec<MetricFamily>);

impl Families {
    fn family(&mut self, name: &str, help: &str, kind: MetricType) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        self.0.push(family);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(&format!("{PREFIX}{name}"), help, MetricType::GAUGE);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(&format!("{PREFIX}{name}"), help, MetricType::COUNTER);
    }

    fn histogram(&mut self, name: &str, help: &str) {
        self.family(&format!("{PREFIX}{name}"), help, MetricType::HISTOGRAM);
    }

    fn push(&mut self, metric: Metric) {
        if let Some(family) = self.0.last_mut() {
            family.mut_metric().push(metric);
        }
    }

    fn add(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        let kind = self.0.last().map(MetricFamily::get_field_type);
        if kind == Some(MetricType::COUNTER) {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(metric);
    }

    fn times(&mut self, labels: Labels<'_>, times: &Histogram, first: u64, last: u64) {
        let buckets = times.cumulative(first, last).into_iter();
        let buckets = buckets.map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = ProtoHistogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.sum_seconds());
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.push(metric);
    }

    fn by(&mut self, label: &str, values: &[(&'static str, u64)]) {
        for (name, count) in values {
            self.add(&[(label, name)], *count as f64);
        }
    }

    fn for_each(&mut self, servers: &[ServerFacts<'_>], value: impl Fn(&ServerFacts<'_>) -> f64) {
        for server in servers {
            self.add(&[("server", server.name)], value(server));
        }
    }

    fn for_each_of<'a>(
        &mut self,
        servers: &'a [ServerFacts<'_>],
        label: &str,
        values: impl Fn(&'a ServerFacts<'_>) -> &'a [(&'static str, u64)],
    ) {
        for server in servers {
            for (name, count) in values(server) {
                self.add(&[("server", server.name), (label, name)], *count as f64);
            }
        }
    }

    fn both_ways(
        &mut self,
        servers: &[ServerFacts<'_>],
        values: impl Fn(&ServerFacts<'_>) -> (u64, u64),
    ) {
        for server in servers {
            let (to_server, to_client) = values(server);
            for (direction, value) in [("to_server", to_server), ("to_client", to_client)] {
                let labels = [("server", server.name), ("direction", direction)];
                self.add(&labels, value as f64);
            }
        }
    }
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::status::facts::tests::{Kept, facts};

    fn shown() -> String {
        let mut kept = Kept::default();
        kept.counts.to_client.count(9);
        kept.counts.responses.note(Duration::from_millis(3));
        let mut facts = facts(&["default", "a\"b"], &kept);
        facts.proxy.certificate_not_after = Some(1_800_000_000);
        facts.proxy.reload = Some((true, Duration::from_secs(1)));
        facts.proxy.process.cpu_seconds = Some(1.5);
        facts.proxy.process.open_fds = Some(12);
        text(&facts)
    }

    #[test]
    fn each_metric_has_a_help_and_a_type_and_is_named_by_the_rules() {
        let text = shown();
        let mut kinds = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(kinds.insert(words[2], words[3]).is_none(), "{line}");
        }
        for (name, kind) in &kinds {
            let help = format!("# HELP {name} ");
            assert!(text.contains(&help), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            let total = format!("{name}_total");
            assert!(!kinds.contains_key(total.as_str()), "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            assert!(
                kinds.contains_key(name) || kinds.contains_key(base.unwrap()),
                "{line}"
            );
        }
    }

    #[test]
    fn the_readme_names_them_all_and_no_others() {
        let readme = include_str!("../../README.md");
        let (_, table) = readme.split_once("| metric | labels | |\n").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let cells = table
            .lines()
            .skip(1)
            .filter_map(|row| row.split('|').nth(1));
        let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let mut named: Vec<&str> = named.collect();
        let text = shown();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let types = types.filter_map(|line| line.strip_prefix(PREFIX)?.split(' ').next());
        let mut told: Vec<&str> = types.collect();
        named.sort_unstable();
        told.sort_unstable();
        assert_eq!(named, told);
    }

    #[test]
    fn numbers_are_where_they_belong() {
        let text = shown();
        for line in [
            r#"mcp_tcp_proxy_messages_total{server="default",direction="to_client"} 1"#,
            r#"mcp_tcp_proxy_message_bytes_total{server="default",direction="to_client"} 10"#,
            r#"mcp_tcp_proxy_response_seconds_bucket{server="default",le="0.002"} 0"#,
            r#"mcp_tcp_proxy_response_seconds_bucket{server="default",le="0.005"} 1"#,
            r#"mcp_tcp_proxy_response_seconds_bucket{server="default",le="+Inf"} 1"#,
            r#"mcp_tcp_proxy_sessions_closed_total{server="default",reason="client_ended"} 2"#,
            r#"mcp_tcp_proxy_requests_in_flight{server="a\"b"} 2"#,
            r#"mcp_tcp_proxy_sessions_detached{server="default"} 1"#,
            r#"mcp_tcp_proxy_share_process_sessions{server="default",process="3",kind="shared"} 4"#,
            r#"mcp_tcp_proxy_share_process_requests_in_flight{server="default",process="3",kind="shared"} 2"#,
            r#"mcp_tcp_proxy_share_process_silent{server="default",process="3",kind="shared"} 1"#,
            r#"mcp_tcp_proxy_resumes_total{result="resumed"} 4"#,
            r#"mcp_tcp_proxy_upgrades_total{result="failed"} 1"#,
            "mcp_tcp_proxy_certificate_not_after_seconds 1800000000",
            "process_open_fds 12",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
