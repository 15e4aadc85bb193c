//! The facts as a page, in pieces. It is whole without its script; with it, it keeps itself up to date.

use std::fmt::Write as _;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::facts::{Facts, ServerFacts, SessionFacts, SwapFacts};
use super::history::Point;
use super::human::{bytes, seconds, span};
use super::response::page_policy;

const TEMPLATE: &str = include_str!("page.html");

/// Where the rows of sessions go.
const ROWS: &str = "%%ROWS%%";

/// The width of a chart: a unit for each point.
const CHART_WIDTH: usize = 300;

/// A point is taken of what came to pass in this many seconds.
const POINT_SECONDS: u32 = 2;

/// What the page may do: run its own script and use its own styles, which are known by their digests.
pub fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| page_policy(&digest_of("script"), &digest_of("style")))
}

/// The digest of the content of the one element of this name, as a source in a policy.
fn digest_of(element: &str) -> String {
    let (_, rest) = TEMPLATE
        .split_once(&format!("<{element}>"))
        .unwrap_or_default();
    let (content, _) = rest
        .split_once(&format!("</{element}>"))
        .unwrap_or_default();
    format!("'sha256-{}'", base64(&Sha256::digest(content)))
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let of = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = of(0) << 16 | of(1) << 8 | of(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            let is_padding = place > three.len();
            text.push(if is_padding { '=' } else { char::from(digit) });
        }
    }
    text
}

