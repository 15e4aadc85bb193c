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

/// Takes the messages out of a batch that `stays` refuses. It is asked about objects only, in order.
pub fn retain(batch: &[u8], mut stays: impl FnMut(&Envelope<'_>) -> bool) -> Spliced {
    let items = items(batch);
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        return Spliced::Unchanged;
    };
    #[cfg(test)]
    ITEMS_READ.set(ITEMS_READ.get() + items.len());
    let mut is_kept = |item: &Range<usize>| match Message::read(&batch[item.clone()]) {
        Ok(Message::Single(envelope)) => stays(&envelope),
        _ => true,
    };
    let kept: Vec<&[u8]> = items
        .iter()
        .filter(|item| is_kept(item))
        .map(|item| &batch[item.clone()])
        .collect();
    if kept.len() == items.len() {
        return Spliced::Unchanged;
    }
    if kept.is_empty() {
        return Spliced::Nothing;
    }
    let (before, after) = (&batch[..first.start], &batch[last.end..]);
    Spliced::Line([before, &kept.join(&b','), after].concat())
}

/// Where the items of a batch are; none if it is none.
fn items(batch: &[u8]) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let read = Reader::new(batch).array(|reader| {
        items.push(reader.value()?.range());
        Ok(())
    });
    read.map_or_else(|_| Vec::new(), |()| items)
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
            (&["2"], r#" [ {"id":1, "x":[1,{"id":2}]},{"m":"a,]"},7 ] "#),
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
