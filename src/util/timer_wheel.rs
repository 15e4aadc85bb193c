//! A hierarchical timer wheel: which of many deadlines are due, at O(1) to set and to cancel one.
//!
//! Time is a `u64` count of milliseconds that the caller supplies ("ticks"); the wheel has no
//! clock, does not sleep, and must not know what a timer is for: it hands back the payload that
//! came with the deadline.
//!
//! Eleven levels of 64 slots cover all of `u64`, so that there is no overflow list. A timer's place
//! follows from its deadline and from the wheel's own time, `elapsed`: the highest base-64 digit in
//! which the two differ is the level, the deadline's digit there is the slot. Three things follow,
//! and the code leans on them:
//!
//! - A lower level is earlier than a higher one, and within a level a lower slot is earlier than a
//!   higher one.
//! - Equal deadlines always share a slot, so timers that tie fire in the order in which they were
//!   set.
//! - A place need not be stored; `cancel` works it out anew.
//!
//! Moving `elapsed` into the range of a slot moves that slot's timers to lower levels. This is done
//! on the way to a deadline and never asked for: a slot knows its earliest deadline, so that an
//! idle caller sleeps until exactly then.

use std::num::NonZeroU64;

use slab::Slab;

use super::large_slab;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const DIGIT_MASK: u64 = SLOTS as u64 - 1;

/// The end of a slot's list.
const NONE: u32 = u32::MAX;

/// Names one timer that was set. It stays valid as a name for ever: once the timer fired or was
/// cancelled, it names nothing, even if the wheel has reused the timer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    key: u32,
    serial: NonZeroU64,
}

/// Timers with a payload of type `T` (see the module's page).
#[derive(Debug)]
pub struct TimerWheel<T> {
    /// The wheel's time in ticks. No timer has an earlier deadline.
    elapsed: u64,
    /// How many timers were ever set; makes ids unique.
    set_so_far: u64,
    timers: Slab<Timer<T>>,
    /// Grown to the highest level ever needed (1 KiB each), so that a wheel of short timers is
    /// small.
    levels: Vec<Level>,
}

impl<T: Copy> TimerWheel<T> {
    /// An empty wheel whose time is `now` (in ticks).
    pub fn new(now: u64) -> Self {
        Self {
            elapsed: now,
            set_so_far: 0,
            timers: large_slab::new(),
            levels: Vec::new(),
        }
    }

    /// Sets a timer for `deadline` (in ticks). A deadline that the wheel has passed counts as one
    /// for this very tick: the next [`pop_expired`](Self::pop_expired) with a current time returns
    /// it.
    ///
    /// The memory of a timer is reused once it fired or was cancelled; it is kept at its high-water
    /// mark.
    pub fn set(&mut self, deadline: u64, payload: T) -> TimerId {
        let serial = NonZeroU64::MIN.saturating_add(self.set_so_far);
        self.set_so_far += 1;
        let deadline = deadline.max(self.elapsed);
        let timer = Timer {
            deadline,
            serial,
            prev: NONE,
            next: NONE,
            payload,
        };
        let key = self.timers.insert(timer) as u32;
        debug_assert!(key != NONE);
        self.append(key);
        TimerId { key, serial }
    }

