//! Completions for bash. They need nothing else; with bash-completion, the served command's words are completed as that
//! command's own.

use std::fmt::Write as _;

use super::super::flag::Mode;
use super::super::pages::SUBCOMMANDS;
use super::{Values, filled, names, names_with_value, values_of};

const TEMPLATE: &str = r#"# Completions of mcp-tcp-proxy for bash.

_mcp_tcp_proxy() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} mode=serve i
    COMPREPLY=()
    # bash takes "=" for a word of its own.
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if ((COMP_CWORD > 1)); then
        case ${COMP_WORDS[1]} in
            @SUBCOMMANDS_OR@) mode=${COMP_WORDS[1]} ;;
        esac
    fi
    case $mode in
        serve) _mcp_tcp_proxy_serve ;;
        connect) _mcp_tcp_proxy_connect ;;
        bench) _mcp_tcp_proxy_bench ;;
        completions) ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -W "bash zsh fish" -- "$current")) ;;
    esac
}

# The options, and then the served command.
_mcp_tcp_proxy_serve() {
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --) break ;;
            @SERVE_WITH_VALUE@)
                [[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))
                ((i++))
                ;;
            -?*) ;;
            *)
                _mcp_tcp_proxy_command "$i"
                return
                ;;
        esac
    done
    if [[ ${COMP_WORDS[i]} == -- ]] && ((i < COMP_CWORD)); then
        _mcp_tcp_proxy_command "$((i + 1))"
        return
    fi
    case $previous in
@SERVE_VALUES@    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "@SERVE_NAMES@" -- "$current"))
        return
    fi
    ((COMP_CWORD == 1)) && COMPREPLY=($(compgen -W "@SUBCOMMANDS@" -- "$current"))
    COMPREPLY+=($(compgen -c -- "$current"))
}

# The words of a command that begins at the given one.
_mcp_tcp_proxy_command() {
    if (($1 == COMP_CWORD)); then
        COMPREPLY=($(compgen -c -- "$current"))
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        compopt -o default
    fi
}

_mcp_tcp_proxy_connect() {
    case $previous in
@CONNECT_VALUES@    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "@CONNECT_NAMES@" -- "$current"))
    else
        COMPREPLY=($(compgen -A hostname -- "$current"))
    fi
}

_mcp_tcp_proxy_bench() {
    for ((i = 2; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            _mcp_tcp_proxy_command "$((i + 1))"
            return
        fi
    done
    case $previous in
@BENCH_VALUES@    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "@BENCH_NAMES@" -- "$current"))
    else
        COMPREPLY=($(compgen -A hostname -- "$current"))
    fi
}

complete -F _mcp_tcp_proxy mcp-tcp-proxy
"#;

pub(super) fn text() -> String {
    let subcommands: Vec<&str> = SUBCOMMANDS
        .iter()
        .map(|subcommand| subcommand.name)
        .collect();
    filled(
        TEMPLATE,
        &[
            ("SUBCOMMANDS_OR", subcommands.join(" | ")),
            ("SUBCOMMANDS", subcommands.join(" ")),
            (
                "SERVE_WITH_VALUE",
                names_with_value(Mode::Serve).join(" | "),
            ),
            ("SERVE_VALUES", value_arms(Mode::Serve)),
            ("SERVE_NAMES", names(Mode::Serve).join(" ")),
            ("CONNECT_VALUES", value_arms(Mode::Connect)),
            ("CONNECT_NAMES", names(Mode::Connect).join(" ")),
            ("BENCH_VALUES", value_arms(Mode::Bench)),
            ("BENCH_NAMES", names(Mode::Bench).join(" ")),
        ],
    )
}

/// What follows each option that takes a value.
fn value_arms(mode: Mode) -> String {
    let mut arms = String::new();
    for flag in mode.flags().filter(|flag| flag.value.is_some()) {
        let offer = match values_of(flag) {
            Values::These(values) => format!(
                "COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); ",
                values.join(" ")
            ),
            Values::Hosts => "COMPREPLY=($(compgen -A hostname -- \"$current\")); ".to_owned(),
            Values::Files => "compopt -o default; ".to_owned(),
            Values::Anything => String::new(),
        };
        let _ = writeln!(arms, "        {}) {offer}return ;;", flag.name);
    }
    arms
}
