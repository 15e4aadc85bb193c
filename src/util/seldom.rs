//! What nearly always stays as it begins: it costs a pointer until it is changed.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// What begins the same wherever it is.
pub trait Begins: Default + 'static {
    /// How it begins: what [`Default`] makes.
    const BEGINNING: &'static Self;
}

/// A value of which most never change. It is read like the value itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seldom<T>(Option<Box<T>>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Begins> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BEGINNING)
    }
}

impl<T: Begins> Seldom<T> {
    /// The value to be changed, which takes memory from now on.
    pub fn change(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Whether it was never changed.
    pub fn is_as_it_began(&self) -> bool {
        self.0.is_none()
    }

    /// The value, if it was ever changed.
    pub fn changed(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Counts {
        one: u64,
        other: u64,
    }

    impl Begins for Counts {
        const BEGINNING: &'static Self = &Self { one: 0, other: 0 };
    }

    #[test]
    fn it_is_read_as_it_began_until_it_is_changed() {
        let mut counts = Seldom::<Counts>::default();
        assert_eq!((&*counts, size_of_val(&counts)), (&Counts::default(), 8));
        assert!(counts.changed().is_none());
        counts.change().one += 2;
        counts.change().one += 3;
        assert_eq!((counts.one, counts.other), (5, 0));
        assert_eq!(counts.changed().map(|it| it.one), Some(5));
    }
}