    /// Takes a timer back. False if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        match self.timers.get(id.key as usize) {
            Some(timer) if timer.serial == id.serial => {
                self.remove(id.key);
                true
            }
            _ => false,
        }
    }

    /// Takes out the next timer whose deadline is at or before `now` (in ticks), in order of
    /// deadlines and, where these are equal, of setting. `None` if there is none. To be called
    /// until it says `None`.
    ///
    /// Timers may be set and cancelled between the calls. One that is set for `now` or earlier is
    /// returned in the same round, so a caller that re-arms a timer must do so for later than `now`. A
    /// `now` before an earlier one finds nothing.
    pub fn pop_expired(&mut self, now: u64) -> Option<T> {
        while let Some((place, earliest)) = self.first_slot() {
            if place.starts_at(self.elapsed) > now {
                break;
            }
            if place.level > 0 {
                self.elapsed = earliest.min(now);
                self.cascade(place);
            } else if earliest > now {
                break;
            } else {
                self.elapsed = earliest;
                let head = self.slot(place).head;
                return Some(self.remove(head).payload);
            }
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// When to call [`pop_expired`](Self::pop_expired) next, in ticks; `None` if no timer is set.
    /// This is the earliest deadline exactly, unless it was cancelled: then it may be too early, but
    /// each call of `pop_expired` at such a time moves timers closer, at most ten times each.
    pub fn next_deadline(&self) -> Option<u64> {
        self.first_slot().map(|(_, earliest)| earliest)
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// The slot that holds the earliest timers, and the earliest deadline known for it.
    fn first_slot(&self) -> Option<(Place, u64)> {
        let (level, slots) = self
            .levels
            .iter()
            .enumerate()
            .find(|(_, level)| level.occupied != 0)?;
        let slot = slots.occupied.trailing_zeros() as usize;
        Some((Place { level, slot }, slots.slots[slot].earliest))
    }

    /// Moves a slot's timers to where they belong now that `elapsed` is within the slot's range: to
    /// lower levels.
    fn cascade(&mut self, place: Place) {
        let mut key = self.slot(place).head;
        self.clear(place);
        while key != NONE {
            let next = self.timers[key as usize].next;
            self.append(key);
            key = next;
        }
    }

    /// Links a timer after the others in its slot.
    fn append(&mut self, key: u32) {
        let deadline = self.timers[key as usize].deadline;
        let place = Place::of(deadline, self.elapsed);
        self.grow_to(place.level);
        let slot = self.slot_mut(place);
        let last = std::mem::replace(&mut slot.tail, key);
        slot.earliest = slot.earliest.min(deadline);
        if last == NONE {
            slot.head = key;
            self.levels[place.level].occupied |= place.bit();
        } else {
            self.timers[last as usize].next = key;
        }
        let timer = &mut self.timers[key as usize];
        timer.prev = last;
        timer.next = NONE;
    }

    /// Unlinks a timer from its slot and frees it. The slot's `earliest` stays: finding the true
    /// one would mean going through the list.
    fn remove(&mut self, key: u32) -> Timer<T> {
        let timer = self.timers.remove(key as usize);
        let place = Place::of(timer.deadline, self.elapsed);
        match timer.prev {
            NONE => self.slot_mut(place).head = timer.next,
            prev => self.timers[prev as usize].next = timer.next,
        }
        match timer.next {
            NONE => self.slot_mut(place).tail = timer.prev,
            next => self.timers[next as usize].prev = timer.prev,
        }
        if self.slot(place).head == NONE {
            self.clear(place);
        }
        timer
    }

    fn clear(&mut self, place: Place) {
        self.levels[place.level].occupied &= !place.bit();
        *self.slot_mut(place) = Slot::EMPTY;
    }

    fn grow_to(&mut self, level: usize) {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, || Level::EMPTY);
        }
    }

    fn slot(&self, place: Place) -> &Slot {
        &self.levels[place.level].slots[place.slot]
    }

    fn slot_mut(&mut self, place: Place) -> &mut Slot {
        &mut self.levels[place.level].slots[place.slot]
    }
}

/// An element of a slot's doubly linked list. The links are keys of the slab, at half the size of
/// pointers.
#[derive(Debug)]
struct Timer<T> {
    deadline: u64,
    serial: NonZeroU64,
    prev: u32,
    next: u32,
    payload: T,
}

#[derive(Debug)]
struct Level {
    /// Bit n: slot n has timers.
    occupied: u64,
    slots: [Slot; SLOTS],
}

impl Level {
    const EMPTY: Self = Self {
        occupied: 0,
        slots: [Slot::EMPTY; SLOTS],
    };
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    tail: u32,
    /// No timer in the slot is earlier. Exact, unless the earliest was cancelled.
    earliest: u64,
}

