//! A queue whose elements are found by a key, in a time that does not grow with the queue.
//!
//! Empty it costs no memory beyond itself, one element at a time no allocation, and a few are searched one by one. Only
//! when that has failed once is there an index, which lasts until few are left. Keys are chosen by peers, so their
//! hashes are made with a key of their own (`RandomState`), and only tell where to look: equal is what `Eq` calls equal.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::iter;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Up to this many elements are searched one by one.
const FEW: usize = 16;

/// What has a key, which does not change.
pub trait Keyed {
    /// The type of the key.
    type Key: Eq + Hash;

    /// The key. Several elements may have equal ones.
    fn key(&self) -> &Self::Key;
}

/// First in, first out, with removals from the middle by key.
#[derive(Debug)]
pub struct KeyedQueue<T> {
    first: Option<T>,
    /// What follows `first`. It is kept, even if empty, until there is no `first` either, or its last element was taken
    /// from behind one that stays.
    rest: Option<Box<Rest<T>>>,
}

#[derive(Debug)]
struct Rest<T> {
    /// In the order of their numbers.
    elements: VecDeque<Numbered<T>>,
    next_number: u64,
    /// Few queues ever need one.
    index: Option<Box<Index>>,
}

#[derive(Debug)]
struct Numbered<T> {
    number: u64,
    element: T,
}

/// Where to look for a key, among numbered elements. That its hash is found does not mean that it is there.
#[derive(Debug, Default)]
pub struct Index {
    hashing: RandomState,
    /// The hash of each key, and the number of its element.
    numbers: BTreeSet<(u64, u64)>,
}

impl<T: Keyed> KeyedQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.elements.len());
        usize::from(self.first.is_some()) + rest
    }

    /// Adds an element after all others.
    #[inline]
    pub fn push_back(&mut self, element: T) {
        if self.first.is_none() {
            self.first = Some(element);
        } else {
            self.push_to_rest(element);
        }
    }

    #[inline(never)]
    fn push_to_rest(&mut self, element: T) {
        self.rest.get_or_insert_default().push_back(element);
    }

    /// Takes the first element.
    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        if self.rest.is_none() {
            return self.first.take();
        }
        self.move_up()
    }

    /// Takes the first element. The second becomes the first.
    #[inline(never)]
    fn move_up(&mut self) -> Option<T> {
        let first = self.first.take();
        self.first = self.rest.as_mut().and_then(|rest| rest.remove(0));
        if self.first.is_none() {
            self.rest = None;
        }
        first
    }

    /// Whether an element has this key. It may make the index for that.
    pub fn contains(&mut self, key: &T::Key) -> bool {
        self.is_first(key) || self.find(key, 0).is_some()
    }

    /// The first element with this key. It may make the index for that.
    pub fn get(&mut self, key: &T::Key) -> Option<&T> {
        if self.is_first(key) {
            return self.first.as_ref();
        }
        let at = self.find(key, 0)?;
        Some(&self.rest.as_ref()?.elements.get(at)?.element)
    }

    /// Takes the first element with this key.
    #[inline]
    pub fn remove_first(&mut self, key: &T::Key) -> Option<T> {
        if self.is_first(key) {
            return self.pop_front();
        }
        self.remove_from_rest(key)
    }

    #[inline(never)]
    fn remove_from_rest(&mut self, key: &T::Key) -> Option<T> {
        let at = self.find(key, 0)?;
        let rest = self.rest.as_mut()?;
        let taken = rest.remove(at);
        // The first may stay for hours, and most queues have nothing else then.
        if rest.elements.is_empty() {
            self.rest = None;
        }
        taken
    }

    /// How many elements have this key: none, one, or two, which stands for more, too.
    pub fn count_to_two(&mut self, key: &T::Key) -> usize {
        let in_rest = (0..2)
            .take_while(|nth| self.find(key, *nth).is_some())
            .count();
        (usize::from(self.is_first(key)) + in_rest).min(2)
    }

    /// All elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let rest = self.rest.iter().flat_map(|rest| rest.elements.iter());
        self.first.iter().chain(rest.map(|one| &one.element))
    }

    /// Takes all elements, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let all = std::mem::take(self);
        let rest = all.rest.into_iter().flat_map(|rest| rest.elements);
        iter::chain(all.first, rest.map(|one| one.element))
    }

    fn is_first(&self, key: &T::Key) -> bool {
        self.first.as_ref().is_some_and(|first| first.key() == key)
    }

    fn find(&mut self, key: &T::Key, nth: usize) -> Option<usize> {
        self.rest.as_mut()?.find(key, nth)
    }
}

