//! Options of the serving side as keys of a configuration: `--idle-timeout` is `idleTimeout`, `--no-replay` is `replay`.

use super::flag::{Flag, Mode, Scope, Set};
use super::unknown;
use crate::options::{ServeOptions, ServerOptions};

/// An option as a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    name: String,
    on: Option<&'static str>,
    off: Option<&'static str>,
}

/// What the value of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Switch,
    Number,
    Text,
    /// Any number of texts.
    Texts,
}

/// What was given on the command line: names of options, with the values of those that take one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given(pub(super) Vec<(&'static str, Option<String>)>);

/// Options that are no keys: what they say is about the file itself, or for one command alone.
const NO_KEYS: [&str; 3] = ["--config", "--upgrade-from", "--watch"];

/// The values of a key; of a switch, `true` or `false`.
pub type Values = Vec<String>;

impl Given {
    /// Whether this option was given.
    pub fn has(&self, option: &str) -> bool {
        self.0.iter().any(|(name, _)| *name == option)
    }

    /// What this option was given last.
    pub fn value(&self, option: &str) -> Option<&str> {
        let mut all = self.0.iter().rev();
        let (_, value) = all.find(|(name, _)| *name == option)?;
        value.as_deref()
    }
}

impl Key {
    /// All keys, in the order of the options.
    pub fn all() -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        for flag in Mode::Serve.flags().filter(|flag| is_key(flag)) {
            let takes_back = flag.value.is_none() && flag.name.starts_with("--no-");
            let name = if takes_back {
                &flag.name[5..]
            } else {
                &flag.name[2..]
            };
            let name = camel_case(name);
            let at = keys.iter().position(|key| key.name == name);
            let at = at.unwrap_or_else(|| {
                let (on, off) = (None, None);
                keys.push(Self { name, on, off });
                keys.len() - 1
            });
            let side = if takes_back {
                &mut keys[at].off
            } else {
                &mut keys[at].on
            };
            *side = Some(flag.name);
        }
        keys
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> Kind {
        let flag = self.flag();
        match flag.value {
            None => Kind::Switch,
            Some("N" | "S" | "PORT") => Kind::Number,
            Some(_) if flag.is_repeatable => Kind::Texts,
            Some(_) => Kind::Text,
        }
    }

    /// Whether it is the path of a file or a folder.
    pub fn is_path(&self) -> bool {
        matches!(self.flag().value, Some("FILE" | "DIR"))
    }

    /// Whether a server may have its own.
    pub fn is_for_servers(&self) -> bool {
        self.flag().scope != Scope::Proxy
    }

    /// Whether it is about the proxy.
    pub fn is_for_proxy(&self) -> bool {
        self.flag().scope != Scope::Server
    }

    /// What the command line says of it.
    pub fn given(&self, given: &Given) -> Option<Values> {
        let all = given.0.iter().filter_map(|(name, value)| {
            let is_this = |side: Option<&str>| side == Some(name);
            match value {
                Some(value) => is_this(self.on).then(|| value.clone()),
                None if is_this(self.on) => Some("true".to_owned()),
                None => is_this(self.off).then(|| "false".to_owned()),
            }
        });
        let all: Values = all.collect();
        (!all.is_empty()).then_some(all)
    }

    /// Reads values into the options of the proxy. Errors complete the sentence "'x' is not …".
    pub fn set_proxy(&self, options: &mut ServeOptions, values: &[String]) -> Result<(), String> {
        self.set(values, options, |flag| flag.serve.as_ref())
    }

    /// The same for a server.
    pub fn set_server(&self, options: &mut ServerOptions, values: &[String]) -> Result<(), String> {
        self.set(values, options, |flag| flag.server.as_ref())
    }

    fn set<O: 'static>(
        &self,
        values: &[String],
        options: &mut O,
        set_of: impl Fn(&'static Flag) -> Option<&'static Set<O>>,
    ) -> Result<(), String> {
        for value in values {
            let side = match (self.kind(), value.as_str()) {
                (Kind::Switch, "false") => self.off,
                _ => self.on,
            };
            match side.and_then(find).and_then(&set_of) {
                Some(Set::Switch(set)) => set(options),
                Some(Set::Value(set)) => set(options, value)
                    .map_err(|cause| format!("{} is not {cause}", super::quoted(value.as_ref())))?,
                Some(Set::Information) | None => {}
            }
        }
        Ok(())
    }

    fn flag(&self) -> &'static Flag {
        let side = self.on.or(self.off).and_then(find);
        // There is no key without an option.
        side.unwrap_or(&super::flags::FLAGS[0])
    }
}

