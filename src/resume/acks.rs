//! When an acknowledgement is due: after some lines, after some bytes, or some time after the first line that was not
//! acknowledged. An idle session owes none.
//!
//! One that costs a write of its own costs both ends a wake-up, too. So it goes along with lines that are written anyway, if
//! there are any soon: first it is *ripe*, and then *due*.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ACK_BYTES;
use crate::util::time::Time;

/// Lines after which one is ripe: so many that acknowledgements cost next to nothing.
const LINES: u64 = 64;

/// Bytes after which one is ripe: twice in the least that anybody may keep.
const BYTES: usize = 32 * 1024;

/// How long a ripe one waits for lines to go along with: whoever keeps as little as anybody may is to wait no longer.
const GRACE: Duration = Duration::from_millis(10);

/// One is due after as much as a window divided by this: whoever sends all the time is never to wait.
const SHARE_OF_WINDOW: usize = 4;

/// The time after which one is due: what is kept is let go of soon, when a session comes to rest.
const DELAY: Duration = Duration::from_secs(1);

/// Of what went on while more waits, it is known in steps of this how many lines it was, in bytes.
const STEP_BYTES: usize = 16 * 1024;

/// What was taken and is not acknowledged. Costs next to nothing if that is nothing.
///
/// While much waits for the other side of the session, nothing of that is acknowledged, but what went on before it is: else
/// nothing would be for as long as more comes, until the window is full and all stand still.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Acks(Option<Box<Untold>>);

#[derive(Debug, Serialize, Deserialize)]
struct Untold {
    /// How many lines the other end was last told of.
    told: u64,
    bytes: usize,
    due_at: Time,
    /// How many lines the next acknowledgement is for, once it is to go.
    #[serde(default)]
    owed: Option<NonZeroU64>,
    /// Some places in that, if it is much.
    #[serde(default)]
    places: Option<Box<Places>>,
}

/// In their order.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Places(Vec<Place>);

/// So many lines have come to their ends in so many bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Place {
    lines: u64,
    bytes: usize,
}

impl Untold {
    fn new(told: u64, now: Time) -> Self {
        Self {
            told,
            bytes: 0,
            due_at: now + DELAY,
            owed: None,
            places: None,
        }
    }

    fn places(&self) -> &[Place] {
        self.places.as_ref().map_or(&[], |places| &places.0)
    }

    /// Notes that `lines` lines have come to their ends so far, if the last such place is far from here.
    fn note_place(&mut self, lines: u64) {
        let last = self.places().last().map_or(0, |place| place.bytes);
        if self.bytes - last >= STEP_BYTES {
            let bytes = self.bytes;
            let places = self.places.get_or_insert_default();
            places.0.push(Place { lines, bytes });
        }
    }

    /// Up to where it may be acknowledged when so much waits, if there is any news in that. `lines` were taken.
    fn allowed(&self, lines: u64, waiting: usize) -> Option<Place> {
        let bytes = self.bytes;
        let place = if waiting <= ACK_BYTES {
            Place { lines, bytes }
        } else {
            let gone = bytes.checked_sub(waiting)?;
            let places = self.places();
            let count = places.partition_point(|place| place.bytes <= gone);
            *places[..count].last()?
        };
        (place.lines > self.told).then_some(place)
    }

    fn is_ripe(&self, place: Place, window: usize) -> bool {
        place.lines - self.told >= LINES || place.bytes >= BYTES.min(window / SHARE_OF_WINDOW)
    }

    fn hurry_if_ripe(&mut self, lines: u64, window: usize, now: Time) {
        let bytes = self.bytes;
        if self.is_ripe(Place { lines, bytes }, window) {
            self.due_at = self.due_at.min(now + GRACE);
        }
    }

    /// The other end is told of all up to this line, which is not the last.
    fn told_of(&mut self, told: u64, lines: u64, window: usize, now: Time) {
        let mut gone = 0;
        if let Some(Places(places)) = self.places.as_deref_mut() {
            let count = places.partition_point(|place| place.lines <= told);
            gone = places.drain(..count).next_back().map_or(0, |it| it.bytes);
            for place in places {
                place.bytes -= gone;
            }
        }
        (self.told, self.bytes) = (told, self.bytes - gone);
        self.due_at = now + DELAY;
        self.hurry_if_ripe(lines, window, now);
    }
}

