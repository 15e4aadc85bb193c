//! What a visitor is told that is not let in, and when.

use std::fmt::Display;
use std::time::Duration;

use super::{Scene, Stage, Step, Visitor};
use crate::entrance::refusal::Refusal;
use crate::protocol::own_messages::{self, HTTP_RESPONSE, Loss};
use crate::protocol::recogniser::Protocol;

/// How long whoever fails often waits for the next refusal: nobody guesses much at that rate, and a person hardly notices.
const DELAY: Duration = Duration::from_secs(1);

/// After the end of our side a visitor has this long to end its own before it is cut off. The same as for a session.
const LINGER_TIME: Duration = Duration::from_secs(1);

impl Visitor {
    /// What it is told that has to make room at once.
    pub(in crate::entrance) fn farewell(&mut self) -> Option<String> {
        match &mut self.stage {
            Stage::FirstLine(_) => Some(error_line(None, Refusal::Displaced)?),
            Stage::Delayed(answer) => Some(std::mem::take(answer)),
            _ => None,
        }
    }

    /// Refuses whoever has no right token: later, if there were too many of them.
    pub(super) fn refuse_token(
        &mut self,
        refusal: Refusal,
        id: Option<&dyn Display>,
        scene: &mut Scene<'_>,
    ) -> Step {
        let has_to_wait = scene.failures.note(self.address().origin(), scene.now);
        if !has_to_wait {
            return self.refuse(refusal, id, scene);
        }
        scene.refusal = Some(refusal);
        self.stage = Stage::Delayed(error_line(id, refusal).unwrap_or_default());
        self.deadline = scene.now + DELAY;
        Step::Wait
    }

    /// Refuses whoever can be told so.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        id: Option<&dyn Display>,
        scene: &mut Scene<'_>,
    ) -> Step {
        scene.refusal = Some(refusal);
        self.answer(error_line(id, refusal).unwrap_or_default(), scene)
    }

    pub(super) fn refuse_protocol(&mut self, protocol: Protocol, scene: &mut Scene<'_>) -> Step {
        scene.refusal = Some(Refusal::OtherProtocol(protocol));
        let answer = match protocol {
            Protocol::Http => format!("{HTTP_RESPONSE}\n"),
            Protocol::Tls | Protocol::Proxy | Protocol::Ssh => String::new(),
        };
        self.answer(answer, scene)
    }

    pub(super) fn answer(&mut self, answer: String, scene: &Scene<'_>) -> Step {
        self.stage = Stage::Lingering(0);
        self.deadline = scene.now + LINGER_TIME;
        Step::Answer(answer)
    }
}

pub(super) fn refuse_silently(refusal: Refusal, scene: &mut Scene<'_>) -> Step {
    scene.refusal = Some(refusal);
    Step::Close
}

/// The line, with its line end, that tells a client why it is not let in.
fn error_line(id: Option<&dyn Display>, refusal: Refusal) -> Option<String> {
    let error = refusal.error()?;
    let mut line = own_messages::error(id, error, refusal.message(), Loss::default());
    line.push('\n');
    Some(line)
}
