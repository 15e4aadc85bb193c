//! Servers to put behind the proxy that need nothing but a POSIX system, and the demo server.
//!
//! They look into JSON no further than a shell can: the `id` of a request has to stand before its `params`.

/// A shell function that makes `id` the id in `$1`, as it is written there.
const FIND_ID: &str = r#"find_id() { id=${1#*\"id\":}; id=${id%%[,\}]*}; }"#;

/// The command of a server that is written as a script for `/bin/sh`.
pub(crate) fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// A server that answers a request with its own process id and the line it got, as `result.pid` and `result.echo`,
/// and sends back any other line as the `params` of a notification `saw`.
pub(crate) fn echo() -> Vec<String> {
    echo_after("")
}

/// The server of [`echo`], which runs these shell commands first.
pub(crate) fn echo_after(preamble: &str) -> Vec<String> {
    sh(&format!(
        r#"{FIND_ID}
{preamble}
while IFS= read -r line; do
    case $line in
    *\"id\"*)
        find_id "$line"
        printf '{{"jsonrpc":"2.0","id":%s,"result":{{"pid":%d,"echo":%s}}}}\n' "$id" $$ "$line" ;;
    *)
        printf '{{"jsonrpc":"2.0","method":"saw","params":%s}}\n' "$line" ;;
    esac
done"#
    ))
}

/// A server that sends every line back as it came.
pub(crate) fn mirror() -> Vec<String> {
    vec!["cat".to_owned()]
}

/// A server that runs these shell commands if the first line has `word` in it. Otherwise, and after them, it sends
/// every line back as it came, but the first.
pub(crate) fn mirror_unless(word: &str, commands: &str) -> Vec<String> {
    sh(&format!(
        "IFS= read -r line\ncase $line in *{word}*)\n{commands}\n;; esac\nexec cat"
    ))
}

/// The demo server of this crate, also when another proxy is under test.
pub(crate) fn demo() -> Vec<String> {
    [env!("CARGO_BIN_EXE_mcp-tcp-proxy"), "demo-server"]
        .map(str::to_owned)
        .to_vec()
}
