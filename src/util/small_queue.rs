//! A queue that holds its first element in place: empty it costs no memory beyond itself, and one element at a time
//! no allocation.

use std::collections::VecDeque;
use std::iter;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// First in, first out.
#[derive(Debug)]
pub struct SmallQueue<T> {
    first: Option<T>,
    /// What follows `first`. It is kept, even if empty, until there is no `first` either.
    #[allow(
        clippy::box_collection,
        reason = "what is seldom there must take little room"
    )]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> SmallQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
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

    /// The first element.
    pub fn front(&self) -> Option<&T> {
        self.first.as_ref()
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
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        if self.first.is_none() {
            self.rest = None;
        }
        first
    }

    /// All elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Takes all elements, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let mut all = std::mem::take(self);
        iter::from_fn(move || all.pop_front())
    }
}

impl<T> Default for SmallQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<T> for SmallQueue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut queue = Self::new();
        for element in elements {
            queue.push_back(element);
        }
        queue
    }
}

impl<T: Serialize> Serialize for SmallQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for SmallQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Pop,
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => Just(Step::Push),
            4 => Just(Step::Pop),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn equals_a_plain_queue(steps in prop::collection::vec(step(), 0..80)) {
            let mut queue = SmallQueue::new();
            let mut model = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push => {
                        queue.push_back(number);
                        model.push_back(number);
                    }
                    Step::Pop => prop_assert_eq!(queue.pop_front(), model.pop_front()),
                    Step::Drain => prop_assert_eq!(
                        queue.drain().collect::<Vec<_>>(),
                        model.drain(..).collect::<Vec<_>>()
                    ),
                }
                prop_assert!(queue.iter().eq(model.iter()));
                prop_assert_eq!(queue.front(), model.front());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert!(!queue.is_empty() || queue.rest.is_none(), "an empty queue holds nothing");
            }
        }
    }
}
