//! The results as text and as a chart.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use super::trial::{Figures, RoundTrip, RoundTrips, Windows};
use super::usage::Usage;
use crate::common::affinity::Cores;
use crate::common::chart::{Bar, Chart, Panel};
use crate::common::reach::Bound::{AtLeast, AtMost};
use crate::common::reach::{self, Bound, Goal};
use crate::common::table::{Table, number};
use crate::common::{PROXY, machine};

/// The names of what was measured, with the figures; this proxy is the first.
type Trials = [(&'static str, Result<Figures, String>)];

/// The proxy wakes every two seconds, to check for what a lost signal left behind.
const TICKS_PER_SECOND: f64 = 0.5;

/// In place of a figure that cannot exist.
const NONE: &str = "–";

pub(crate) fn text(trials: &Trials, windows: Windows, cores: usize) -> String {
    let mut parts = Vec::new();
    let mut add = |title: &str, table: &dyn Display| parts.push(format!("{title}\n\n{table}"));
    if let Some((_, Ok(own))) = trials.first() {
        add("Targets", &reach::table(&goals(own, windows)));
    }
    add("Figures", &figures(trials, windows));
    add("Where", &machine::list(&machine::facts(cores)));
    parts.join("\n")
}

fn goal(figure: String, unit: &str, must: Bound, aim: Option<Bound>, measured: f64) -> Goal {
    Goal {
        figure,
        unit: unit.to_owned(),
        must,
        aim,
        measured: Ok(measured),
    }
}

/// What heartbeats cost, and whether all arrive.
fn heartbeat_goals(own: &Figures, windows: Windows) -> Vec<Goal> {
    let Some((count, usage)) = own.heartbeats else {
        return Vec::new();
    };
    let (sessions, seconds) = (own.sessions, windows.heartbeats.as_secs_f64());
    vec![
        goal(
            format!("heartbeats each {seconds} s, {sessions} sessions"),
            " % of one core",
            AtMost(1.5),
            None,
            usage.percent_of(windows.heartbeats),
        ),
        goal(
            "… share that arrived".to_owned(),
            "",
            AtLeast(1.0),
            None,
            count as f64 / sessions as f64,
        ),
    ]
}

fn goals(own: &Figures, windows: Windows) -> Vec<Goal> {
    let mib = own.rss_kib_without as f64 / 1024.0;
    let idle_seconds = windows.idle.as_secs_f64();
    let ticks = (idle_seconds * TICKS_PER_SECOND).ceil() + 1.0;
    let sessions = own.sessions;
    let mut goals = vec![
        goal(
            "RSS without a session".to_owned(),
            " MiB",
            AtMost(4.0),
            Some(AtMost(2.5)),
            mib,
        ),
        goal(
            "RSS for each idle session".to_owned(),
            " KiB",
            AtMost(2.0),
            Some(AtMost(1.0)),
            own.kib_per_session(),
        ),
        goal(
            format!("wake-ups in {idle_seconds} s, {sessions} idle sessions"),
            "",
            AtMost(ticks),
            None,
            own.idle.wake_ups as f64,
        ),
    ];
    for at in &own.round_trips {
        goals.push(goal(
            format!("{}: round trip p50, {sessions} sessions", at.cores.name()),
            " × alone",
            AtMost(1.5),
            Some(AtMost(1.2)),
            at.each_in_turn.p50 / at.alone.p50,
        ));
    }
    goals.extend(heartbeat_goals(own, windows));
    let megabytes = fs::metadata(PROXY).map(|file| file.len() as f64 / 1e6);
    goals.push(Goal {
        figure: "program".to_owned(),
        unit: " MB".to_owned(),
        must: AtMost(1.5),
        aim: None,
        measured: megabytes.map_err(|error| error.to_string()),
    });
    goals
}

fn figures(trials: &Trials, windows: Windows) -> Table {
    let names = trials.iter().map(|(name, _)| *name);
    let mut table = Table::new(["", "unit"].into_iter().chain(names));
    let mut row = |name: &str, unit: &str, value: &dyn Fn(&Figures) -> String| {
        let values = trials.iter().map(|(_, figures)| match figures {
            Ok(figures) => value(figures),
            Err(_) => "fails".to_owned(),
        });
        let head = [name.to_owned(), unit.to_owned()];
        table.row(head.into_iter().chain(values));
    };
    row("sessions", "", &|of| of.sessions.to_string());
    row("time to open", "s", &|of| seconds(of.open));
    row(
        "RSS without a session",
        "MiB",
        &|of| mib(of.rss_kib_without),
    );
    row("RSS with all", "MiB", &|of| mib(of.rss_kib_with));
    row("RSS for each", "KiB", &|of| number(of.kib_per_session()));
    let idle = format!("idle for {} s", windows.idle.as_secs_f64());
    row(&format!("{idle}: CPU"), "ms", &|of| {
        number(of.idle.cpu.as_secs_f64() * 1e3)
    });
    row(&format!("{idle}: wake-ups"), "", &|of| {
        of.idle.wake_ups.to_string()
    });
    for (at, cores) in Cores::BOTH.into_iter().enumerate() {
        let cores = cores.name();
        let mut round_trips = |what: &str, which: fn(&RoundTrips) -> RoundTrip| {
            let name = format!("{cores}: round trip, {what}");
            row(&format!("{name}, p50"), "µs", &|of| {
                number(which(&of.round_trips[at]).p50)
            });
            row(&format!("{name}, p99"), "µs", &|of| {
                number(which(&of.round_trips[at]).p99)
            });
        };
        round_trips("alone", |of| of.alone);
        round_trips("one of all", |of| of.one_of_all);
        round_trips("each in turn", |of| of.each_in_turn);
    }
    let beats = format!("heartbeats for {} s", windows.heartbeats.as_secs_f64());
    row(&format!("{beats}: arrived"), "", &|of| {
        let count = of.heartbeats.map(|(count, _)| count.to_string());
        count.unwrap_or_else(|| NONE.to_owned())
    });
    row(&format!("{beats}: CPU"), "% of a core", &|of| {
        let percent = |(_, usage): (_, Usage)| number(usage.percent_of(windows.heartbeats));
        of.heartbeats.map_or_else(|| NONE.to_owned(), percent)
    });
    row("time to close", "s", &|of| seconds(of.close));
    row("left: processes", "", &|of| of.left.processes.to_string());
    row("left: zombies", "", &|of| of.left.zombies.to_string());
    row("left: descriptors", "", &|of| {
        of.left.descriptors.to_string()
    });
    table
}

pub(crate) fn chart(trials: &Trials) -> String {
    let panel = |title: &str, value: fn(&Figures) -> f64| Panel {
        title: title.to_owned(),
        bars: trials
            .iter()
            .enumerate()
            .map(|(at, (name, figures))| Bar {
                name: (*name).to_owned(),
                value: match figures {
                    Ok(figures) => Ok(value(figures)),
                    Err(_) => Err("fails".to_owned()),
                },
                own: at == 0,
            })
            .collect(),
    };
    let counts = trials.iter().filter_map(|(name, figures)| {
        let sessions = figures.as_ref().ok()?.sessions;
        Some(format!("{name}: {sessions} sessions"))
    });
    let counts: Vec<String> = counts.collect();
    let chart = Chart {
        title: "What an idle session costs in the program that serves it".to_owned(),
        note: format!(
            "Less is better, except for sessions opened. {}.",
            counts.join(", ")
        ),
        panels: vec![
            panel("RSS for each session, KiB", Figures::kib_per_session),
            panel("RSS without a session, MiB", |of| {
                of.rss_kib_without as f64 / 1024.0
            }),
            panel("CPU while idle, ms", |of| of.idle.cpu.as_secs_f64() * 1e3),
            panel("Sessions opened per second", |of| {
                of.sessions as f64 / of.open.as_secs_f64()
            }),
        ],
    };
    chart.svg()
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

fn mib(kib: u64) -> String {
    number(kib as f64 / 1024.0)
}