/// How many lines were taken, and how much waits for the other side of the session.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Lines that were taken.
    pub lines: u64,
    /// What waits, in bytes.
    pub waiting: usize,
}

impl Acks {
    /// So many bytes were taken, in lines that are to be acknowledged. Before them there were `before` lines, and now there
    /// are `lines`.
    pub fn taken(&mut self, bytes: usize, before: u64, lines: u64, window: usize, now: Time) {
        let new = || Box::new(Untold::new(before, now));
        let untold = self.0.get_or_insert_with(new);
        untold.bytes += bytes;
        untold.note_place(lines);
        untold.hurry_if_ripe(lines, window, now);
    }

    /// The other end is told of all.
    pub fn told(&mut self) {
        self.0 = None;
    }

    /// Has an acknowledgement go if one is worth a few bytes in front of others.
    pub fn owe_if_ripe(&mut self, progress: Progress, window: usize, now: Time) {
        let Progress { lines, waiting } = progress;
        if let Some(untold) = &mut self.0
            && let Some(place) = untold.allowed(lines, waiting)
            && (untold.is_ripe(place, window) || untold.due_at <= now)
        {
            untold.owed = NonZeroU64::new(place.lines);
        }
    }

    /// Has one go if it is worth a write of its own.
    pub fn owe_if_due(&mut self, progress: Progress, window: usize, now: Time) {
        if let Some(place) = self.due(progress, window, now)
            && let Some(untold) = &mut self.0
        {
            untold.owed = NonZeroU64::new(place.lines);
        }
    }

    /// Whether one is worth a write of its own.
    pub fn is_due(&self, progress: Progress, window: usize, now: Time) -> bool {
        self.due(progress, window, now).is_some()
    }

    fn due(&self, progress: Progress, window: usize, now: Time) -> Option<Place> {
        let untold = self.0.as_deref()?;
        let place = untold.allowed(progress.lines, progress.waiting)?;
        let is_due = place.bytes >= window / SHARE_OF_WINDOW || untold.due_at <= now;
        is_due.then_some(place)
    }

    /// Whether one is to go.
    pub fn is_owed(&self) -> bool {
        self.0.as_ref().is_some_and(|untold| untold.owed.is_some())
    }

    /// Takes the one that is to go: how many lines it is for. `lines` were taken.
    pub fn take_owed(&mut self, lines: u64, window: usize, now: Time) -> Option<u64> {
        let untold = self.0.as_mut()?;
        let owed = untold.owed.take()?.get();
        if owed < lines {
            untold.told_of(owed, lines, window, now);
        } else {
            self.told();
        }
        Some(owed)
    }

    /// None goes before more is known.
    pub fn forget_owed(&mut self) {
        if let Some(untold) = &mut self.0 {
            untold.owed = None;
        }
    }

    /// Whether more has come than the window allows, and more than one line. `lines` were taken.
    pub fn is_beyond(&self, window: usize, lines: u64) -> bool {
        let untold = self.0.as_ref();
        untold.is_some_and(|untold| untold.bytes > window && lines > untold.told + 1)
    }

