//! Completions for fish. The served command's words are completed as that command's own.

use std::fmt::Write as _;

use super::super::flag::{Flag, Mode};
use super::super::pages::SUBCOMMANDS;
use super::{Values, filled, names_with_value, values_of};

const TEMPLATE: &str = r#"# Completions of mcp-tcp-proxy for fish.

# Prints what the cursor is in: first, options, command, or the name of a subcommand; then a command's words so far.
function __mcp_tcp_proxy_place
    set -l words (commandline -opc)
    set -e words[1]
    if not set -q words[1]
        echo first
        return
    end
    switch $words[1]
        case @SUBCOMMANDS@
            echo $words[1]
            return
    end
    while set -q words[1]
        switch $words[1]
            case --
                set -e words[1]
                printf '%s\n' command $words
                return
            case @SERVE_WITH_VALUE@
                set -e words[1]
            case '-*'
            case '*'
                printf '%s\n' command $words
                return
        end
        set -e words[1]
    end
    echo options
end

function __mcp_tcp_proxy_in
    set -l place (__mcp_tcp_proxy_place)
    contains -- $place[1] $argv
end

# What the served command would be offered.
function __mcp_tcp_proxy_command
    set -l words (__mcp_tcp_proxy_place)[2..]
    set -l last (commandline -ct)
    if set -q words[1]; or not string match -q -- '-*' $last
        complete -C "$(string join ' ' -- (string escape -- $words) $last)"
    end
end

complete -c mcp-tcp-proxy -f
complete -c mcp-tcp-proxy -n '__mcp_tcp_proxy_in first options command' -a '(__mcp_tcp_proxy_command)'
complete -c mcp-tcp-proxy -n '__mcp_tcp_proxy_in completions' -a 'bash zsh fish'
complete -c mcp-tcp-proxy -n '__mcp_tcp_proxy_in connect bench' -a '(__fish_print_hostnames)'
"#;

pub(super) fn text() -> String {
    let names: Vec<&str> = SUBCOMMANDS
        .iter()
        .map(|subcommand| subcommand.name)
        .collect();
    let mut text = filled(
        TEMPLATE,
        &[
            ("SUBCOMMANDS", names.join(" ")),
            ("SERVE_WITH_VALUE", names_with_value(Mode::Serve).join(" ")),
        ],
    );
    for subcommand in SUBCOMMANDS {
        let _ = writeln!(
            text,
            "complete -c mcp-tcp-proxy -n '__mcp_tcp_proxy_in first' -a {} -d '{}'",
            subcommand.name,
            quoted(subcommand.summary)
        );
    }
    for mode in Mode::ALL {
        let places = mode.subcommand().unwrap_or("first options");
        for flag in mode.flags() {
            let _ = writeln!(
                text,
                "complete -c mcp-tcp-proxy -n '__mcp_tcp_proxy_in {places}' {} -d '{}'",
                option(flag),
                quoted(&flag.brief())
            );
        }
    }
    text
}

fn option(flag: &Flag) -> String {
    let mut option = format!("-l {}", flag.name.trim_start_matches('-'));
    if let Some(short) = flag.short {
        let _ = write!(option, " -s {}", short.trim_start_matches('-'));
    }
    if flag.value.is_some() {
        let offer = match values_of(flag) {
            Values::These(values) => format!("-x -a '{}'", values.join(" ")),
            Values::Hosts => "-x -a '(__fish_print_hostnames)'".to_owned(),
            Values::Files => "-r -F".to_owned(),
            Values::Anything => "-x".to_owned(),
        };
        let _ = write!(option, " {offer}");
    }
    option
}

/// Text between apostrophes.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
