//! The one resource of the demo server: a note, which a tool writes, and those who want to hear of it.

use std::io::Write as _;

use super::message::{self, Fault, INVALID_PARAMS, Object, fault};

pub(super) const URI: &str = "demo://note";

/// All resources, as a JSON array.
pub(super) const LIST: &str = r#"[{"uri":"demo://note","name":"note","description":"What the tool note has written last.","mimeType":"text/plain"}]"#;

/// A note. Whoever shares this server with others has it in common with them.
pub(super) struct Note {
    /// JSON, like all texts and ids here.
    text: String,
    /// Whether the client of a legacy session has subscribed to it.
    is_subscribed: bool,
    /// The ids of the modern requests to listen to it.
    listens: Vec<String>,
}

impl Default for Note {
    fn default() -> Self {
        Self {
            text: "\"\"".to_owned(),
            is_subscribed: false,
            listens: Vec::new(),
        }
    }
}

impl Note {
    /// Writes it, and has all who want to hear of that be told.
    pub(super) fn write(&mut self, text: &str, out: &mut Vec<u8>) {
        text.clone_into(&mut self.text);
        let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"#;
        // A `Vec` takes everything.
        if self.is_subscribed {
            let _ = writeln!(out, r#"{updated}"uri":"{URI}"}}}}"#);
        }
        for id in &self.listens {
            let _ = writeln!(
                out,
                r#"{updated}"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"uri":"{URI}"}}}}"#
            );
        }
    }

    /// The members of the result of `resources/read`.
    pub(super) fn read(&self, params: &Object) -> Result<String, Fault> {
        names_it(params)?;
        let text = &self.text;
        Ok(format!(
            r#""contents":[{{"uri":"{URI}","mimeType":"text/plain","text":{text}}}]"#
        ))
    }

    /// The client of a legacy session wants to hear of it from now on, or no more.
    pub(super) fn subscribe(&mut self, params: &Object, wants: bool) -> Result<(), Fault> {
        names_it(params)?;
        self.is_subscribed = wants;
        Ok(())
    }

    /// A request to listen names what it wants to hear of. Returns whether that is the note.
    pub(super) fn listen(&mut self, id: &str, wanted: &Object) -> bool {
        let uris = wanted.given("resourceSubscriptions");
        let uris = uris.and_then(|uris| serde_json::from_str::<Vec<String>>(uris.get()).ok());
        let is_wanted = uris.is_some_and(|uris| uris.iter().any(|uri| uri == URI));
        if is_wanted {
            self.listens.push(id.to_owned());
        }
        is_wanted
    }

    /// A request was taken back.
    pub(super) fn cancel(&mut self, id: &str) {
        self.listens.retain(|other| !message::same_value(other, id));
    }
}

fn names_it(params: &Object) -> Result<(), Fault> {
    match params.string("uri") {
        Some(uri) if uri == URI => Ok(()),
        Some(uri) => Err(fault(INVALID_PARAMS, format!("Unknown resource: {uri}"))),
        None => Err(fault(INVALID_PARAMS, "uri is missing or not a string")),
    }
}