    /// When one is due, if nothing more comes and nothing goes on.
    pub fn deadline(&self, progress: Progress) -> Option<Time> {
        let untold = self.0.as_ref()?;
        let place = untold.allowed(progress.lines, progress.waiting);
        place.map(|_| untold.due_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);
    const WINDOW: usize = 1 << 20;

    fn progress(lines: u64) -> Progress {
        Progress { lines, waiting: 0 }
    }

    fn is_ripe(acks: &mut Acks, lines: u64, now: Time) -> bool {
        acks.owe_if_ripe(progress(lines), WINDOW, now);
        let is_ripe = acks.is_owed();
        acks.forget_owed();
        is_ripe
    }

    #[test]
    fn one_is_ripe_after_lines_and_after_bytes_and_due_a_little_later() {
        for (bytes, lines) in [(1, LINES), (BYTES, 1)] {
            let mut acks = Acks::default();
            assert!(!is_ripe(&mut acks, 0, NOW) && acks.deadline(progress(0)).is_none());
            acks.taken(bytes - 1, 0, lines - 1, WINDOW, NOW);
            assert!(!is_ripe(&mut acks, lines - 1, NOW));
            acks.taken(1, lines - 1, lines, WINDOW, NOW);
            assert!(is_ripe(&mut acks, lines, NOW));
            assert!(!acks.is_due(progress(lines), WINDOW, NOW));
            assert_eq!(acks.deadline(progress(lines)), Some(NOW + GRACE));
            acks.taken(1, lines, lines + 1, WINDOW, NOW + GRACE / 2);
            assert!(acks.is_due(progress(lines + 1), WINDOW, NOW + GRACE));
            acks.told();
            assert!(!is_ripe(&mut acks, lines + 1, NOW + DELAY));
            assert!(acks.deadline(progress(lines + 1)).is_none());
        }
    }

    #[test]
    fn one_is_due_after_a_while_and_after_a_part_of_the_window() {
        let mut acks = Acks::default();
        acks.taken(10, 0, 1, WINDOW, NOW);
        assert!(!is_ripe(&mut acks, 1, NOW) && !acks.is_due(progress(1), WINDOW, NOW));
        assert_eq!(acks.deadline(progress(1)), Some(NOW + DELAY));
        assert!(is_ripe(&mut acks, 1, NOW + DELAY));
        assert!(acks.is_due(progress(1), WINDOW, NOW + DELAY));
        acks.taken(WINDOW / SHARE_OF_WINDOW, 1, 1, WINDOW, NOW);
        assert!(acks.is_due(progress(1), WINDOW, NOW));
        assert!(
            !acks.is_due(progress(0), WINDOW, NOW + DELAY),
            "there is no news"
        );
        acks.told();
        acks.taken(1, 2, 3, 4, NOW);
        assert!(acks.is_due(progress(3), 4, NOW) && !acks.is_due(progress(2), 4, NOW));
    }

    #[test]
    fn of_what_waits_nothing_is_acknowledged_but_what_went_on_before_is() {
        const PART: usize = 32 * 1024;
        let mut acks = Acks::default();
        for number in 0..8 {
            acks.taken(PART, number * 10, (number + 1) * 10, WINDOW, NOW);
        }
        let waits = |waiting| Progress { lines: 80, waiting };
        let mut owed = |waiting, now| {
            acks.owe_if_ripe(waits(waiting), WINDOW, now);
            let owed = acks.take_owed(80, WINDOW, now);
            (
                owed,
                acks.deadline(waits(waiting)),
                acks.is_beyond(ACK_BYTES, 80),
            )
        };
        assert_eq!(owed(8 * PART, NOW), (None, None, true));
        assert_eq!(owed(7 * PART + 1, NOW), (None, None, true));
        // It is told of once.
        assert_eq!(owed(6 * PART - 1, NOW), (Some(20), None, true));
        assert_eq!(owed(6 * PART - 1, NOW), (None, None, true));
        assert_eq!(owed(3 * PART, NOW + DELAY), (Some(50), None, true));
        assert_eq!(owed(2 * PART, NOW + DELAY), (Some(80), None, false));
    }

    #[test]
    fn what_is_left_of_it_is_due_a_little_later() {
        let mut acks = Acks::default();
        for lines in 1..=6 {
            acks.taken(ACK_BYTES, lines - 1, lines, WINDOW, NOW);
        }
        let later = NOW + DELAY;
        let progress = |waiting| Progress { lines: 6, waiting };
        assert!(!acks.is_due(progress(3 * ACK_BYTES), WINDOW, NOW));
        assert_eq!(acks.deadline(progress(3 * ACK_BYTES)), Some(NOW + GRACE));
        acks.owe_if_due(progress(3 * ACK_BYTES), WINDOW, later);
        assert_eq!(acks.take_owed(6, WINDOW, later), Some(3));
        assert!(!acks.is_due(progress(0), WINDOW, later));
        assert_eq!(acks.deadline(progress(0)), Some(later + GRACE));
        acks.owe_if_due(progress(0), WINDOW, later + GRACE);
        assert_eq!(acks.take_owed(6, WINDOW, later + GRACE), Some(6));
        assert_eq!(acks.deadline(progress(0)), None);
    }
}
