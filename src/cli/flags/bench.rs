//! The options of `bench` alone.

use crate::cli::flag::{Flag, bench, bench_switch, put};
use crate::cli::values::{
    bench_requests, bench_sessions, bench_target, era, in_flight, payload, rate, rounds, seconds,
    seconds_or_none, some_path, some_seconds, some_text,
};

flags! {
    /// Measure this, too, in turn with the other (A B A B and so on), and print how many times as long it takes. What
    /// it may be is what TARGET may be.
    bench "--versus" "TARGET", example "127.0.0.1:8080": versus = bench_target;

    /// Sessions at a time, 1 to 100000. All are opened before anything is measured.
    bench "--sessions" "N", default "1", example "100": sessions = bench_sessions;

    /// Requests of each session that wait for their responses, 1 to 1024. The next one is sent when a response comes.
    bench "--in-flight" "N", default_is "1, without `--rate`", example "8": in_flight = in_flight;

    /// Requests to measure, all sessions together, 1 to 1000000000000, instead of a time.
    bench "--requests" "N", default_is "as many as there is time for", example "100000": requests = bench_requests;

    /// Seconds to measure, 0.01 to 86400.
    bench "--duration" "S", default_is "10, without `--requests`", example "60": duration = some_seconds;

    /// Seconds to send requests before that, 0.01 to 86400, or 0.
    bench "--warm-up" "S", default "1", example "5": warm_up = seconds_or_none;

    /// How often to measure, 1 to 100. Each time all sessions are opened anew.
    bench "--rounds" "N", default_is "1; 5 with `--versus`", example "9": rounds = rounds;

    /// Requests a second, all sessions together, 0.001 to 10000000. They are sent on schedule, whether or not earlier ones were
    /// answered, up to 1024 a session, and latency counts from the scheduled time.
    bench "--rate" "R", default_is "as fast as they are answered", example "5000": rate = rate;

    /// Call this tool. Without `--tool`, `--method` and `--message`, legacy servers get `ping` and modern ones
    /// `server/discover`.
    bench "--tool" "NAME", example "echo": tool = some_text;

    /// Its arguments.
    bench "--arguments" "JSON", default_is "{}", example "{\"text\":\"hello\"}": arguments = some_text;

    /// Send requests of this method.
    bench "--method" "NAME", example "tools/list": method = some_text;

    /// Their parameters.
    bench "--params" "JSON", default_is "none", example "{\"cursor\":\"1\"}": params = some_text;

    /// Send the requests of this file, one a line, in turn. Their ids are replaced.
    bench "--message" "FILE", example "requests.jsonl": message = some_path;

    /// Length in bytes to which the first text among the arguments or parameters is padded, 1 to 268435456. If there is none, a
    /// text is added.
    bench "--payload" "N", default_is "as it is", example "10000": payload = payload;

    /// How sessions are opened: by `initialize`, or as from MCP 2026-07-28 on. `auto` finds out with a session, or a process,
    /// of its own.
    bench "--era" "auto|legacy|modern", default "auto", example "modern": era = era;

    /// Seconds that a response may take, 0.01 to 86400.
    bench "--timeout" "S", default "30", example "5": timeout = seconds;

    /// Give each request a connection, or a process, of its own. Its latency is that of all of it: connect, handshake, request.
    bench "--churn": churn = true;

    /// Report in JSON.
    bench "--json": json = true;

    /// Report in CSV, a line for each round and target.
    bench "--csv": csv = true;

    /// Write the distribution of latencies to this file. It is text for plotters of HdrHistogram, or its log if the name ends
    /// in `.hlog`. With `--versus`, there are two texts: the second file has `-versus` before the ending.
    bench "--histogram" "FILE", example "latency.hgrm": histogram = some_path;

    /// Draw the distribution of latencies into this file, as SVG. With `--versus`, both are in one picture.
    bench "--chart" "FILE", example "latency.svg": chart = some_path;
}
