//! The real servers and clients that `.ci/interop-setup` installs.

use std::path::{Path, PathBuf};

/// The path of something that `.ci/interop-setup` installed below `target/interop`; `MCP_TCP_PROXY_INTEROP` names
/// another place.
#[track_caller]
pub(crate) fn installed(path: &str) -> String {
    let directory = match std::env::var_os("MCP_TCP_PROXY_INTEROP") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop"),
    };
    let path = directory.join(path);
    assert!(
        path.exists(),
        "{} is missing: run .ci/interop-setup first",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

/// The path of a script of these tests.
pub(crate) fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name);
    path.to_str().unwrap().to_owned()
}

/// The command of the server on the Python SDK.
pub(crate) fn sdk_server() -> Vec<String> {
    vec![installed("venv/bin/python"), script("sdk_server.py")]
}

/// The command of `server-everything`.
pub(crate) fn everything_server() -> Vec<String> {
    vec![installed("npm/node_modules/.bin/mcp-server-everything")]
}
