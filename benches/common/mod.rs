//! What the benchmarks share: the server that every contender starts, programs that listen, and how figures are shown.

#![allow(
    dead_code,
    reason = "each benchmark compiles its own copy of this module, and none needs all of it"
)]
#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

pub(crate) mod affinity;
pub(crate) mod chart;
pub(crate) mod echo_server;
pub(crate) mod family;
pub(crate) mod generator;
pub(crate) mod machine;
pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod reach;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod time_limit;

#[path = "../../tests/common/mod.rs"]
pub(crate) mod end_to_end;

/// The path of the Python script, if it is to be measured as well.
pub(crate) fn reference() -> Option<String> {
    path_in("MCP_TCP_PROXY_REFERENCE")
}

/// The path of another build of this program, if it is to be measured beside this one.
pub(crate) fn earlier_build() -> Option<String> {
    path_in("MCP_TCP_PROXY_EARLIER")
}

fn path_in(variable: &str) -> Option<String> {
    let path = std::env::var(variable).ok();
    path.filter(|path| !path.is_empty())
}

/// The program of this crate.
pub(crate) const PROXY: &str = env!("CARGO_BIN_EXE_mcp-tcp-proxy");
