//! Which server a visitor gets, and whether it may: by the door that it came in by, by what it says in its first line, by
//! its token and its certificate.

use super::{Refusal, Rules, Said, Scene, Step, Visitor};
use crate::entrance::identity::Name;
use crate::util::service_key::ServiceKey;

impl Visitor {
    pub(super) fn is_asked_for_token(&self, rules: &Rules) -> bool {
        rules.wants_token(self.address(), self.certificate.is_some())
    }

    /// Whether its first line has to be seen: for a token in it, or for the name of a server.
    pub(super) fn is_asked_for_line(&self, rules: &Rules) -> bool {
        self.is_asked_for_token(rules) || rules.leave_choice(self.door)
    }

    /// The server that it gets whatever it says.
    pub(super) fn known_service(&self, rules: &Rules) -> Option<ServiceKey> {
        if rules.leave_choice(self.door) {
            return None;
        }
        self.door.or_else(|| rules.servers.find(None))
    }

    /// Whether its certificate, if it has shown one, is good for this server.
    pub(super) fn may_use(&self, service: ServiceKey, rules: &Rules) -> bool {
        let limits = self.certificate.as_ref().zip(rules.tokens.as_ref());
        let server = rules.servers.name(service);
        limits.is_none_or(|(name, tokens)| tokens.allows_certificate(name, server))
    }

    /// Which server it gets by what it says, and by which name. Whoever has no right token does not learn which servers
    /// there are.
    pub(super) fn judge_said(
        &self,
        said: &Said,
        rules: &Rules,
    ) -> Result<(ServiceKey, Option<Name>), Refusal> {
        let shown = if self.is_asked_for_token(rules) {
            let token = said.token.as_ref().ok_or(Refusal::NoToken)?;
            let tokens = rules.tokens.as_ref();
            let found = tokens.and_then(|tokens| tokens.find(token));
            Some(found.ok_or(Refusal::WrongToken)?)
        } else {
            None
        };
        let asked = said.server.as_deref();
        let service = match self.door {
            Some(door) => asked
                .is_none_or(|name| rules.servers.is(door, name))
                .then_some(door),
            None => rules.servers.find(asked),
        };
        let service = service.ok_or(Refusal::UnknownServer)?;
        let server = rules.servers.name(service);
        let is_good = shown.is_none_or(|(_, servers)| servers.allows(server));
        if !is_good || !self.may_use(service, rules) {
            return Err(Refusal::Forbidden);
        }
        Ok((service, shown.map(|(name, _)| name.clone())))
    }

    /// It comes in without a first line.
    pub(super) fn admit_unasked(&mut self, early: Vec<u8>, scene: &mut Scene<'_>) -> Step {
        let service = self.door.or_else(|| scene.rules.servers.find(None));
        let Some(service) = service else {
            return self.refuse(Refusal::UnknownServer, None, scene);
        };
        if !self.may_use(service, scene.rules) {
            return self.refuse(Refusal::Forbidden, None, scene);
        }
        self.admit(service, None, early)
    }
}
