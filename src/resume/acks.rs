//! When an acknowledgement is due: after some lines, after some bytes, or some time after the first line that was not
//! acknowledged. An idle session owes none.
//!
//! One that costs a write of its own costs both ends a wake-up, too. So it goes along with lines that are written anyway, if
//! there are any soon: first it is *ripe*, and then *due*.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ACK_BYTES;
use crate::util::time::Time;

/// Lines after which one is ripe: so many that acknowledgements cost next to nothing.
const LINES: u32 = 64;

/// Bytes after which one is ripe: twice in the least that anybody may keep.
const BYTES: usize = 32 * 1024;

/// How long a ripe one waits for lines to go along with: whoever keeps as little as anybody may is to wait no longer.
const GRACE: Duration = Duration::from_millis(10);

/// One is due after as much as a window divided by this: whoever sends all the time is never to wait.
const SHARE_OF_WINDOW: usize = 4;

/// The time after which one is due: what is kept is let go of soon, when a session comes to rest.
const DELAY: Duration = Duration::from_secs(1);

/// How far apart the places are of which it is known how many lines have ended before them, in bytes.
const STEP_BYTES: usize = 16 * 1024;

/// The most of them: more than a window holds.
const MAX_PLACES: usize = 256;

/// What was taken and is not acknowledged. It is small, and in no piece of memory of its own: nearly every line changes it.
///
/// While much waits for the other side of the session, as much of the end of it is not acknowledged, but what came before is:
/// else nothing would be for as long as more comes, until the window is full and all stand still.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Acks {
    /// When one is due, if there is anything.
    due_at: Time,
    /// How many lines it is, and how many bytes have come since the last one that the other end was told of.
    lines: u32,
    bytes: u32,
    /// Some places in that, if it is much.
    #[serde(default)]
    places: Option<Box<Places>>,
}

/// In their order.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Places(Vec<Place>);

/// So many lines have come to their ends in so many bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Place {
    lines: u32,
    bytes: u32,
}

impl Place {
    fn is_ripe(self, window: usize) -> bool {
        self.lines >= LINES || self.bytes() >= BYTES.min(window / SHARE_OF_WINDOW)
    }

    fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// How many lines are to be acknowledged.
    pub(super) fn lines(self) -> u32 {
        self.lines
    }
}

impl Acks {
    /// So many bytes were taken, in which so many lines have come to their ends that are to be acknowledged.
    pub fn taken(&mut self, bytes: usize, lines: u64, window: usize, now: Time) {
        if self.is_none() {
            self.due_at = now + DELAY;
        }
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.lines = self.lines.saturating_add(lines);
        self.bytes = self.bytes.saturating_add(bytes);
        self.note_place();
        self.hurry_if_ripe(window, now);
    }

    fn is_none(&self) -> bool {
        self.lines == 0 && self.bytes == 0
    }

    fn end(&self) -> Place {
        let (lines, bytes) = (self.lines, self.bytes);
        Place { lines, bytes }
    }

    fn places(&self) -> &[Place] {
        self.places.as_ref().map_or(&[], |places| &places.0)
    }

    /// Notes how far it is, if the last such place is far from here, and more lines have ended since.
    fn note_place(&mut self) {
        let (end, places) = (self.end(), self.places());
        let (lines, bytes) = places.last().map_or((0, 0), |it| (it.lines, it.bytes()));
        let is_news = end.lines > lines && end.bytes() - bytes >= STEP_BYTES;
        if is_news && places.len() < MAX_PLACES {
            self.places.get_or_insert_default().0.push(end);
        }
    }

    fn hurry_if_ripe(&mut self, window: usize, now: Time) {
        if self.end().is_ripe(window) {
            self.due_at = self.due_at.min(now + GRACE);
        }
    }

    /// Up to where it may be acknowledged when so much waits, if there is any news in that.
    fn allowed(&self, waiting: usize) -> Option<Place> {
        let place = if waiting <= ACK_BYTES {
            self.end()
        } else {
            let gone = self.end().bytes().checked_sub(waiting)?;
            let places = self.places();
            let count = places.partition_point(|place| place.bytes() <= gone);
            *places[..count].last()?
        };
        (place.lines > 0).then_some(place)
    }