/// All before the rows of sessions.
pub fn beginning(facts: &Facts<'_>) -> String {
    let (before, _) = TEMPLATE.split_once(ROWS).unwrap_or((TEMPLATE, ""));
    let proxy = &facts.proxy;
    let is_good = facts.reasons(None).is_some_and(|all| all.is_empty());
    let state: Vec<&str> = [proxy.state]
        .into_iter()
        .chain(proxy.reasons.iter().map(|reason| reason.words.as_str()))
        .collect();
    let sum = |of: fn(&ServerFacts<'_>) -> u64| facts.servers.iter().map(of).sum::<u64>();
    let messages =
        sum(|server| server.counts.to_upstream.messages() + server.counts.to_client.messages());
    let points: Vec<Point> = proxy.history.points().copied().collect();
    let rates: Vec<f64> = points
        .iter()
        .map(|point| f64::from(point.messages) / f64::from(POINT_SECONDS))
        .collect();
    let medians: Vec<f64> = points.iter().map(|it| f64::from(it.median)).collect();
    let slow: Vec<f64> = points.iter().map(|it| f64::from(it.p99)).collect();
    let (rate, slowest) = (greatest(&rates), greatest(&slow));
    let values: [(&str, String); 17] = [
        ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ("ADDRESSES", escaped(proxy.addresses)),
        (
            "STATE_CLASS",
            if is_good { "good" } else { "bad" }.to_owned(),
        ),
        ("STATE", escaped(&state.join(" · "))),
        (
            "SESSIONS",
            format!("{} of {}", proxy.sessions, proxy.max_sessions),
        ),
        (
            "IN_FLIGHT",
            sum(|server| server.gauges.in_flight).to_string(),
        ),
        ("MESSAGES", messages.to_string()),
        (
            "BUFFER",
            format!(
                "{} of {}",
                bytes(proxy.buffer_bytes as u64),
                bytes(proxy.buffer_limit_bytes as u64)
            ),
        ),
        ("LONGEST", seconds(proxy.longest_iteration.as_secs_f64())),
        ("AGE", span(proxy.age)),
        ("MESSAGES_TOP", rate.to_string()),
        ("MESSAGES_LINE", line(&rates, rate)),
        ("TIMES_TOP", seconds(slowest)),
        ("P99_LINE", line(&slow, slowest)),
        ("MEDIAN_LINE", line(&medians, slowest)),
        ("SERVERS", server_rows(&facts.servers)),
        ("", String::new()),
    ];
    fill(before, &values)
}

/// All after them. `next` is where the next window begins.
pub fn end(next: Option<usize>) -> String {
    let (_, after) = TEMPLATE.split_once(ROWS).unwrap_or_default();
    let (target, hidden) = match next {
        Some(next) => (format!("/?after={next}"), ""),
        None => ("/".to_owned(), "hidden"),
    };
    fill(
        after,
        &[("NEXT", target), ("NEXT_HIDDEN", hidden.to_owned())],
    )
}

/// A row for a session.
pub fn push_session(text: &mut String, facts: &SessionFacts<'_>) {
    let session = &facts.session;
    let cells = [
        ("session", false, session.number.to_string()),
        ("client", true, session.client.to_string()),
        ("name", true, facts.name.unwrap_or_default().to_owned()),
        ("server", true, facts.server.to_owned()),
        (
            "pid",
            false,
            session.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ),
        ("age", false, span(session.age)),
        ("idle", false, span(session.idle)),
        (
            "messages →",
            false,
            session.to_server.messages().to_string(),
        ),
        (
            "← messages",
            false,
            session.to_client.messages().to_string(),
        ),
        ("bytes →", false, bytes(session.to_server.bytes())),
        ("← bytes", false, bytes(session.to_client.bytes())),
        ("in flight", false, session.in_flight.to_string()),
        ("restarts", false, session.restarts.to_string()),
        ("state", true, session.state.to_owned()),
    ];
    push_row(text, &cells);
}

fn server_rows(servers: &[ServerFacts<'_>]) -> String {
    let mut text = String::new();
    for server in servers {
        let ready = server
            .trouble
            .as_ref()
            .map_or_else(|| "yes".to_owned(), ToString::to_string);
        let responses = &server.counts.responses;
        let cells = [
            ("server", true, server.name.to_owned()),
            ("command", true, server.command.to_owned()),
            ("ready", true, ready),
            ("sessions", false, server.sessions.to_string()),
            ("waiting", false, server.waiting.to_string()),
            ("processes", false, server.processes.to_string()),
            ("spares", false, server.spares.to_string()),
            ("starts", false, server.starts.to_string()),
            ("restarts", false, server.counts.restarts.to_string()),
            ("moved", true, moved(&server.swaps)),
            ("median", false, seconds(responses.quantile(0.5))),
            ("99 %", false, seconds(responses.quantile(0.99))),
        ];
        push_row(&mut text, &cells);
    }
    text
}

/// How many sessions have new servers; while there are others, or the last attempt has failed, that.
fn moved(swaps: &SwapFacts<'_>) -> String {
    let SwapFacts {
        left, succeeded, ..
    } = swaps;
    match swaps.failure {
        Some(failure) => format!("{succeeded}; failed: {failure}"),
        None if *left > 0 => format!("{succeeded}; {left} to move"),
        None => succeeded.to_string(),
    }
}

fn push_row(text: &mut String, cells: &[(&str, bool, String)]) {
    text.push_str("<tr>");
    for (name, is_text, value) in cells {
        let class = if *is_text { " class=\"text\"" } else { "" };
        let value = escaped(value);
        let _ = write!(text, "<td data-name=\"{name}\"{class}>{value}</td>");
    }
    text.push_str("</tr>\n");
}

/// Puts values where their names stand. A value is not looked at again, whatever it says.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    const MARK: &str = "%%";
    let mut text = String::with_capacity(template.len() + 1024);
    for (place, part) in template.split(MARK).enumerate() {
        let value = values.iter().find(|(name, _)| *name == part);
        match value {
            Some((_, value)) if place % 2 == 1 => text.push_str(value),
            _ => text.push_str(part),
        }
    }
    text
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// The points of a line in a chart of 60 units in height, the last one at the right.
fn line(values: &[f64], top: f64) -> String {
    let from = CHART_WIDTH - values.len().min(CHART_WIDTH);
    let mut text = String::new();
    for (place, value) in values.iter().enumerate() {
        let share = if top > 0.0 { value / top } else { 0.0 };
        let gap = if place > 0 { " " } else { "" };
        let _ = write!(text, "{gap}{},{:.1}", from + place, 58.0 - 56.0 * share);
    }
    text
}

/// Text that can be nothing but text.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::facts::tests::{Kept, facts};
    use crate::status::json::tests::session;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let shown = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn the_page_is_whole_and_nothing_in_it_is_more_than_text() {
        let mut kept = Kept::default();
        kept.counts.to_client.count(1);
        kept.history.note(&kept.counts);
        let name = "<script>alert(1)</script>%%STATE%%";
        let facts = facts(&["default", name], &kept);
        let mut page = beginning(&facts);
        push_session(&mut page, &session(Some(name)));
        page.push_str(&end(Some(7)));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert_eq!(page.matches("<script>").count(), 1);
        assert_eq!(page.matches("%%STATE%%").count(), 2, "as text");
        assert_eq!(page.matches("%%").count(), 4);
        for text in ["1 of 10", "unix:uid=1,pid=2", "/?after=7", "299,2.0"] {
            assert!(page.contains(text), "{text}");
        }
        assert!(end(None).contains("href=\"/\" hidden"));
    }

    #[test]
    fn the_script_has_the_columns_of_the_rows() {
        let kept = Kept::default();
        let mut row = String::new();
        push_session(&mut row, &session(None));
        row.push_str(&server_rows(&facts(&["default"], &kept).servers));
        let names = row.split("data-name=\"").skip(1);
        for name in names.filter_map(|rest| rest.split('"').next()) {
            assert!(TEMPLATE.contains(&format!("[\"{name}\", (s)")), "{name}");
            assert!(TEMPLATE.contains(&format!(">{name}</th>")), "{name}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for word in ["http:", "https:", "//", "style=", "onclick", "src="] {
            assert!(!TEMPLATE.contains(word), "{word}");
        }
        assert!(policy().contains("script-src 'sha256-") && policy().contains("'none'"));
    }
}