impl<T> Default for KeyedQueue<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T: Keyed> Rest<T> {
    fn push_back(&mut self, element: T) {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(index) = &mut self.index {
            index.insert(element.key(), number);
        }
        self.elements.push_back(Numbered { number, element });
    }

    /// Moves at most half of the others, which is a copy of some kilobytes.
    fn remove(&mut self, at: usize) -> Option<T> {
        let Numbered { number, element } = self.elements.remove(at)?;
        if let Some(index) = &mut self.index {
            index.remove(element.key(), number);
            if self.elements.len() <= FEW {
                self.index = None;
                self.elements.shrink_to(FEW);
            }
        }
        Some(element)
    }

    /// The place of the first element with this key, or of the `nth` after it.
    fn find(&mut self, key: &T::Key, nth: usize) -> Option<usize> {
        if self.index.is_none() {
            let few = self.elements.iter().take(FEW);
            let mut found = few
                .enumerate()
                .filter(|(_, one)| one.element.key() == key)
                .map(|(at, _)| at);
            let at = found.nth(nth);
            if at.is_some() || self.elements.len() <= FEW {
                return at;
            }
        }
        let elements = &self.elements;
        let index = self.index.get_or_insert_with(|| {
            let mut index = Box::<Index>::default();
            for one in elements {
                index.insert(one.element.key(), one.number);
            }
            index
        });
        index
            .numbers_of(key)
            .filter_map(|number| {
                elements
                    .binary_search_by_key(&number, |one| one.number)
                    .ok()
            })
            .filter(|at| elements[*at].element.key() == key)
            .nth(nth)
    }
}

impl<T> Default for Rest<T> {
    fn default() -> Self {
        Self {
            // One is what most have that have more than `first`.
            elements: VecDeque::with_capacity(1),
            next_number: 0,
            index: None,
        }
    }
}

impl Index {
    /// The element of this number has this key.
    pub fn insert(&mut self, key: &impl Hash, number: u64) {
        self.numbers.insert((self.hashing.hash_one(key), number));
    }

    /// It is gone.
    pub fn remove(&mut self, key: &impl Hash, number: u64) {
        self.numbers.remove(&(self.hashing.hash_one(key), number));
    }

    /// The elements whose keys have the same hash, in order.
    pub fn numbers_of(&self, key: &impl Hash) -> impl Iterator<Item = u64> {
        let hash = self.hashing.hash_one(key);
        let numbers = self.numbers.range((hash, 0)..=(hash, u64::MAX));
        numbers.map(|(_, number)| *number)
    }
}

impl<T: Keyed> FromIterator<T> for KeyedQueue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut queue = Self::new();
        for element in elements {
            queue.push_back(element);
        }
        queue
    }
}