    /// How many lines the other end was not told of.
    pub fn untold(&self) -> u64 {
        self.lines.into()
    }

    /// The other end is told of all.
    pub fn told(&mut self) {
        *self = Self::default();
    }

    /// The other end is told of the first lines, this many.
    pub fn told_of(&mut self, lines: u32, window: usize, now: Time) {
        if lines >= self.lines {
            return self.told();
        }
        // Where they end is known in steps: what is left may be taken for less than it is, but not for more, as whoever has
        // sent more than the window allows is sent away.
        let mut gone = self.bytes;
        if let Some(Places(places)) = self.places.as_deref_mut() {
            let next = places.partition_point(|place| place.lines < lines);
            gone = places.get(next).map_or(gone, |place| place.bytes);
            places.retain_mut(|place| {
                place.bytes = place.bytes.saturating_sub(gone);
                place.lines = place.lines.saturating_sub(lines);
                place.bytes > 0 && place.lines > 0
            });
        }
        (self.lines, self.bytes) = (self.lines - lines, self.bytes - gone);
        self.due_at = now + DELAY;
        self.hurry_if_ripe(window, now);
    }

    /// What to acknowledge if that is worth a few bytes in front of others. So much waits for the other side of the session.
    pub(super) fn ripe(&self, waiting: usize, window: usize, now: Time) -> Option<Place> {
        let place = self.allowed(waiting)?;
        (place.is_ripe(window) || self.due_at <= now).then_some(place)
    }

    /// The same if it is worth a write of its own.
    pub(super) fn due(&self, waiting: usize, window: usize, now: Time) -> Option<Place> {
        let place = self.allowed(waiting)?;
        let is_due = place.bytes() >= window / SHARE_OF_WINDOW || self.due_at <= now;
        is_due.then_some(place)
    }

    /// Whether more has come than the window allows, and more than one line.
    pub fn is_beyond(&self, window: usize) -> bool {
        self.end().bytes() > window && self.lines > 1
    }