fn find(name: &str) -> Option<&'static Flag> {
    Mode::Serve.find(name.as_ref())
}

pub(super) fn is_key(flag: &Flag) -> bool {
    let is_read = !matches!(flag.serve, Some(Set::Information) | None);
    is_read && !NO_KEYS.contains(&flag.name)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

/// The one of `known` that was probably meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase().replace(['-', '_'], "");
    let known: Vec<&str> = known.collect();
    let same = known.iter().find(|name| name.to_ascii_lowercase() == lower);
    same.copied()
        .or_else(|| unknown::nearest(word, known.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        let mut all = Key::all().into_iter();
        all.find(|key| key.name() == name)
            .unwrap_or_else(|| panic!("{name}"))
    }

    #[test]
    fn every_option_is_a_key() {
        let keys = Key::all();
        for flag in Mode::Serve.flags().filter(|flag| is_key(flag)) {
            let sides = |key: &Key| key.on == Some(flag.name) || key.off == Some(flag.name);
            assert_eq!(
                keys.iter().filter(|key| sides(key)).count(),
                1,
                "{}",
                flag.name
            );
        }
        for (name, kind) in [
            ("idleTimeout", Kind::Number),
            ("maxSessionsPerAddress", Kind::Number),
            ("port", Kind::Number),
            ("spawn", Kind::Text),
            ("unixMode", Kind::Text),
            ("listen", Kind::Texts),
            ("allow", Kind::Texts),
            ("envFile", Kind::Texts),
            ("tlsClientCa", Kind::Text),
            ("autoRestart", Kind::Switch),
            ("replay", Kind::Switch),
            ("clearEnv", Kind::Switch),
        ] {
            assert_eq!(key(name).kind(), kind, "{name}");
        }
        let named = |name: &str| keys.iter().any(|key| key.name() == name);
        for no_key in ["config", "help", "noReplay", "version", "watch"] {
            assert!(!named(no_key), "{no_key}");
        }
    }

    #[test]
    fn scopes_are_those_of_the_options() {
        let scopes = |name: &str| (key(name).is_for_proxy(), key(name).is_for_servers());
        for (name, expected) in [
            ("user", (true, false)),
            ("tokenFile", (true, false)),
            ("idleTimeout", (false, true)),
            ("listen", (true, true)),
            ("maxSessions", (true, true)),
        ] {
            assert_eq!(scopes(name), expected, "{name}");
        }
        assert!(key("tokenFile").is_path() && key("cwd").is_path() && !key("spawn").is_path());
    }

    #[test]
    fn switches_are_set_and_taken_back() {
        let mut options = ServerOptions::default();
        let mut set = |name: &str, value: &str| {
            key(name)
                .set_server(&mut options, &[value.to_owned()])
                .unwrap();
            (options.auto_restart, options.replay, options.clear_env)
        };
        assert_eq!(set("autoRestart", "false"), (false, true, false));
        assert_eq!(set("autoRestart", "true"), (true, true, false));
        assert_eq!(set("replay", "true"), (true, true, false));
        assert_eq!(set("replay", "false"), (true, false, false));
        assert_eq!(set("clearEnv", "false"), (true, false, false));
        assert_eq!(set("clearEnv", "true"), (true, false, true));
        let bad = key("spawn").set_server(&mut options, &["warm".to_owned()]);
        let bad = bad.unwrap_err();
        assert!(bad.starts_with("'warm' is not a start mode"), "{bad}");
    }

    #[test]
    fn a_key_knows_what_was_given() {
        let given = Given(vec![
            ("--listen", Some("127.0.0.1:1".to_owned())),
            ("--no-replay", None),
            ("--listen", Some("127.0.0.1:2".to_owned())),
        ]);
        let listens = ["127.0.0.1:1", "127.0.0.1:2"].map(str::to_owned);
        assert_eq!(key("listen").given(&given), Some(listens.into()));
        assert_eq!(key("replay").given(&given), Some(vec!["false".to_owned()]));
        assert_eq!(key("autoRestart").given(&given), None);
    }

    #[test]
    fn the_nearest_key_is_found_in_other_spellings() {
        let keys = Key::all();
        let nearest = |word| nearest(word, keys.iter().map(Key::name));
        for (word, meant) in [
            ("idle_timeout", Some("idleTimeout")),
            ("idle-timeout", Some("idleTimeout")),
            ("IdleTimeout", Some("idleTimeout")),
            ("idelTimeout", Some("idleTimeout")),
            ("tokenfile", Some("tokenFile")),
            ("banana", None),
        ] {
            assert_eq!(nearest(word), meant, "{word}");
        }
    }
}