impl<T: Keyed + Serialize> Serialize for KeyedQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Keyed + Deserialize<'de>> Deserialize<'de> for KeyedQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static COMPARISONS: Cell<usize> = const { Cell::new(0) };
    }

    /// It counts how often it is compared.
    #[derive(Debug, Clone, Copy)]
    struct Key(usize);

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Key {}

    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[derive(Debug, Clone, Copy)]
    struct Element {
        key: Key,
        name: usize,
    }

    impl Keyed for Element {
        type Key = Key;

        fn key(&self) -> &Key {
            &self.key
        }
    }

    #[test]
    fn a_search_takes_no_longer_in_a_long_queue() {
        const LEN: usize = 1000;
        let mut queue = KeyedQueue::new();
        let push = |queue: &mut KeyedQueue<Element>, key| {
            queue.push_back(Element {
                key: Key(key),
                name: key,
            });
        };
        for key in 0..LEN {
            push(&mut queue, key);
        }
        // One that is not there, the last, and one that many have.
        for _ in 0..LEN {
            push(&mut queue, LEN);
        }
        for wanted in [LEN + 1, LEN - 1, LEN] {
            queue.contains(&Key(wanted));
            COMPARISONS.set(0);
            queue.contains(&Key(wanted));
            queue.remove_first(&Key(wanted));
            assert!(COMPARISONS.get() <= 4, "{}", COMPARISONS.get());
        }
        COMPARISONS.set(0);
        assert_eq!(queue.count_to_two(&Key(LEN)), 2);
        assert!(COMPARISONS.get() <= 8);
        for _ in 0..2 * LEN - FEW - 3 {
            queue.pop_front();
        }
        let rest = queue.rest.unwrap();
        assert!(rest.index.is_none(), "few are left");
        assert!(rest.elements.capacity() < LEN);
    }

    #[test]
    fn one_at_a_time_takes_no_allocation() {
        let mut queue = KeyedQueue::new();
        for name in 0..3 {
            queue.push_back(Element { key: Key(7), name });
            assert!(queue.rest.is_none());
            assert_eq!(queue.remove_first(&Key(7)).map(|one| one.name), Some(name));
        }
    }

    #[test]
    fn one_that_stays_leaves_no_room_for_others_that_came_and_went() {
        let mut queue = KeyedQueue::new();
        for (name, key) in [1, 2, 3].into_iter().enumerate() {
            queue.push_back(Element {
                key: Key(key),
                name,
            });
        }
        for key in [2, 3] {
            assert!(queue.rest.is_some());
            assert!(queue.remove_first(&Key(key)).is_some());
        }
        assert!(queue.rest.is_none());
        assert_eq!(queue.len(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Pop,
        Remove(usize),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            120 => (0usize..40).prop_map(Step::Push),
            20 => Just(Step::Pop),
            80 => (0usize..50).prop_map(Step::Remove),
            1 => Just(Step::Drain),
        ]
    }

    fn names<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Vec<usize> {
        elements.into_iter().map(|one| one.name).collect()
    }

    proptest! {
        #[test]
        fn equals_a_plain_queue(steps in prop::collection::vec(step(), 0..400)) {
            let mut queue = KeyedQueue::new();
            let mut model: VecDeque<Element> = VecDeque::new();
            for (name, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(key) => {
                        let element = Element { key: Key(key), name };
                        queue.push_back(element);
                        model.push_back(element);
                    }
                    Step::Pop => prop_assert_eq!(queue.pop_front().map(|one| one.name), model.pop_front().map(|one| one.name)),
                    Step::Remove(key) => {
                        let count = model.iter().filter(|one| one.key.0 == key).count();
                        prop_assert_eq!(queue.count_to_two(&Key(key)), count.min(2));
                        prop_assert_eq!(queue.contains(&Key(key)), count > 0);
                        let at = model.iter().position(|one| one.key.0 == key);
                        let expected = at.and_then(|at| model.remove(at)).map(|one| one.name);
                        prop_assert_eq!(queue.remove_first(&Key(key)).map(|one| one.name), expected);
                    }
                    Step::Drain => {
                        let all: Vec<Element> = queue.drain().collect();
                        prop_assert_eq!(names(&all), names(&model));
                        model.clear();
                    }
                }
                prop_assert_eq!(names(queue.iter()), names(&model));
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(!queue.is_empty() || queue.rest.is_none(), "an empty queue holds nothing");
            }
        }
    }
}
