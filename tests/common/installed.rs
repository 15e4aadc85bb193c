//! The real servers and clients that `.ci/interop-setup` installs.

use std::path::{Path, PathBuf};

/// The path of something that `.ci/interop-setup` installed below `target/interop`; `MCP_TCP_PROXY_INTEROP` names
/// another place.
#[track_caller]
pub(crate) fn installed(path: &str) -> String {
    let (path, exists) = look_for(path);
    assert!(exists, "{path} is missing: run .ci/interop-setup first");
    path
}

/// Whether `.ci/interop-setup` has installed that.
pub(crate) fn is_installed(path: &str) -> bool {
    look_for(path).1
}

fn look_for(path: &str) -> (String, bool) {
    let directory = match std::env::var_os("MCP_TCP_PROXY_INTEROP") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop"),
    };
    let path = directory.join(path);
    (path.to_str().unwrap().to_owned(), path.exists())
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

/// The same, if it is there.
pub(crate) fn sdk_server_if_installed() -> Option<Vec<String>> {
    is_installed("venv/bin/python").then(sdk_server)
}

/// The command of `server-everything`.
pub(crate) fn everything_server() -> Vec<String> {
    vec![installed("npm/node_modules/.bin/mcp-server-everything")]
}
