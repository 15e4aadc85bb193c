//! What a row of the table of options is made of.

use std::ffi::OsStr;

use crate::options::{BenchOptions, ConnectOptions, ServeOptions, ServerOptions};

/// One option.
pub(super) struct Flag {
    /// With its dashes.
    pub(super) name: &'static str,
    pub(super) short: Option<&'static str>,
    /// What stands for the value in help texts; `a|b` if there are only these. `None` if there is no value.
    pub(super) value: Option<&'static str>,
    pub(super) default: DefaultText,
    /// A value that is not the default.
    pub(super) example: Option<&'static str>,
    pub(super) help: &'static str,
    /// How it is read, for each mode that has it.
    pub(super) serve: Option<Set<ServeOptions>>,
    pub(super) connect: Option<Set<ConnectOptions>>,
    pub(super) bench: Option<Set<BenchOptions>>,
    /// The same for one server of several.
    pub(super) server: Option<Set<ServerOptions>>,
    pub(super) scope: Scope,
    /// Whether all of its values count, and not only the last one.
    pub(super) is_repeatable: bool,
}

/// What an option of the serving side is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The proxy as a whole.
    Proxy,
    /// Each server; what is said for all holds unless a server has its own.
    Server,
    /// There is one for the proxy, and one for each server.
    Both,
}

/// What holds if an option is not given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultText {
    /// It speaks for itself.
    Unsaid,
    /// As if this value had been given.
    Value(&'static str),
    /// What no value says.
    Words(&'static str),
}

/// How an option gets into the options. Errors complete the sentence "'x' is not …".
pub(super) enum Set<O> {
    Switch(fn(&mut O)),
    Value(fn(&mut O, &str) -> Result<(), String>),
    /// It asks for a text and wins over everything else, so that it is never read.
    Information,
}

/// What the program is to be; each has options of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Serve,
    Connect,
    Bench,
}

impl Mode {
    pub(super) const ALL: [Self; 3] = [Self::Serve, Self::Connect, Self::Bench];

    /// The word that chooses it, unless it is what is meant without one.
    pub(super) fn subcommand(self) -> Option<&'static str> {
        match self {
            Self::Serve => None,
            Self::Connect => Some("connect"),
            Self::Bench => Some("bench"),
        }
    }
}

/// The options of a mode.
pub(super) trait Options {
    const MODE: Mode;

    fn set_of(flag: &Flag) -> Option<&Set<Self>>
    where
        Self: Sized;
}

impl Options for ServeOptions {
    const MODE: Mode = Mode::Serve;

    fn set_of(flag: &Flag) -> Option<&Set<Self>> {
        flag.serve.as_ref()
    }
}

impl Options for ServerOptions {
    const MODE: Mode = Mode::Serve;

    fn set_of(flag: &Flag) -> Option<&Set<Self>> {
        flag.server.as_ref()
    }
}

impl Options for ConnectOptions {
    const MODE: Mode = Mode::Connect;

    fn set_of(flag: &Flag) -> Option<&Set<Self>> {
        flag.connect.as_ref()
    }
}

impl Options for BenchOptions {
    const MODE: Mode = Mode::Bench;

    fn set_of(flag: &Flag) -> Option<&Set<Self>> {
        flag.bench.as_ref()
    }
}

impl Mode {
    /// The mode's options, in the order of the table.
    pub(super) fn flags(self) -> impl Iterator<Item = &'static Flag> {
        super::flags::all().filter(move |flag| match self {
            Self::Serve => flag.serve.is_some(),
            Self::Connect => flag.connect.is_some(),
            Self::Bench => flag.bench.is_some(),
        })
    }

    pub(super) fn find(self, name: &OsStr) -> Option<&'static Flag> {
        self.flags()
            .find(|flag| name == flag.name || flag.short.is_some_and(|short| name == short))
    }
}

/// An option of the serving side that takes a value.
pub(super) const fn serve(
    name: &'static str,
    value: &'static str,
    set: fn(&mut ServeOptions, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        value: Some(value),
        serve: Some(Set::Value(set)),
        ..bare(name)
    }
}

/// An option of the serving side that takes none.
pub(super) const fn serve_switch(name: &'static str, set: fn(&mut ServeOptions)) -> Flag {
    Flag {
        serve: Some(Set::Switch(set)),
        ..bare(name)
    }
}

