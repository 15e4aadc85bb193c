//! Completions for zsh. The served command's words are completed as that command's own.

use std::fmt::Write as _;

use super::super::flag::{Flag, Mode};
use super::super::pages::SUBCOMMANDS;
use super::{Values, filled, values_of};

const TEMPLATE: &str = r#"#compdef mcp-tcp-proxy
# Completions of mcp-tcp-proxy for zsh.

_mcp_tcp_proxy() {
    local curcontext=$curcontext state line
    if ((CURRENT > 2)); then
        case $words[2] in
            connect)
                shift words
                ((CURRENT--))
                _arguments -S \
@CONNECT_OPTIONS@                    '1:address:_hosts' \
                    '2:port:'
                return
                ;;
            bench)
                shift words
                ((CURRENT--))
                _arguments -S \
@BENCH_OPTIONS@                    '1:target:_hosts' \
                    '*::argument:_normal'
                return
                ;;
            completions)
                ((CURRENT == 3)) && _values shell bash zsh fish
                return
                ;;
            @BARE_SUBCOMMANDS@) return ;;
        esac
    fi
    _arguments -S -A '-*' \
@SERVE_OPTIONS@        '(-)1:command:_mcp_tcp_proxy_first' \
        '*::argument:_normal'
}

# The served command, or a subcommand if this is the very first word.
_mcp_tcp_proxy_first() {
    local -a subcommands=(
@SUBCOMMANDS@    )
    ((CURRENT == 2)) && _describe -t subcommands subcommand subcommands
    _command_names -e
}

_mcp_tcp_proxy "$@"
"#;

pub(super) fn text() -> String {
    let bare = SUBCOMMANDS.iter().filter(|other| other.words.is_empty());
    let bare: Vec<&str> = bare.map(|subcommand| subcommand.name).collect();
    let mut subcommands = String::new();
    for subcommand in SUBCOMMANDS {
        let _ = writeln!(
            subcommands,
            "        '{}:{}'",
            subcommand.name,
            quoted(subcommand.summary)
        );
    }
    filled(
        TEMPLATE,
        &[
            ("CONNECT_OPTIONS", options(Mode::Connect, 20)),
            ("BENCH_OPTIONS", options(Mode::Bench, 20)),
            ("SERVE_OPTIONS", options(Mode::Serve, 8)),
            ("BARE_SUBCOMMANDS", bare.join(" | ")),
            ("SUBCOMMANDS", subcommands),
        ],
    )
}

fn options(mode: Mode, indent: usize) -> String {
    let mut lines = String::new();
    for flag in mode.flags() {
        let _ = writeln!(lines, "{:indent$}{} \\", "", option(flag));
    }
    lines
}

/// An option as `_arguments` wants it. It may be given again, as the last one counts.
fn option(flag: &Flag) -> String {
    let about = format!("[{}]", quoted(&flag.brief()));
    let Some(value) = flag.value else {
        return match flag.short {
            Some(short) => format!("'(- *)'{{{short},{}}}'{about}'", flag.name),
            None => format!("'*{}{about}'", flag.name),
        };
    };
    let offer = match values_of(flag) {
        Values::These(values) => format!("({})", values.join(" ")),
        Values::Hosts => "_hosts".to_owned(),
        Values::Files => "_files".to_owned(),
        Values::Anything => " ".to_owned(),
    };
    let value = value.replace(':', "\\:");
    format!("'*{}={about}:{value}:{offer}'", flag.name)
}

/// Text between apostrophes and brackets.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str(r"'\''"),
            '[' | ']' | ':' | '\\' => quoted.extend(['\\', c]),
            _ => quoted.push(c),
        }
    }
    quoted
}
