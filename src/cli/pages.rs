//! What the help texts and the manual page say beside the options. Sentences with literals in backticks.

use super::flag::Mode;

/// What is served, or what else this program can be. Only the very first word of a command line counts.
pub(super) struct Subcommand {
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) words: &'static str,
    pub(super) summary: &'static str,
}

pub(super) const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "connect",
        words: "[OPTIONS] HOST:PORT",
        summary: "be the stdio side of a server that is served this way",
    },
    Subcommand {
        name: "bench",
        words: "[OPTIONS] TARGET",
        summary: "measure an MCP server, or two",
    },
    Subcommand {
        name: "demo-server",
        words: "",
        summary: "be the demo MCP server, on stdio",
    },
    Subcommand {
        name: "check",
        words: "FILE",
        summary: "check a configuration",
    },
    Subcommand {
        name: "token",
        words: "NAME",
        summary: "print a fresh token, and its line for the file",
    },
    Subcommand {
        name: "status",
        words: "[ADDRESS] [--watch]",
        summary: "ask a proxy how it is (--status)",
    },
    Subcommand {
        name: "upgrade",
        words: "PID",
        summary: "have a running proxy go on as the new program",
    },
    Subcommand {
        name: "completions",
        words: "bash|zsh|fish",
        summary: "print completions for a shell",
    },
    Subcommand {
        name: "man-page",
        words: "",
        summary: "print the manual page",
    },
];

/// The text around the options of a mode. Usage lines and examples are without the program's name.
pub(super) struct Page {
    pub(super) about: &'static str,
    /// Each with what it does.
    pub(super) usage: &'static [(&'static str, &'static str)],
    pub(super) rules: &'static [&'static str],
    /// Each with what it does.
    pub(super) examples: &'static [(&'static str, &'static str)],
    /// Exit codes, each with what it says.
    pub(super) exit: &'static [(&'static str, &'static str)],
}

pub(super) const SERVE: Page = Page {
    about: "Serves any MCP server that speaks stdio over TCP: each connection gets a server process of its own, and \
            the session outlives crashes of that process.",
    usage: &[
        (
            "[OPTIONS] [--] COMMAND...",
            "serve the MCP server that COMMAND starts",
        ),
        ("[OPTIONS] --demo", "serve the built-in demo MCP server"),
        (
            "[OPTIONS] --config FILE",
            "serve the MCP servers of a configuration",
        ),
    ],
    rules: &[
        "The options end at the first word that is not one, or at `--`; the rest is COMMAND, untouched. `--opt value` \
         and `--opt=value` are the same. If an option is given twice, the last one counts, but for those that can be \
         given any number of times.",
        "A subcommand has to be the first word. `mcp-tcp-proxy -- connect` serves a program of that name.",
    ],
    examples: &[
        (
            "--port 9000 python3 my_server.py --verbose",
            "Serve a Python server on port 9000 of all addresses.",
        ),
        (
            "--host 127.0.0.1 --debug --demo",
            "Serve the demo server to this machine alone, and log every message.",
        ),
        (
            "--listen unix:/run/mcp.sock --listen 127.0.0.1:9000 my-server",
            "Serve on a unix socket that is for its user alone, and on a port of this machine.",
        ),
    ],
    exit: &[
        ("0", "stopped by a signal, or printed what was asked for"),
        ("1", "could not start, or could not go on"),
        ("2", "bad command line"),
    ],
};

pub(super) const CONNECT: Page = Page {
    about: "Makes an MCP server that is served over TCP look like a local one: the program that starts this speaks to \
            it on stdio. A lost connection is made again; it ends when its stdin ends.",
    usage: &[
        ("connect [OPTIONS] HOST:PORT", "connect to a host's port"),
        (
            "connect [OPTIONS] HOST [PORT]",
            "the same; port 8080 if none is given",
        ),
        ("connect [OPTIONS] PORT", "connect to a port of localhost"),
        ("connect [OPTIONS] unix:PATH", "connect to a unix socket"),
    ],
    rules: &[
        "HOST is a name or an address; an IPv6 address that is followed by a port goes in brackets: `[::1]:8080`. \
         Options may stand before or after the address. If an option is given twice, the last one counts.",
    ],
    examples: &[(
        "connect 127.0.0.1:9000",
        "Be the stdio side of a server on port 9000 of this machine.",
    )],
    exit: &[
        ("0", "stdin or stdout ended, or stopped by a signal"),
        ("1", "there is no connection any more"),
        ("2", "bad command line"),
    ],
};

pub(super) const BENCH: Page = Page {
    about: "Measures an MCP server on TCP, on a unix socket or on stdio: how many requests it answers, and how long each \
            takes; with `--versus` two of them in one run, such as a server itself and what a bridge makes of it.",
    usage: &[
        (
            "bench [OPTIONS] HOST:PORT",
            "measure what listens on a host's port",
        ),
        ("bench [OPTIONS] unix:PATH", "... on a unix socket"),
        (
            "bench [OPTIONS] exec:'COMMAND LINE'",
            "... on the stdio of a process for each session",
        ),
        ("bench [OPTIONS] -- COMMAND...", "the same"),
    ],
    rules: &[
        "Without `--rate`, each session sends its next request when a response has come. So a server that stands still \
         for a second delays one request of each session, and the percentiles hardly show it. With `--rate`, requests \
         are due at times that are set beforehand, and latency counts from these: all that had to wait are seen to \
         have waited.",
        "Latency is what a client sees: the system calls of this program are a part of it, in both of two targets \
         alike. Compare targets in one run (`--versus`), and keep the machine free of other work.",
        "A response that is an error, comes twice, has an id that was not asked with, or is malformed is counted as \
         such, and is not a sample. A session that ends is opened again, 10 times at most. ^C ends the run, and prints \
         what there is.",
    ],
    examples: &[
        (
            "bench --sessions 100 127.0.0.1:8080",
            "How fast are 100 sessions answered that ask one thing after the other?",
        ),
        (
            "bench --rate 2000 --sessions 50 --tool echo --payload 10000 127.0.0.1:8080",
            "How long do calls take of which 2,000 come in a second?",
        ),
        (
            "bench --versus 127.0.0.1:8080 -- python3 my_server.py",
            "What does a bridge cost that serves the same server on a port?",
        ),
    ],
    exit: &[
        ("0", "all requests were answered"),
        ("1", "some were not, or the run could not go on"),
        ("2", "bad command line"),
    ],
};

impl Mode {
    pub(super) fn page(self) -> &'static Page {
        match self {
            Self::Serve => &SERVE,
            Self::Connect => &CONNECT,
            Self::Bench => &BENCH,
        }
    }
}
