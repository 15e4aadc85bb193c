//! Servers to put behind the proxy that need nothing but a POSIX system, and the demo server.
//!
//! They look into JSON no further than a shell can: the `id` of a request has to stand before its `params`.

use super::program_file::write_program;
use super::scratch::Scratch;

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

/// A server that does what it is told: the method `sh` has its `params.code` run, as shell commands, and `pid` has it
/// answer with its process id as `result.pid`, like `server/discover`. It knows the legacy handshake, but does not insist on it.
///
/// Every line that it reads is first put into `got.PID` in the scratch directory, and its process id, when it starts,
/// into `starts`. If a file `on-start` or `on-initialize` is there, its commands are run at these times, the latter
/// instead of the answer. For all commands there are these functions:
///
/// * `answer`: the answer to the request that was read last
/// * `reply ID`: the answer to that request
/// * `ask ID`: a request of the server's own
/// * `cancel ID`: a `notifications/cancelled`
/// * `note METHOD`: a notification
/// * `number`: how many servers were started so far, this one included
pub(crate) fn scripted(scratch: &Scratch) -> Vec<String> {
    scripted_with(scratch, "")
}

/// The server of [`scripted`], which refuses everything before `initialize`, as legacy servers do.
pub(crate) fn legacy(scratch: &Scratch) -> Vec<String> {
    scripted_with(scratch, "strict=1")
}

fn scripted_with(scratch: &Scratch, preamble: &str) -> Vec<String> {
    let directory = scratch.path();
    sh(&format!(
        r#"{FIND_ID}
dir='{directory}'
{preamble}
say() {{ printf '%s\n' "$1"; }}
reply() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":{{"pid":%d}}}}\n' "$1" $$; }}
answer() {{ reply "$id"; }}
ask() {{ printf '{{"jsonrpc":"2.0","id":%s,"method":"roots/list"}}\n' "$1"; }}
cancel() {{ printf '{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":%s}}}}\n' "$1"; }}
note() {{ printf '{{"jsonrpc":"2.0","method":"%s"}}\n' "$1"; }}
number() {{ wc -l < "$dir/starts"; }}
initialized() {{
    printf '{{"jsonrpc":"2.0","id":%s,"result":{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"scripted","version":"%d"}}}}}}\n' "$id" $$
    strict=
}}
echo $$ >> "$dir/starts"
if [ -e "$dir/on-start" ]; then . "$dir/on-start"; fi
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$dir/got.$$"
    find_id "$line"
    case $line in
    *'"method":"initialize"'*)
        if [ -e "$dir/on-initialize" ]; then . "$dir/on-initialize"; else initialized; fi ;;
    *'"method":"notifications/'*) ;;
    *'"method":'*)
        if [ "$strict" ]; then
            printf '{{"jsonrpc":"2.0","id":%s,"error":{{"code":-32002,"message":"not initialized"}}}}\n' "$id"
            continue
        fi
        case $line in
        *'"method":"pid"'* | *'"method":"server/discover"'*) answer ;;
        *'"method":"sh"'*)
            code=${{line#*\"code\":\"}}
            code=${{code%\"\}}\}}*}}
            case $code in
            *\\*) code=$(printf '%s\n' "$code" | sed 's/\\"/"/g; s/\\\\/\\/g') ;;
            esac
            eval "$code" ;;
        esac ;;
    esac
done"#
    ))
}

/// Puts a server into a file that can be taken away.
pub(crate) fn removable(scratch: &Scratch) -> Vec<String> {
    let script = scripted(scratch).pop().unwrap();
    let file = scratch.file("server");
    vec![write_program(&file, format!("#!/bin/sh\n{script}"), 0o755)]
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
