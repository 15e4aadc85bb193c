//! Takes messages out of a batch. What stays is written as it was.

use std::ops::Range;

use super::envelope::{Envelope, Message};
use super::json::Reader;

#[cfg(test)]
thread_local! {
    /// How many messages of batches were read to tell which of them stay.
    pub(crate) static ITEMS_READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What is left of a batch, given as a line without its line end, after some messages were taken out.
#[derive(Debug, PartialEq, Eq)]
pub enum Spliced {
    /// All of it.
    Unchanged,
    /// This.
    Line(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// Takes the messages out of a batch that `stays` refuses. It is asked about objects only, in order. Takes no more memory
/// than the batch does, and if the system has not that much, leaves it as it is.
pub fn retain(batch: &[u8], mut stays: impl FnMut(&Envelope<'_>) -> bool) -> Spliced {
    let mut left = Left::default();
    let read = Reader::new(batch).array(|reader| {
        let item = reader.value()?.range();
        #[cfg(test)]
        ITEMS_READ.set(ITEMS_READ.get() + 1);
        let is_kept = match Message::read(&batch[item.clone()]) {
            Ok(Message::Single(envelope)) => stays(&envelope),
            _ => true,
        };
        left.note(batch, item, is_kept);
        Ok(())
    });
    if read.is_err() || left.is_without_memory {
        return Spliced::Unchanged;
    }
    match left.text {
        None => Spliced::Unchanged,
        Some(_) if !left.has_any => Spliced::Nothing,
        Some(mut text) => {
            text.extend_from_slice(&batch[left.end..]);
            Spliced::Line(text)
        }
    }
}

/// What is left of a batch up to some item.
#[derive(Default)]
struct Left {
    /// Where the last item ended.
    end: usize,
    /// Whether any item is kept.
    has_any: bool,
    /// The text of it, once an item was taken out.
    text: Option<Vec<u8>>,
    is_without_memory: bool,
}

impl Left {
    fn note(&mut self, batch: &[u8], item: Range<usize>, is_kept: bool) {
        if !is_kept && self.text.is_none() {
            let before = if self.has_any { self.end } else { item.start };
            let mut text = Vec::new();
            self.is_without_memory |= text.try_reserve_exact(batch.len()).is_err();
            if self.is_without_memory {
                return;
            }
            text.extend_from_slice(&batch[..before]);
            self.text = Some(text);
        }
        if is_kept && let Some(text) = &mut self.text {
            if self.has_any {
                text.push(b',');
            }
            text.extend_from_slice(&batch[item.clone()]);
        }
        self.has_any |= is_kept;
        self.end = item.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(batch: &str, ids: &[&str]) -> Spliced {
        retain(batch.as_bytes(), |envelope| {
            envelope
                .id
                .is_none_or(|id| !ids.contains(&id.to_string().as_str()))
        })
    }

    #[test]
    fn what_stays_is_written_as_it_was() {
        let batch = r#" [ {"id":1, "x":[1,{"id":2}]}, {"m":"a,]"} ,{"id":2},7 ] "#;
        for (ids, left) in [
            (&["1"][..], r#" [ {"m":"a,]"},{"id":2},7 ] "#),
            (&["2"], r#" [ {"id":1, "x":[1,{"id":2}]}, {"m":"a,]"},7 ] "#),
            (&["1", "2"], r#" [ {"m":"a,]"},7 ] "#),
        ] {
            assert_eq!(without(batch, ids), Spliced::Line(left.into()));
        }
    }

    #[test]
    fn all_or_nothing() {
        assert_eq!(
            without(r#"[{"id":1},{"id":2}]"#, &["1", "2"]),
            Spliced::Nothing
        );
        for unchanged in [r#"[{"id":1}]"#, "[]", "[3]", r#"{"id":3}"#, "[", ""] {
            assert_eq!(without(unchanged, &["3"]), Spliced::Unchanged);
        }
    }
}
