//! The lists that a server has said it tells the changes of. Another server may have other lists, so after a replay the client
//! is told to fetch them anew.

use serde::{Deserialize, Serialize};

use super::client_side::OwnLine;
use super::{Context, Session};
use crate::protocol::json;

const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// For each of the lists, whether its changes are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Declared([bool; LISTS.len()]);

impl Declared {
    /// Reads the result of an `initialize`.
    pub(super) fn of(result: &str) -> Self {
        let lists = || {
            let [capabilities] = json::find(result, ["capabilities"])?;
            let capabilities = result.get(capabilities?)?;
            let tells = |list: &str| {
                let [told] = json::find(list, ["listChanged"])?;
                Some(list.get(told?)? == "true")
            };
            let lists = json::find(capabilities, LISTS)?;
            Some(lists.map(|list| {
                let list = list.and_then(|list| capabilities.get(list));
                list.and_then(tells).unwrap_or(false)
            }))
        };
        Self(lists().unwrap_or_default())
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let lists = LISTS.iter().zip(self.0);
        lists.filter(|(_, tells)| *tells).map(|(list, _)| *list)
    }
}

impl Session {
    /// Tells the client that the lists may have changed, as its new server would.
    pub(super) fn tell_list_changes(&mut self, cx: &mut Context<'_>) {
        if !self.handshake.is_complete() {
            return;
        }
        for list in self.handshake.declared_lists().names() {
            let line =
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/{list}/list_changed"}}"#);
            self.own_line(&line, OwnLine::Other, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_declared_counts() {
        for (result, names) in [
            (
                r#"{"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true, "listChanged" : true }}}"#,
                vec!["tools", "resources"],
            ),
            (
                r#"{"capabilities":{"prompts":{"listChanged":true},"tools":{"listChanged":false}}}"#,
                vec!["prompts"],
            ),
            (r#"{"capabilities":{"tools":{},"prompts":7}}"#, vec![]),
            (r#"{"capabilities":null}"#, vec![]),
            ("7", vec![]),
        ] {
            assert_eq!(
                Declared::of(result).names().collect::<Vec<_>>(),
                names,
                "{result}"
            );
        }
    }
}
