//! What the demo server has not answered yet: calls of `sleep`, and the batches that wait for them.
//! `now` is a parameter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::answer;
use super::json::{quoted, same_value};
use super::message::Era;

/// Names a batch; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchNumber(u64);

#[derive(Default)]
pub(super) struct Pending {
    /// Ordered by when they end; the number tells apart what ends at the same time.
    sleeps: BTreeMap<(Instant, u64), Sleep>,
    /// The answers that batches already have.
    batches: BTreeMap<BatchNumber, Vec<u8>>,
    last_number: u64,
}

/// A call of `sleep` that waits for its answer.
pub(super) struct Sleep {
    pub(super) id: Box<RawValue>,
    pub(super) era: Era,
    pub(super) duration: Duration,
    /// The batch that the answer belongs to.
    pub(super) batch: Option<BatchNumber>,
}

impl Pending {
    pub(super) fn new_batch(&mut self) -> BatchNumber {
        BatchNumber(self.next_number())
    }

    pub(super) fn add_sleep(&mut self, sleep: Sleep, now: Instant) {
        let key = (now + sleep.duration, self.next_number());
        self.sleeps.insert(key, sleep);
    }

    /// `answers` are separated by commas. [`Pending::finish_batches`] writes them when they are all there.
    pub(super) fn add_batch(&mut self, number: BatchNumber, answers: Vec<u8>) {
        self.batches.insert(number, answers);
    }

    /// When [`Pending::fire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sleeps.first_key_value().map(|(&(until, _), _)| until)
    }

    /// Appends answers to the calls that have slept enough to `out`, as lines.
    pub(super) fn fire(&mut self, now: Instant, out: &mut Vec<u8>) {
        while let Some(entry) = self.sleeps.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let sleep = entry.remove();
            if let Some(answers) = sleep.batch.and_then(|batch| self.batches.get_mut(&batch)) {
                add_to_batch(answers, |out| sleep.answer(out));
            } else {
                sleep.answer(out);
                out.push(b'\n');
            }
        }
        self.finish_batches(out);
    }

    /// Drops the calls of this id.
    pub(super) fn cancel(&mut self, id: &RawValue) {
        self.sleeps.retain(|_, sleep| !same_value(&sleep.id, id));
    }

    /// Appends the batches of which no call sleeps any more to `out`, as lines. JSON-RPC 2.0, section 6:
    /// one array with all answers, in any order; nothing at all if there are none.
    pub(super) fn finish_batches(&mut self, out: &mut Vec<u8>) {
        let sleeps = &self.sleeps;
        self.batches.retain(|&batch, answers| {
            let sleeping = sleeps.values().any(|sleep| sleep.batch == Some(batch));
            if !sleeping && !answers.is_empty() {
                out.push(b'[');
                out.append(answers);
                out.extend_from_slice(b"]\n");
            }
            sleeping
        });
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sleeps.is_empty() && self.batches.is_empty()
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Sleep {
    fn answer(&self, out: &mut Vec<u8>) {
        let slept = format!("slept for {} s", self.duration.as_secs_f64());
        answer::text(out, self.id.get(), self.era, &quoted(&slept));
    }
}

/// Appends what `write` writes to a batch's answers, with a comma before it if needed.
pub(super) fn add_to_batch(answers: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let before = answers.len();
    if before > 0 {
        answers.push(b',');
    }
    let start = answers.len();
    write(answers);
    if answers.len() == start {
        answers.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_answers_only() {
        let mut answers = Vec::new();
        for piece in ["", "a", "", "b", ""] {
            add_to_batch(&mut answers, |out| out.extend_from_slice(piece.as_bytes()));
        }
        assert_eq!(answers, b"a,b");
    }

    #[test]
    fn sleeps_that_end_together_are_all_answered() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for id in ["1", "2", "3"] {
            let sleep = Sleep {
                id: RawValue::from_string(id.to_owned()).unwrap(),
                era: Era::Legacy,
                duration: Duration::ZERO,
                batch: None,
            };
            pending.add_sleep(sleep, now);
        }
        assert_eq!(pending.next_deadline(), Some(now));
        let mut out = Vec::new();
        pending.fire(now, &mut out);
        assert_eq!(out.split(|&byte| byte == b'\n').count(), 4);
        assert_eq!(pending.next_deadline(), None);
    }
}
