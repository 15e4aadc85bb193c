//! A configuration: whatever stands in the file, it is served or explained, and a plain reader of JSON agrees with what is
//! served.

use std::path::Path;

use mcp_tcp_proxy::cli::keys::Given;
use mcp_tcp_proxy::config::{Errors, Reader};
use serde_json::Value;

const PATH: &str = "/etc/mcp/servers.json";

pub(crate) fn configuration(input: &[u8]) {
    let variable = |name: &str| (name == "HOME").then(|| "/home/ann".to_owned());
    let reader = Reader {
        path: Path::new(PATH),
        given: &Given::default(),
        variable: &variable,
    };
    match reader.read(input) {
        Ok(configuration) => {
            let plain = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
            let plain: Value = serde_json::from_slice(plain).unwrap();
            assert!(!configuration.servers.is_empty());
            for served in &configuration.servers {
                let name = served.name.as_ref().unwrap().as_str();
                let containers = ["mcpServers", "servers", "context_servers"];
                let entry = containers.iter().find_map(|it| plain.get(it)?.get(name));
                let entry = entry.unwrap();
                assert_ne!(entry["disabled"], true, "{name}");
                assert_eq!(entry["default"] == true, served.is_default, "{name}");
                let has_command = entry["command"].is_string() || entry["demo"] == true;
                assert!(has_command, "{name}");
            }
        }
        Err(Errors(errors)) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.starts_with(PATH), "{error}");
                assert!(!error.contains(char::is_control), "{error:?}");
            }
        }
    }
}