impl Slot {
    const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        earliest: u64::MAX,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: usize,
    slot: usize,
}

impl Place {
    fn of(deadline: u64, elapsed: u64) -> Self {
        debug_assert!(deadline >= elapsed);
        // The mask makes equal times differ in the lowest digit, which is where they belong.
        let highest_bit = ((deadline ^ elapsed) | DIGIT_MASK).ilog2();
        let level = highest_bit / DIGIT_BITS;
        let slot = (deadline >> (level * DIGIT_BITS)) & DIGIT_MASK;
        Self {
            level: level as usize,
            slot: slot as usize,
        }
    }

    /// The first tick of the slot's range: `elapsed` with the level's digit replaced and zeros
    /// below it.
    fn starts_at(self, elapsed: u64) -> u64 {
        let shift = self.level as u32 * DIGIT_BITS;
        let above = elapsed & u64::MAX.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        above | ((self.slot as u64) << shift)
    }

    fn bit(self) -> u64 {
        1 << self.slot
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<T: Copy> TimerWheel<T> {
        /// Walks everything: each timer hangs where its deadline says, and no bitmap, link or
        /// minimum lies.
        fn check_invariants(&self) {
            let mut found = 0;
            for (level, slots) in self.levels.iter().enumerate() {
                for (slot, list) in slots.slots.iter().enumerate() {
                    let place = Place { level, slot };
                    assert_eq!(slots.occupied & place.bit() != 0, list.head != NONE);
                    let (mut key, mut prev) = (list.head, NONE);
                    while key != NONE {
                        let timer = &self.timers[key as usize];
                        assert_eq!(timer.prev, prev);
                        assert_eq!(Place::of(timer.deadline, self.elapsed), place);
                        assert!(list.earliest <= timer.deadline);
                        (prev, key, found) = (key, timer.next, found + 1);
                    }
                    assert_eq!(list.tail, prev);
                }
            }
            assert_eq!(found, self.len());
        }

        fn drain(&mut self, now: u64) -> Vec<T> {
            let fired = std::iter::from_fn(|| self.pop_expired(now)).collect();
            self.check_invariants();
            fired
        }
    }

    #[test]
    fn an_empty_wheel_has_nothing_to_wait_for() {
        let mut wheel = TimerWheel::<u32>::new(5);
        assert_eq!(
            (wheel.len(), wheel.is_empty(), wheel.next_deadline()),
            (0, true, None)
        );
        assert_eq!(wheel.pop_expired(u64::MAX), None);
        assert!(wheel.levels.is_empty(), "an empty wheel holds no slots");
    }

    #[test]
    fn fires_at_the_deadline_and_not_before() {
        for start in [
            0,
            1,
            62,
            63,
            64,
            4095,
            4096,
            (1 << 36) - 1,
            1 << 36,
            u64::MAX / 2,
        ] {
            for delay in [
                1,
                2,
                63,
                64,
                65,
                4095,
                4096,
                4097,
                30_000,
                1 << 24,
                1 << 36,
                1 << 60,
            ] {
                let mut wheel = TimerWheel::new(start);
                wheel.set(start + delay, ());
                assert_eq!(wheel.next_deadline(), Some(start + delay));
                assert!(
                    wheel.drain(start + delay - 1).is_empty(),
                    "{start} + {delay} was early"
                );
                assert_eq!(wheel.next_deadline(), Some(start + delay));
                assert_eq!(
                    wheel.drain(start + delay).len(),
                    1,
                    "{start} + {delay} was late"
                );
            }
        }
    }

    #[test]
    fn the_end_of_time_is_a_deadline_like_any_other() {
        let mut wheel = TimerWheel::new(0);
        wheel.set(u64::MAX, 'z');
        assert!(wheel.drain(u64::MAX - 1).is_empty());
        assert_eq!(wheel.drain(u64::MAX), ['z']);
        wheel.set(3, 'a');
        assert_eq!(wheel.drain(u64::MAX), ['a']);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_now() {
        let mut wheel = TimerWheel::new(1000);
        wheel.set(1000, 'a');
        wheel.set(3, 'b');
        assert_eq!(wheel.next_deadline(), Some(1000));
        assert_eq!(wheel.drain(1000), ['a', 'b']);
    }

    #[test]
    fn ties_fire_in_the_order_of_setting_even_across_cascades() {
        let mut wheel = TimerWheel::new(0);
        wheel.set(10_000, 'a');
        assert!(wheel.drain(5_000).is_empty());
        wheel.set(10_000, 'b');
        wheel.set(9_999, '-');
        assert!(wheel.drain(9_998).is_empty());
        wheel.set(10_000, 'c');
        assert_eq!(wheel.drain(10_000), ['-', 'a', 'b', 'c']);
    }

    #[test]
    fn a_stale_id_cancels_nothing() {
        let mut wheel = TimerWheel::new(0);
        let first = wheel.set(10, 'a');
        assert!(wheel.cancel(first));
        assert!(!wheel.cancel(first));
        let second = wheel.set(10, 'b');
        assert_eq!(first.key, second.key, "the memory is reused");
        assert!(!wheel.cancel(first));
        assert_eq!(wheel.drain(10), ['b']);
        assert!(!wheel.cancel(second));
    }

    #[test]
    fn timers_can_be_set_and_cancelled_between_pops() {
        let mut wheel = TimerWheel::new(0);
        wheel.set(10, 'a');
        let late = wheel.set(500, 'd');
        assert_eq!(wheel.pop_expired(1_000), Some('a'));
        wheel.set(700, 'c');
        wheel.set(5, 'b');
        assert!(wheel.cancel(late));
        assert_eq!(wheel.drain(1_000), ['b', 'c']);
    }

    #[test]
    fn a_clock_that_steps_back_finds_nothing() {
        let mut wheel = TimerWheel::new(0);
        assert_eq!(wheel.pop_expired(100), None);
        wheel.set(50, ());
        assert_eq!(wheel.pop_expired(60), None);
        assert_eq!(wheel.pop_expired(100), Some(()));
    }

    #[test]
    fn an_idle_caller_is_woken_once() {
        let mut wheel = TimerWheel::new(123_456_789);
        wheel.set(123_456_789 + 86_400_000, ());
        let wake = wheel.next_deadline().unwrap();
        assert_eq!(wheel.drain(wake).len(), 1);
    }

    #[test]
    fn wakes_for_cancelled_timers_make_progress() {
        let mut wheel = TimerWheel::new(0);
        let last = 7 << 30;
        wheel.set(last, ());
        // Each hides the next one's slot minimum.
        for level in 1..6 {
            let decoy = wheel.set((7 << 30) - (1 << (level * 5)), ());
            assert!(wheel.cancel(decoy));
        }
        let mut wakes = 0;
        while let Some(wake) = wheel.next_deadline() {
            wakes += 1;
            assert!(wakes <= 11);
            assert_eq!(wheel.drain(wake).len(), usize::from(wake == last));
        }
    }

    #[test]
    fn a_jump_of_days_fires_everything_in_order() {
        let mut wheel = TimerWheel::new(777);
        let mut expected: Vec<u64> = (0..5_000_u64)
            .map(|n| 777 + n * n * 7_919 % 400_000_000)
            .collect();
        for deadline in &expected {
            wheel.set(*deadline, *deadline);
        }
        expected.sort_unstable();
        assert_eq!(wheel.drain(777 + 400_000_000), expected);
        assert!(wheel.is_empty());
    }

    #[test]
    fn an_absent_id_costs_no_more_than_an_id() {
        assert_eq!(size_of::<Option<TimerId>>(), 16);
        assert_eq!(size_of::<Option<Timer<u64>>>(), 32);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64),
        SetAt(u64),
        Cancel(usize),
        Advance(u64),
        AdvanceToNext,
        PopOnce(u64),
    }

    /// Delays of all magnitudes, with an eye on the levels' boundaries.
    fn delay() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..200_u64,
            (0..44_u32).prop_flat_map(|bits| 0..=(1_u64 << bits)),
            (0..8_u32, 0..3_u64).prop_map(|(level, off)| (1_u64 << (level * DIGIT_BITS)) + off - 1),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => delay().prop_map(Step::Set),
            1 => delay().prop_map(Step::SetAt),
            3 => any::<usize>().prop_map(Step::Cancel),
            2 => delay().prop_map(Step::Advance),
            3 => Just(Step::AdvanceToNext),
            1 => delay().prop_map(Step::PopOnce),
        ]
    }

    /// What the wheel must do, done slowly.
    struct Model {
        now: u64,
        timers: BTreeMap<(u64, u32), TimerId>,
        ids: Vec<TimerId>,
    }

    impl Model {
        fn pop(&mut self, now: u64) -> Option<u32> {
            let first = self.timers.first_entry()?;
            let (deadline, name) = *first.key();
            if deadline > now {
                return None;
            }
            first.remove();
            self.now = deadline;
            Some(name)
        }

        fn drain(&mut self, now: u64) -> Vec<u32> {
            let fired = std::iter::from_fn(|| self.pop(now)).collect();
            self.now = self.now.max(now);
            fired
        }
    }

    fn run(start: u64, steps: Vec<Step>) {
        let mut wheel = TimerWheel::new(start);
        let mut model = Model {
            now: start,
            timers: BTreeMap::new(),
            ids: Vec::new(),
        };
        let mut cancelled = false;
        for (name, step) in (0_u32..).zip(steps) {
            match step {
                Step::Set(delay) => {
                    let deadline = model.now + delay;
                    set(&mut wheel, &mut model, deadline, name);
                }
                Step::SetAt(deadline) => set(&mut wheel, &mut model, deadline, name),
                Step::Cancel(_) if model.ids.is_empty() => {}
                Step::Cancel(nth) => {
                    let id = model.ids[nth % model.ids.len()];
                    let known = model.timers.len();
                    model.timers.retain(|_, other| *other != id);
                    assert_eq!(wheel.cancel(id), model.timers.len() < known);
                    cancelled = true;
                }
                Step::Advance(delay) => {
                    let now = model.now + delay;
                    assert_eq!(wheel.drain(now), model.drain(now));
                }
                Step::AdvanceToNext => {
                    let Some(now) = wheel.next_deadline() else {
                        continue;
                    };
                    assert_eq!(wheel.drain(now), model.drain(now));
                }
                Step::PopOnce(delay) => {
                    let now = model.now + delay;
                    let fired = model.pop(now);
                    if fired.is_none() {
                        model.now = now;
                    }
                    assert_eq!(wheel.pop_expired(now), fired);
                }
            }
            wheel.check_invariants();
            let next = model
                .timers
                .first_key_value()
                .map(|((deadline, _), _)| *deadline);
            assert_eq!(wheel.len(), model.timers.len());
            if cancelled {
                assert!(
                    wheel.next_deadline() <= next
                        && wheel.next_deadline().is_some() == next.is_some()
                );
            } else {
                assert_eq!(wheel.next_deadline(), next);
            }
        }
        assert_eq!(wheel.drain(u64::MAX), model.drain(u64::MAX));
    }

    fn set(wheel: &mut TimerWheel<u32>, model: &mut Model, deadline: u64, name: u32) {
        let id = wheel.set(deadline, name);
        model.timers.insert((deadline.max(model.now), name), id);
        model.ids.push(id);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn does_what_the_model_does(start in delay(), steps in prop::collection::vec(step(), 1..120)) {
            run(start, steps);
        }
    }
}