    /// When one is due, if nothing more comes and nothing goes on.
    pub fn deadline(&self, waiting: usize) -> Option<Time> {
        self.allowed(waiting).map(|_| self.due_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);
    const WINDOW: usize = 1 << 20;

    fn ripe(acks: &Acks, waiting: usize, now: Time) -> Option<u32> {
        acks.ripe(waiting, WINDOW, now).map(Place::lines)
    }

    fn due(acks: &Acks, waiting: usize, now: Time) -> Option<u32> {
        acks.due(waiting, WINDOW, now).map(Place::lines)
    }

    #[test]
    fn one_is_ripe_after_lines_and_after_bytes_and_due_a_little_later() {
        for (bytes, lines) in [(1, LINES), (BYTES, 2)] {
            let mut acks = Acks::default();
            assert!(ripe(&acks, 0, NOW).is_none() && acks.deadline(0).is_none());
            acks.taken(bytes - 1, u64::from(lines - 1), WINDOW, NOW);
            assert_eq!(ripe(&acks, 0, NOW), None);
            acks.taken(1, 1, WINDOW, NOW);
            assert_eq!(
                (ripe(&acks, 0, NOW), due(&acks, 0, NOW)),
                (Some(lines), None)
            );
            assert_eq!(acks.deadline(0), Some(NOW + GRACE));
            acks.taken(1, 1, WINDOW, NOW + GRACE / 2);
            assert_eq!(due(&acks, 0, NOW + GRACE), Some(lines + 1));
            acks.told();
            assert!(ripe(&acks, 0, NOW + DELAY).is_none() && acks.deadline(0).is_none());
        }
    }

    #[test]
    fn one_is_due_after_a_while_and_after_a_part_of_the_window() {
        let mut acks = Acks::default();
        acks.taken(10, 1, WINDOW, NOW);
        assert_eq!((ripe(&acks, 0, NOW), due(&acks, 0, NOW)), (None, None));
        assert_eq!(acks.deadline(0), Some(NOW + DELAY));
        assert_eq!(ripe(&acks, 0, NOW + DELAY), Some(1));
        assert_eq!(due(&acks, 0, NOW + DELAY), Some(1));
        acks.taken(WINDOW / SHARE_OF_WINDOW, 0, WINDOW, NOW);
        assert_eq!(due(&acks, 0, NOW), Some(1));
        acks.told();
        acks.taken(WINDOW, 0, WINDOW, NOW);
        assert_eq!(due(&acks, 0, NOW + DELAY), None, "there is no news");
        acks.told();
        acks.taken(1, 1, 4, NOW);
        assert!(acks.due(0, 4, NOW).is_some());
    }

    #[test]
    fn of_what_waits_nothing_is_acknowledged_but_what_went_on_before_is() {
        const PART: usize = 32 * 1024;
        let mut acks = Acks::default();
        for _ in 0..8 {
            acks.taken(PART, 10, WINDOW, NOW);
        }
        let mut told = |waiting, now| {
            let told = ripe(&acks, waiting, now);
            if let Some(lines) = told {
                acks.told_of(lines, WINDOW, now);
            }
            (told, acks.deadline(waiting), acks.is_beyond(ACK_BYTES))
        };
        assert_eq!(told(8 * PART, NOW), (None, None, true));
        assert_eq!(told(7 * PART + 1, NOW), (None, None, true));
        // It is told of once.
        assert_eq!(told(6 * PART - 1, NOW), (Some(20), None, true));
        assert_eq!(told(6 * PART - 1, NOW), (None, None, true));
        assert_eq!(told(3 * PART, NOW + DELAY), (Some(30), None, true));
        assert_eq!(told(2 * PART, NOW + DELAY), (Some(30), None, false));
    }

    #[test]
    fn what_is_left_of_it_is_due_a_little_later() {
        let mut acks = Acks::default();
        for _ in 0..6 {
            acks.taken(ACK_BYTES, 1, WINDOW, NOW);
        }
        let later = NOW + DELAY;
        assert_eq!(due(&acks, 3 * ACK_BYTES, NOW), None);
        assert_eq!(acks.deadline(3 * ACK_BYTES), Some(NOW + GRACE));
        assert_eq!(due(&acks, 3 * ACK_BYTES, later), Some(3));
        acks.told_of(3, WINDOW, later);
        assert_eq!(
            (due(&acks, 0, later), acks.deadline(0)),
            (None, Some(later + GRACE))
        );
        assert_eq!(due(&acks, 0, later + GRACE), Some(3));
        acks.told_of(3, WINDOW, later + GRACE);
        assert_eq!(acks.deadline(0), None);
    }

    #[test]
    fn a_line_without_an_end_and_lines_without_number_take_no_memory() {
        let mut acks = Acks::default();
        for _ in 0..1000 {
            acks.taken(STEP_BYTES, 0, WINDOW, NOW);
        }
        assert_eq!(acks.places().len(), 0);
        for _ in 0..1000 {
            acks.taken(STEP_BYTES, 1, WINDOW, NOW);
        }
        assert_eq!(acks.places().len(), MAX_PLACES);
    }

    #[test]
    fn what_is_left_of_it_is_never_taken_for_more_than_it_is() {
        const PART: usize = 10 * 1024;
        for (told, left) in [(1, 8), (2, 8), (3, 6), (4, 6), (9, 0)] {
            let mut acks = Acks::default();
            for _ in 0..10 {
                acks.taken(PART, 1, WINDOW, NOW);
            }
            acks.told_of(told, WINDOW, NOW);
            assert_eq!(acks.untold(), u64::from(10 - told));
            acks.taken(1, 2, WINDOW, NOW);
            assert!(acks.is_beyond(left * PART) && !acks.is_beyond(left * PART + 1));
            // Nor is any of it acknowledged too early.
            let ripe = ripe(&acks, ACK_BYTES + 1, NOW + DELAY);
            assert!(ripe.is_none_or(|lines| lines + told <= 4));
        }
    }
}
