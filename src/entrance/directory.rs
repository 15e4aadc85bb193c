//! Which servers there are to be asked for, by their names.

use super::identity::Name;
use super::tokens::DEFAULT_SERVER;
use crate::util::service_key::ServiceKey;

/// The servers that clients can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// `None`: what is served has no name, or there is nothing under this key any more.
    names: Vec<Option<Name>>,
    /// The one for whoever names none.
    fallback: Option<ServiceKey>,
}

/// One server, which has no name.
impl Default for Directory {
    fn default() -> Self {
        Self::only()
    }
}

impl Directory {
    /// One server, which nobody has to ask for.
    pub fn only() -> Self {
        Self {
            names: vec![None],
            fallback: Some(ServiceKey::ONLY),
        }
    }

    /// Several, by their keys. `default` is for whoever names none; without it, the only one is, if it is.
    pub fn new(names: Vec<Option<Name>>, default: Option<ServiceKey>) -> Self {
        let mut all = names.iter().enumerate().filter(|(_, name)| name.is_some());
        let first = all.next().map(|(key, _)| ServiceKey(key));
        let only = first.filter(|_| all.next().is_none());
        Self {
            fallback: default.or(only),
            names,
        }
    }

    /// Whether a client has to say which server it wants, or may.
    pub fn is_choice(&self) -> bool {
        self.names.iter().flatten().count() > 1
    }

    /// Whether this is its name, or it has none.
    pub(super) fn is(&self, key: ServiceKey, name: &str) -> bool {
        let known = self.names.get(key.0).and_then(Option::as_ref);
        known.is_none_or(|known| known.as_str() == name)
    }

    /// The one that is asked for. Whatever name is asked for where nothing has one, it is that.
    pub(super) fn find(&self, name: Option<&str>) -> Option<ServiceKey> {
        let Some(name) = name.filter(|_| self.names.iter().any(Option::is_some)) else {
            return self.fallback;
        };
        let is_this = |known: &Option<Name>| known.as_ref().is_some_and(|it| it.as_str() == name);
        self.names.iter().position(is_this).map(ServiceKey)
    }

    /// What a token file calls it.
    pub fn name(&self, key: ServiceKey) -> &str {
        let name = self.names.get(key.0).and_then(Option::as_ref);
        name.map_or(DEFAULT_SERVER, Name::as_str)
    }

    /// All names, as token files have them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let unnamed = self.names.iter().all(Option::is_none);
        let names = self.names.iter().flatten().map(Name::as_str);
        names.chain(unnamed.then_some(DEFAULT_SERVER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(names: &[&str], default: Option<usize>) -> Directory {
        let names = names.iter().map(|name| Name::new(name));
        Directory::new(names.collect(), default.map(ServiceKey))
    }

    #[test]
    fn the_only_one_is_found_without_a_name() {
        let only = Directory::only();
        assert!(!only.is_choice());
        assert_eq!(only.find(None), Some(ServiceKey(0)));
        assert_eq!(
            only.find(Some("x")),
            Some(ServiceKey(0)),
            "nothing has a name"
        );
        assert_eq!(only.name(ServiceKey(0)), "default");
        let named = directory(&["", "git"], None);
        assert!(!named.is_choice());
        assert_eq!(named.find(None), Some(ServiceKey(1)));
        assert_eq!(named.find(Some("git")), Some(ServiceKey(1)));
        assert_eq!(named.find(Some("x")), None);
        assert_eq!(named.names().collect::<Vec<_>>(), ["git"]);
    }

    #[test]
    fn of_several_one_is_asked_for_by_name_or_is_the_default() {
        let all = directory(&["time", "git"], None);
        assert!(all.is_choice());
        assert_eq!(all.find(None), None);
        assert_eq!(all.find(Some("git")), Some(ServiceKey(1)));
        assert_eq!(all.find(Some("default")), None);
        let all = directory(&["time", "git"], Some(1));
        assert_eq!(all.find(None), Some(ServiceKey(1)));
        assert_eq!(all.find(Some("time")), Some(ServiceKey(0)));
        assert_eq!(all.find(Some("")), None);
    }
}