/// An option of the stdio side that takes a value.
pub(super) const fn connect(
    name: &'static str,
    value: &'static str,
    set: fn(&mut ConnectOptions, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        value: Some(value),
        connect: Some(Set::Value(set)),
        ..bare(name)
    }
}

/// An option of the stdio side that takes none.
pub(super) const fn connect_switch(name: &'static str, set: fn(&mut ConnectOptions)) -> Flag {
    Flag {
        connect: Some(Set::Switch(set)),
        ..bare(name)
    }
}

/// An option of `bench` that takes a value.
pub(super) const fn bench(
    name: &'static str,
    value: &'static str,
    set: fn(&mut BenchOptions, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        value: Some(value),
        bench: Some(Set::Value(set)),
        ..bare(name)
    }
}

/// An option of `bench` that takes none.
pub(super) const fn bench_switch(name: &'static str, set: fn(&mut BenchOptions)) -> Flag {
    Flag {
        bench: Some(Set::Switch(set)),
        ..bare(name)
    }
}

/// An option of every mode that asks for a text.
pub(super) const fn information(name: &'static str, short: &'static str) -> Flag {
    Flag {
        short: Some(short),
        serve: Some(Set::Information),
        connect: Some(Set::Information),
        bench: Some(Set::Information),
        ..bare(name)
    }
}

const fn bare(name: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        value: None,
        default: DefaultText::Unsaid,
        example: None,
        help: "",
        serve: None,
        connect: None,
        bench: None,
        server: None,
        scope: Scope::Proxy,
        is_repeatable: false,
    }
}

impl Flag {
    pub(super) const fn and_server(
        mut self,
        set: fn(&mut ServerOptions, &str) -> Result<(), String>,
    ) -> Self {
        self.server = Some(Set::Value(set));
        self.scope = Scope::Server;
        self
    }

    pub(super) const fn and_server_switch(mut self, set: fn(&mut ServerOptions)) -> Self {
        self.server = Some(Set::Switch(set));
        self.scope = Scope::Server;
        self
    }

    pub(super) const fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    pub(super) const fn with_both_scopes(mut self) -> Self {
        self.scope = Scope::Both;
        self
    }

    pub(super) const fn and_connect(
        mut self,
        set: fn(&mut ConnectOptions, &str) -> Result<(), String>,
    ) -> Self {
        self.connect = Some(Set::Value(set));
        self
    }

    pub(super) const fn and_bench(
        mut self,
        set: fn(&mut BenchOptions, &str) -> Result<(), String>,
    ) -> Self {
        self.bench = Some(Set::Value(set));
        self
    }

    pub(super) const fn and_bench_switch(mut self, set: fn(&mut BenchOptions)) -> Self {
        self.bench = Some(Set::Switch(set));
        self
    }

    pub(super) const fn default(mut self, value: &'static str) -> Self {
        self.default = DefaultText::Value(value);
        self
    }

    pub(super) const fn default_is(mut self, words: &'static str) -> Self {
        self.default = DefaultText::Words(words);
        self
    }

    pub(super) const fn example(mut self, value: &'static str) -> Self {
        self.example = Some(value);
        self
    }

    pub(super) const fn help(mut self, text: &'static str) -> Self {
        self.help = text.trim_ascii();
        self
    }

    /// `--port PORT`
    pub(super) fn usage(&self) -> String {
        match self.value {
            Some(value) => format!("{} {value}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The help's first sentence, without its full stop and backticks.
    pub(super) fn brief(&self) -> String {
        let sentence = self.help.split(". ").next().unwrap_or_default();
        super::help::plain(sentence.trim_end_matches('.'))
    }

    /// The values that there are, if they are few.
    pub(super) fn choices(&self) -> Option<Vec<&'static str>> {
        let value = self.value.filter(|value| value.contains('|'))?;
        Some(value.split('|').collect())
    }

    /// The option that takes this one back; whichever comes last counts.
    pub(super) fn opposite(&self) -> String {
        match self.name.strip_prefix("--no-") {
            Some(name) => format!("--{name}"),
            None => self.name.replacen("--", "--no-", 1),
        }
    }
}

/// Adds a value that was read to those that were given before.
pub(super) fn add<T>(field: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    field.push(value?);
    Ok(())
}

/// Stores a value that was read.
pub(super) fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}
