//! The entrance: who gets in does not depend on how the stream is cut, and nobody gets in but with a header and a token
//! that a plain reader finds, too.

use std::net::SocketAddr;
use std::time::Duration;

use mcp_tcp_proxy::entrance::tokens::Tokens;
use mcp_tcp_proxy::entrance::{
    Admission, Balancers, Capacity, Directory, Entrance, MAX_FIRST_LINE_BYTES, Name, Network,
    Rules, Step,
};
use mcp_tcp_proxy::util::service_key::ServiceKey;
use mcp_tcp_proxy::util::time::Time;
use serde_json::Value;

const TOKEN: &str = "mtp_0123456789abcdef";

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing yet.
    Undecided,
    /// Let in, with this behind what was passed at the door.
    In(Admission),
    Told(String),
    Closed,
}

/// The input is two bytes that say what is asked for and how the stream is cut, and the stream.
pub(crate) fn entrance(input: &[u8]) {
    let Some((choices, stream)) = input.split_at_checked(2) else {
        return;
    };
    let rules = rules(choices[0]);
    let whole = run(&rules, &[stream]);
    let size = usize::from(choices[1] % 40) + 1;
    let pieces: Vec<&[u8]> = stream.chunks(size).collect();
    let in_pieces = run(&rules, &pieces);
    assert_eq!(in_pieces, whole, "in pieces of {size}");
    if let Outcome::In(admission) = &whole {
        assert!(stream.ends_with(&admission.early), "all of it goes along");
        assert_eq!(admission.identity.is_some(), rules.tokens.is_some());
    }
    let is_choice = rules.servers.is_choice();
    let is_plain = rules.balancers == Balancers::default() && !rules.tls && !is_choice;
    if is_plain && rules.tokens.is_some() {
        check_token(stream, &whole);
    }
}

fn rules(choice: u8) -> Rules {
    let has = |bit: u8| choice & bit != 0;
    let network = Network::parse("10.0.0.0/8").unwrap();
    let tokens = Tokens::parse(&format!("ann {TOKEN}")).unwrap();
    Rules {
        balancers: Balancers {
            networks: if has(1) { vec![network] } else { Vec::new() },
            unix: false,
        },
        // Something has to be asked for.
        tokens: (has(2) || choice & 5 == 0).then_some(tokens),
        tls: has(4),
        servers: if has(8) {
            choice_of_two()
        } else {
            Directory::only()
        },
        timeout: Duration::from_secs(10),
        ..Rules::default()
    }
}

/// Two servers, of which one is for whoever asks for none.
fn choice_of_two() -> Directory {
    let names = ["git", "time"].map(Name::new);
    Directory::new(names.into(), Some(ServiceKey(1)))
}

fn run(rules: &Rules, pieces: &[&[u8]]) -> Outcome {
    let mut entrance = Entrance::new(rules.clone(), Capacity::default());
    let peer: SocketAddr = ([10, 0, 0, 1], 1).into();
    let now = Time::from_nanos(1 << 40);
    let key = entrance.enter(peer.into(), (), now);
    let mut outcome = Outcome::Undecided;
    for piece in pieces {
        if let Outcome::In(admission) = &mut outcome {
            admission.early.extend_from_slice(piece);
            continue;
        }
        let mut step = entrance.bytes(key, piece, now);
        if let Step::StartTls(hello) = step {
            assert!(!hello.is_empty());
            step = entrance.tls_done(key, None, now);
            // What came with it is inside TLS, and nothing else does.
            if step == Step::Wait {
                return Outcome::Undecided;
            }
            return match step {
                Step::Admit(_) => Outcome::Closed,
                other => panic!("{other:?}"),
            };
        }
        outcome = match (step, outcome) {
            (Step::Wait, outcome) => outcome,
            (Step::Admit(admission), Outcome::Undecided) => Outcome::In(admission),
            (Step::Answer(text), Outcome::Undecided) => Outcome::Told(text),
            (Step::Close, Outcome::Undecided) => return Outcome::Closed,
            // It was told, and does not stop.
            (Step::Close, told @ Outcome::Told(_)) => return told,
            (step, outcome) => panic!("{step:?} after {outcome:?}"),
        };
    }
    outcome
}

/// A plain reader finds the same in the first line that is not blank.
fn check_token(stream: &[u8], outcome: &Outcome) {
    let mut lines = stream.split_inclusive(|byte| *byte == b'\n');
    let first = lines.find(|line| !line.trim_ascii().is_empty());
    let end = first.map_or(0, |line| {
        line.as_ptr_range().end as usize - stream.as_ptr() as usize
    });
    let line = first.filter(|line| line.ends_with(b"\n") && end <= MAX_FIRST_LINE_BYTES);
    let value = line.and_then(|line| serde_json::from_slice::<Value>(line).ok());
    let value = value.filter(Value::is_object);
    let is_good = |value: &Value| value["type"] == "handshake" && value["token"] == TOKEN;
    let is_in = matches!(outcome, Outcome::In(_));
    match value {
        Some(value) => assert_eq!(is_in, is_good(&value), "{value}"),
        // What it can't read is a byte order mark, a half of a pair of surrogates, or one of the words that JSON does not have.
        None if is_in => {
            let text = String::from_utf8_lossy(line.unwrap());
            assert!(
                ["NaN", "Infinity", "\u{feff}", "\\u"]
                    .iter()
                    .any(|it| text.contains(it)),
                "{text}"
            );
        }
        None => {}
    }
}
