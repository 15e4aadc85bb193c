//! What is kept of earlier versions is all understood: what this version would write down of it has every field that is there,
//! under its name.

use super::whole::Whole;
use crate::serve::tests::states::{kept_states, lacks};
use crate::util::side_bytes::Written;

#[test]
fn no_field_of_an_earlier_version_is_lost() {
    for (name, written) in kept_states() {
        let whole: Whole = written.clone().read().unwrap();
        let new = Written::new(&whole).unwrap();
        assert_eq!(lacks(&written, &new), None, "{name}");
    }
}
