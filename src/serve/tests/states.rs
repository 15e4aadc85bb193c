//! States that programs of earlier versions, and of this one, have written down: the loop goes on with them.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::wire::wire;
use super::world::{Choice, Door, STATUS, World, about};
use crate::entrance::Rules;
use crate::serve::state::{SourceCounts, Sources};
use crate::serve::status::About;
use crate::serve::system::System;
use crate::serve::{Limits, ProxyState};
use crate::upgrade::text;
use crate::util::side_bytes::Written;
use crate::util::time::Time;

/// All that are kept, with their names.
pub(in crate::serve) fn kept_states() -> Vec<(String, Written)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states");
    let paths = std::fs::read_dir(folder).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let states = paths.map(|path| {
        let state = std::fs::read(&path).unwrap();
        let state = text::read(&mut state.as_slice()).unwrap();
        (path.display().to_string(), state)
    });
    let states: Vec<_> = states.collect();
    assert!(!states.is_empty(), "there is one of this version at least");
    states
}

/// Where a state lacks something that another one has, or has it otherwise. Fields may have been added, and buffers have
/// moved by that.
pub(in crate::serve) fn lacks(old: &Written, new: &Written) -> Option<String> {
    let buffers = old.bytes.as_ref().map_or(0, Vec::len) as u64;
    let [old, new] = [old, new].map(|state| serde_json::from_slice(&state.json).unwrap());
    lacks_at("", &old, &new, buffers)
}

fn lacks_at(place: &str, old: &Value, new: &Value, buffers: u64) -> Option<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old.iter().find_map(|(name, old)| {
            let place = format!("{place}.{name}");
            let new_value = new.get(name).unwrap_or(&Value::Null);
            lacks_at(&place, old, new_value, buffers).or_else(|| {
                let is_missing = !new.contains_key(name);
                is_missing.then(|| format!("{place} is missing"))
            })
        }),
        (Value::Array(old), Value::Array(new)) if is_buffer(old, new, buffers) => None,
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let mut both = old.iter().zip(new).enumerate();
            both.find_map(|(at, (old, new))| lacks_at(&format!("{place}[{at}]"), old, new, buffers))
        }
        _ => (old != new).then(|| format!("{place} is {new} and was {old}")),
    }
}

/// Whether they may say where a buffer is, and how long, of those that have so many bytes together.
fn is_buffer(old: &[Value], new: &[Value], buffers: u64) -> bool {
    let ([old_start, old_len], [new_start, new_len]) = (old, new) else {
        return false;
    };
    let end = |start: &Value, len: &Value| start.as_u64()?.checked_add(len.as_u64()?);
    let is_inside = end(old_start, old_len).is_some_and(|end| end <= buffers);
    is_inside && new_start.is_u64() && old_len == new_len
}

/// What is of interest here.
#[derive(Deserialize)]
struct Kept {
    at: Time,
    proxy: ProxyState,
}

/// As many as there have to be.
fn sources<S>(counts: SourceCounts) -> Sources<S>
where
    S: System<
            Listener = Door,
            Client = super::wire::LoopEnd,
            Stdin = super::wire::LoopEnd,
            Output = super::wire::LoopEnd,
        >,
{
    let wires = |count: usize| (0..count).map(|_| wire().0).collect();
    let doors = |first: usize, count: usize| (first..first + count).map(Door).collect();
    Sources {
        listeners: doors(0, counts.listeners),
        status: doors(STATUS.0, counts.status),
        clients: wires(counts.clients),
        stdins: wires(counts.stdins),
        outputs: wires(counts.outputs),
    }
}

/// A loop that goes on with it.
fn going_on(Kept { at, proxy: state }: Kept) -> World {
    let plans = state.plans();
    let rules = Rules {
        tls: true,
        timeout: Duration::from_secs(10),
        ..Rules::default()
    };
    let default = Choice::default();
    let mut world = World::of(Choice {
        limits: Limits {
            resume_timeout: Some(Duration::from_mins(2)),
            ..default.limits
        },
        plan: plans[0].clone(),
        rules,
    });
    world.below.borrow_mut().now = at;
    for plan in &plans[1..] {
        world.proxy.add_service(plan.clone());
    }
    let sources = sources(state.sources());
    let about = About {
        addresses: state.addresses().unwrap().to_owned(),
        ..about()
    };
    world.proxy.restore(state, sources, Some(about)).unwrap();
    world
}

#[test]
fn the_loop_goes_on_with_the_states_of_all_versions() {
    for (name, written) in kept_states() {
        let read = || written.clone().read::<Kept>().unwrap();
        let before = Written::new(&read().proxy).unwrap();
        let sessions = read().proxy.sessions();
        assert!(sessions > 0, "{name}");
        let mut world = going_on(read());
        let after = Written::new(&world.proxy.snapshot()).unwrap();
        assert_eq!(lacks(&before, &after), None, "{name}");
        assert!(after.bytes == before.bytes, "{name}: other buffers");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.proxy.sessions().len(), sessions, "{name}");
        // Whatever is due comes, and nobody says a word.
        world.pass(Duration::from_hours(1));
        world.stop();
    }
}

#[test]
fn a_field_that_is_missing_or_renamed_is_noticed() {
    let state = |json: &str| Written {
        json: json.as_bytes().to_vec(),
        bytes: Some(vec![0; 10]),
    };
    let old = state(r#"{"a":{"b":null,"c":[7,3],"d":[8,3]}}"#);
    for (new, expected) in [
        (r#"{"a":{"b":null,"c":[9,3],"d":[8,3],"x":1},"e":2}"#, None),
        (r#"{"a":{"c":[7,3],"d":[8,3]}}"#, Some(".a.b is missing")),
        (
            r#"{"a":{"b":null,"c":[7,4],"d":[8,3]}}"#,
            Some(".a.c[1] is 4 and was 3"),
        ),
        (
            r#"{"a":{"b":null,"c":[7],"d":[8,3]}}"#,
            Some(".a.c is [7] and was [7,3]"),
        ),
        (
            // There are not so many bytes that it could be a buffer.
            r#"{"a":{"b":null,"c":[7,3],"d":[9,3]}}"#,
            Some(".a.d[0] is 9 and was 8"),
        ),
    ] {
        assert_eq!(lacks(&old, &state(new)).as_deref(), expected);
    }
}
