//! What a server has answered to `initialize`, as all get it who share its processes.

use serde::{Deserialize, Serialize};

use super::edit::Edits;
use crate::protocol::id::RequestId;
use crate::protocol::strict;
use crate::session::Agreement;

/// The longest answer to `initialize` that is kept, in bytes.
const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// What no client of a shared process can have: tasks are one client's, and messages for the log may be another's.
const WITHHELD: [&str; 2] = ["tasks", "logging"];

/// What a server has answered to `initialize`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// As the clients get it.
    result: String,
    pub(super) agreement: Agreement,
}

impl Record {
    /// Reads the answer of a server. Fails without a reason if it is an error.
    pub(super) fn of(line: &[u8]) -> Result<Self, Option<&'static str>> {
        let doubled = |_| "the server's answer to initialize can be read in two ways";
        let result = strict::members(line, 0..line.len(), ["result"]).map_err(doubled);
        let [result] = result.map_err(Some)?;
        let result = &line[result.ok_or(None)?.value];
        if result.len() > MAX_RESULT_BYTES {
            return Err(Some(
                "the server's answer to initialize is longer than 1 MiB",
            ));
        }
        let result = without_withheld(result.to_vec())
            .map_err(doubled)
            .map_err(Some)?;
        let unusable = "the server's answer to initialize can't be used";
        let result = String::from_utf8(result).map_err(|_| Some(unusable))?;
        let agreement = Agreement::of(&result).ok_or(Some(unusable))?;
        Ok(Self { result, agreement })
    }

    /// The answer to the request of this id.
    pub(super) fn line(&self, id: &RequestId) -> Vec<u8> {
        let result = &self.result;
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n").into_bytes()
    }
}

/// Takes capabilities out that clients of shared processes don't have.
fn without_withheld(mut result: Vec<u8>) -> Result<Vec<u8>, strict::Doubled> {
    for name in WITHHELD {
        let [capabilities] = strict::members(&result, 0..result.len(), ["capabilities"])?;
        let object = capabilities.map(|found| found.value).unwrap_or_default();
        if let [Some(member)] = strict::members(&result, object, [name])? {
            let mut edits = Edits::default();
            edits.remove(&result, &member);
            result = edits.apply(&result);
            result.pop();
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_single_clients_is_cut_out_of_the_capabilities() {
        for (result, left) in [
            (
                r#"{"capabilities":{"tasks":{"list":{}},"tools":{},"logging":{}},"logging":1}"#,
                r#"{"capabilities":{"tools":{}},"logging":1}"#,
            ),
            (
                r#"{"capabilities":{"logging":{},"tasks":{}}}"#,
                r#"{"capabilities":{}}"#,
            ),
            (
                r#"{"capabilities":{ "tools" : {} }}"#,
                r#"{"capabilities":{ "tools" : {} }}"#,
            ),
            ("{}", "{}"),
        ] {
            let cut = without_withheld(result.into()).unwrap();
            assert_eq!(String::from_utf8(cut).unwrap(), left);
        }
    }

    #[test]
    fn an_answer_is_a_result_that_can_be_compared() {
        let of = |line: &str| Record::of(line.as_bytes()).map(|record| record.result);
        assert_eq!(
            of(r#"{"id":1,"result":{"x":1}}"#),
            Ok(r#"{"x":1}"#.to_owned())
        );
        assert_eq!(of(r#"{"id":1,"error":{}}"#), Err(None));
        for line in [
            r#"{"id":1,"result":[]}"#,
            r#"{"id":1,"result":{"capabilities":{"tasks":1,"Tasks":2}}}"#,
        ] {
            assert!(matches!(of(line), Err(Some(_))), "{line}");
        }
    }
}
