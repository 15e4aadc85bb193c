//! Makes the answers that tell of sessions: a piece at a time, each within a budget.

use super::Proxy;
use super::status::StatusService;
use super::system::System;
use crate::scheduler::SessionKey;
use crate::status::facts::Gauges;
use crate::status::response::{Kind, Status, head};
use crate::status::route::Route;
use crate::status::{json, metrics, page};

/// To tell of all but the sessions.
const COST_OF_FACTS: usize = 512;

/// To tell of a session.
const COST_OF_JSON: usize = 4;

/// The same on the page.
const COST_OF_ROW: usize = 16;

/// An answer that is made in pieces.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) route: Route,
    pub(super) is_head: bool,
    stage: Stage,
    /// The key of the session that is next.
    next: usize,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// What sessions have said so far.
    Counting(Vec<Gauges>),
    /// Sessions so far.
    Telling(usize),
}

impl Job {
    /// Nothing was made yet.
    pub(super) fn new(route: Route, is_head: bool) -> Self {
        Self {
            route,
            is_head,
            stage: Stage::Counting(Vec::new()),
            next: 0,
        }
    }
}

/// A piece of an answer.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) is_last: bool,
}

impl<S: System> Proxy<S> {
    /// Makes a piece, if the budget is enough for one.
    pub(super) fn make(
        &self,
        status: &StatusService<S>,
        job: &mut Job,
        budget: &mut usize,
    ) -> Option<Piece> {
        match job.stage {
            Stage::Counting(_) => self.count(status, job, budget),
            Stage::Telling(_) => self.tell_of_sessions(job, budget),
        }
    }

    /// Looks at sessions. After the last session comes the beginning of the answer.
    fn count(&self, status: &StatusService<S>, job: &mut Job, budget: &mut usize) -> Option<Piece> {
        let Stage::Counting(gauges) = &mut job.stage else {
            return None;
        };
        gauges.resize(self.services.keys().count(), Gauges::default());
        let end = self.scheduler.end_of_keys();
        let upto = end.min(job.next + *budget);
        for key in job.next..upto {
            let key = SessionKey(key);
            if let (Some(session), Some(place)) =
                (self.scheduler.session(key), self.scheduler.place(key))
            {
                let gauges = &mut gauges[place.service().0];
                gauges.in_flight += session.requests_in_flight() as u64;
                gauges.hibernating += u64::from(session.is_hibernating());
                gauges.detached += u64::from(session.is_detached());
            }
        }
        *budget -= upto.saturating_sub(job.next);
        job.next = job.next.max(upto);
        if job.next < end || *budget < COST_OF_FACTS {
            return None;
        }
        *budget -= COST_OF_FACTS;
        let facts = self.facts(status, gauges);
        let (kind, body, window) = match &job.route {
            Route::Metrics => (Kind::Metrics, metrics::text(&facts), None),
            Route::Json(window) => {
                let body = json::beginning(&facts, window.has_history);
                (Kind::Json, body, Some(window))
            }
            Route::Page(window) => (Kind::Html, page::beginning(&facts), Some(window)),
            Route::Health | Route::Ready(_) => return None,
        };
        let policy = (kind == Kind::Html).then(page::policy);
        let length = window.is_none().then_some(body.len());
        let mut text = head(Status::Ok, kind, length, policy);
        if !job.is_head {
            text.push_str(&body);
        }
        job.next = window.map_or(0, |window| window.from);
        job.stage = Stage::Telling(0);
        let is_last = job.is_head || window.is_none();
        Some(Piece { text, is_last })
    }

    /// Tells of some sessions, and at last what follows them.
    fn tell_of_sessions(&self, job: &mut Job, budget: &mut usize) -> Option<Piece> {
        let Stage::Telling(mut told) = job.stage else {
            return None;
        };
        let (limit, is_page) = match job.route {
            Route::Json(window) => (window.limit, false),
            Route::Page(window) => (window.limit, true),
            Route::Health | Route::Ready(_) | Route::Metrics => return None,
        };
        let cost = if is_page { COST_OF_ROW } else { COST_OF_JSON };
        let mut text = String::new();
        let end = self.scheduler.end_of_keys();
        while told < limit && job.next < end && *budget >= cost {
            if let Some(session) = self.session_facts(job.next) {
                *budget -= cost;
                if is_page {
                    page::push_session(&mut text, &session);
                } else {
                    json::push_session(&mut text, &session, told == 0);
                }
                told += 1;
            } else {
                *budget -= 1;
            }
            job.next += 1;
        }
        job.stage = Stage::Telling(told);
        let is_last = told == limit || job.next >= end;
        if is_last {
            let next = (job.next < end).then_some(job.next);
            let next = next.filter(|next| (*next..end).any(|key| self.has_session(key)));
            text.push_str(&if is_page {
                page::end(next)
            } else {
                json::end(next)
            });
        }
        (is_last || !text.is_empty()).then_some(Piece { text, is_last })
    }

    fn has_session(&self, key: usize) -> bool {
        let session = self.scheduler.session(SessionKey(key));
        session.is_some_and(|session| !session.was_refused())
    }
}
