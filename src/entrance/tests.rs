//! Visitors against the rules, the limits and the clock.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::tokens::Tokens;
use super::*;

const TOKEN: &str = "mtp_0123456789abcdef";

const HANDSHAKE: &str = "{\"type\":\"handshake\",\"token\":\"mtp_0123456789abcdef\"}\n";

/// An entrance with its clock, where visitors are called by numbers.
struct Hall {
    entrance: Entrance<usize>,
    now: Time,
    entered: usize,
    displaced: Vec<(usize, Option<String>)>,
}

fn address(text: &str) -> ClientAddress {
    let address: SocketAddr = text.parse().unwrap();
    address.into()
}

fn with_tokens() -> Rules {
    Rules {
        tokens: Some(
            Tokens::parse(&format!("ann {TOKEN}\nben of-ben-alone-1234 weather")).unwrap(),
        ),
        timeout: DEFAULT_TIMEOUT,
        ..Rules::default()
    }
}

fn behind_balancer() -> Rules {
    Rules {
        balancers: Balancers {
            networks: vec![Network::parse("10.0.0.0/8").unwrap()],
            unix: false,
        },
        timeout: DEFAULT_TIMEOUT,
        ..Rules::default()
    }
}

impl Hall {
    fn new(rules: Rules) -> Self {
        Self::with_capacity(rules, Capacity::default())
    }

    fn with_capacity(rules: Rules, capacity: Capacity) -> Self {
        Self {
            entrance: Entrance::new(rules, capacity),
            now: Time::from_nanos(1 << 40),
            entered: 0,
            displaced: Vec::new(),
        }
    }

    fn enter(&mut self, peer: ClientAddress) -> VisitorKey {
        self.entrance.begin_round();
        while let Some(displaced) = self.entrance.make_room(peer, None, self.now) {
            self.displaced.push((displaced.place, displaced.farewell));
        }
        self.entered += 1;
        self.entrance.enter(peer, self.entered, self.now)
    }

    fn says(&mut self, key: VisitorKey, text: impl AsRef<[u8]>) -> Step {
        let step = self.entrance.bytes(key, text.as_ref(), self.now);
        while let Some(displaced) = self.entrance.make_room_beside(key, None, self.now) {
            self.displaced.push((displaced.place, displaced.farewell));
        }
        step
    }

    /// One visitor that says this in one piece.
    fn one(rules: Rules, peer: &str, text: impl AsRef<[u8]>) -> Step {
        let mut hall = Self::new(rules);
        let key = hall.enter(address(peer));
        hall.says(key, text)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn error(step: &Step) -> Value {
    let Step::Answer(line) = step else {
        panic!("{step:?}");
    };
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
    serde_json::from_str(line).unwrap()
}

fn code(step: &Step) -> i64 {
    error(step)["error"]["code"].as_i64().unwrap()
}

fn admission(step: Step) -> Admission {
    match step {
        Step::Admit(admission) => admission,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_right_token_lets_in_and_all_that_came_goes_along() {
    let stream = format!("\n{HANDSHAKE}{{\"method\":\"x\"}}\n");
    for cut in 0..stream.len() {
        let mut hall = Hall::new(with_tokens());
        let key = hall.enter(address("192.0.2.1:7"));
        let (head, tail) = stream.split_at(cut);
        let (step, rest) = match hall.says(key, head) {
            Step::Wait => (hall.says(key, tail), ""),
            admitted => (admitted, tail),
        };
        let admitted = admission(step);
        assert_eq!(admitted.client, address("192.0.2.1:7"));
        assert_eq!(admitted.identity.unwrap().to_string(), "token:ann");
        let early = String::from_utf8(admitted.early).unwrap();
        assert_eq!(early + rest, stream);
        assert_eq!(hall.entrance.leave(key), Some(1));
        assert!(hall.entrance.is_empty());
    }
}

#[test]
fn a_first_line_without_a_line_end_counts_at_the_end_of_the_stream() {
    let mut hall = Hall::new(with_tokens());
    let key = hall.enter(address("192.0.2.1:7"));
    assert_eq!(hall.says(key, HANDSHAKE.trim_end()), Step::Wait);
    let early = admission(hall.entrance.eof(key, hall.now)).early;
    assert_eq!(early, HANDSHAKE.trim_end().as_bytes());
    let silent = hall.enter(address("192.0.2.1:7"));
    assert_eq!(hall.entrance.eof(silent, hall.now), Step::Close);
}

#[test]
fn whoever_shows_no_token_is_told_so_under_the_id_of_the_request() {
    let refused = |line: &str| error(&Hall::one(with_tokens(), "192.0.2.1:7", line));
    let request = refused("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"initialize\"}\n{}\n");
    assert_eq!(request["id"], json!("a"));
    assert_eq!(request["error"]["code"], json!(401));
    let data = json!({"source": "mcp-tcp-proxy", "reason": "unauthorized"});
    assert_eq!(request["error"]["data"], data);
    for line in [
        "{\"type\":\"handshake\"}\n",
        "{\"type\":\"handshake\",\"token\":\"mtp_0123456789abcdee\"}\n",
        "{\"type\":\"handshake\",\"token\":\"\"}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n",
        "nonsense\n",
        "\u{7f}\n",
        &format!("{}\n", " x".repeat(5000)),
    ] {
        let error = refused(line);
        assert_eq!(
            (&error["id"], error["error"]["code"].as_i64()),
            (&Value::Null, Some(401))
        );
    }
}

#[test]
fn a_token_for_another_server_is_not_good_for_this_one() {
    let line = "{\"type\":\"handshake\",\"token\":\"of-ben-alone-1234\"}\n";
    let step = Hall::one(with_tokens(), "192.0.2.1:7", line);
    assert_eq!(code(&step), 403);
    assert_eq!(error(&step)["error"]["data"]["reason"], json!("forbidden"));
}

#[test]
fn nothing_after_a_refused_first_line_is_looked_at() {
    let mut hall = Hall::new(with_tokens());
    let key = hall.enter(address("192.0.2.1:7"));
    assert_eq!(code(&hall.says(key, "{}\n")), 401);
    for _ in 0..3 {
        assert_eq!(hall.says(key, HANDSHAKE), Step::Wait);
    }
    let flood = vec![b'x'; 1024 * 1024];
    assert_eq!(hall.says(key, flood), Step::Close);
    let other = hall.enter(address("192.0.2.1:8"));
    assert_eq!(code(&hall.says(other, "{}\n")), 401);
    assert_eq!(hall.entrance.eof(other, hall.now), Step::Close);
}

#[test]
fn other_protocols_are_told_so_in_their_own_if_at_all() {
    let rules = with_tokens();
    let http = Hall::one(
        rules.clone(),
        "192.0.2.1:7",
        "POST / HTTP/1.1\r\nHost: x\r\n\r\n{}\n",
    );
    assert!(matches!(http, Step::Answer(text) if text.starts_with("HTTP/1.1 400 ")));
    for stream in ["SSH-2.0-x\r\n", "\u{16}\u{3}\u{1}", "PROXY UNKNOWN\r\n"] {
        let step = Hall::one(rules.clone(), "192.0.2.1:7", stream);
        assert_eq!(step, Step::Answer(String::new()), "{stream}");
    }
}

#[test]
fn who_is_slow_is_told_so_and_cut_off_if_that_does_not_help() {
    let mut hall = Hall::new(with_tokens());
    let key = hall.enter(address("192.0.2.1:7"));
    hall.pass(Duration::from_secs(9));
    assert_eq!(hall.says(key, "{\"type\""), Step::Wait);
    assert_eq!(hall.entrance.deadline(key, hall.now), Step::Wait, "not yet");
    hall.pass(Duration::from_secs(1));
    assert_eq!(hall.entrance.next_deadline(key), Some(hall.now));
    assert_eq!(code(&hall.entrance.deadline(key, hall.now)), 408);
    hall.pass(Duration::from_secs(1));
    assert_eq!(hall.entrance.deadline(key, hall.now), Step::Close);
}

#[test]
fn after_three_failures_refusals_wait_and_right_tokens_do_not() {
    let mut hall = Hall::new(with_tokens());
    let client = || address("192.0.2.1:7");
    for _ in 0..3 {
        let key = hall.enter(client());
        assert_eq!(code(&hall.says(key, "x\n")), 401);
    }
    let late = hall.enter(client());
    assert_eq!(hall.says(late, "x\n"), Step::Wait);
    assert!(!hall.entrance.wants_input(late));
    let right = hall.enter(client());
    admission(hall.says(right, HANDSHAKE));
    let other = hall.enter(address("192.0.2.2:7"));
    assert_eq!(code(&hall.says(other, "x\n")), 401);
    hall.pass(Duration::from_secs(1));
    assert_eq!(code(&hall.entrance.deadline(late, hall.now)), 401);
}

#[test]
fn the_oldest_of_an_origin_makes_room_and_is_told_so() {
    let capacity = Capacity {
        places: 10,
        of_one_origin: 2,
    };
    let mut hall = Hall::with_capacity(with_tokens(), capacity);
    hall.enter(address("192.0.2.1:1"));
    let second = hall.enter(address("192.0.2.1:2"));
    hall.enter(address("192.0.2.2:1"));
    assert!(hall.displaced.is_empty());
    hall.enter(address("192.0.2.1:3"));
    let (number, farewell) = hall.displaced.pop().unwrap();
    let farewell = error(&Step::Answer(farewell.unwrap()));
    assert_eq!((number, &farewell["error"]["code"]), (1, &json!(429)));
    assert_eq!(
        farewell["error"]["data"]["reason"],
        json!("too_many_connections")
    );
    admission(hall.says(second, HANDSHAKE));
    hall.entrance.leave(second);
    hall.enter(address("192.0.2.1:4"));
    assert!(hall.displaced.is_empty());
}

#[test]
fn whoever_holds_most_makes_room_for_a_newcomer_who_speaks_at_once() {
    let capacity = Capacity {
        places: 8,
        of_one_origin: 6,
    };
    let mut hall = Hall::with_capacity(with_tokens(), capacity);
    for stranger in 0..1000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + stranger % 3);
        let port = u16::try_from(stranger).unwrap() + 1;
        hall.enter(SocketAddr::from((ip, port)).into());
        if stranger % 100 == 99 {
            let key = hall.enter(address("192.0.2.1:1"));
            admission(hall.says(key, HANDSHAKE));
            hall.entrance.leave(key);
        }
        assert!(hall.entrance.len() <= 8);
    }
}

#[test]
fn a_balancer_says_whose_connection_it_is_and_its_own_address_does_not_matter() {
    let rules = Rules {
        allow: vec![Network::parse("192.0.2.0/24").unwrap()],
        ..behind_balancer()
    };
    let header = "PROXY TCP4 192.0.2.9 10.0.0.1 1234 80\r\n";
    let mut hall = Hall::new(rules.clone());
    let key = hall.enter(address("10.0.0.1:5"));
    assert_eq!(
        hall.says(key, header),
        Step::Wait,
        "it may be a health check"
    );
    let admitted = admission(hall.says(key, "{}\n"));
    assert_eq!(admitted.client, address("192.0.2.9:1234"));
    assert_eq!(
        (admitted.identity, admitted.early),
        (None, b"{}\n".to_vec())
    );
    let together = Hall::one(rules.clone(), "10.0.0.1:5", format!("{header}{{}}\n"));
    assert_eq!(admission(together).early, b"{}\n");
    for (text, what) in [
        (
            "PROXY TCP4 192.0.3.9 10.0.0.1 1234 80\r\n{}\n",
            "not allowed",
        ),
        ("PROXY UNKNOWN\r\n{}\n", "unknown"),
        ("{}\n", "no header"),
        ("GET / HTTP/1.1\r\n", "no header"),
    ] {
        assert_eq!(
            Hall::one(rules.clone(), "10.0.0.1:5", text),
            Step::Close,
            "{what}"
        );
    }
    let unknown = Hall::one(behind_balancer(), "10.0.0.1:5", "PROXY UNKNOWN\r\n{}\n");
    assert_eq!(admission(unknown).client, ClientAddress::Unknown);
}

#[test]
fn a_health_check_is_none_of_a_client() {
    let mut hall = Hall::new(behind_balancer());
    let key = hall.enter(address("10.0.0.1:5"));
    assert_eq!(
        hall.says(key, "PROXY TCP4 192.0.2.9 10.0.0.1 1 80\r\n"),
        Step::Wait
    );
    assert_eq!(hall.entrance.eof(key, hall.now), Step::Close);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0more";
    assert_eq!(
        Hall::one(behind_balancer(), "10.0.0.1:5", local),
        Step::Close
    );
}

#[test]
fn behind_a_balancer_the_clients_origin_has_the_limit() {
    let capacity = Capacity {
        places: 10,
        of_one_origin: 2,
    };
    let mut hall = Hall::with_capacity(behind_balancer(), capacity);
    let keys: Vec<VisitorKey> = (0..5).map(|_| hall.enter(address("10.0.0.1:5"))).collect();
    assert!(hall.displaced.is_empty());
    for key in &keys {
        hall.says(*key, "PROXY TCP4 192.0.2.9 10.0.0.1 1234 80\r\n");
    }
    let displaced: Vec<usize> = hall.displaced.iter().map(|(number, _)| *number).collect();
    assert_eq!(displaced, [1, 2, 3]);
}

#[test]
fn tls_comes_between_the_address_and_the_token() {
    let rules = Rules {
        tls: true,
        ..with_tokens()
    };
    let mut hall = Hall::new(rules.clone());
    let key = hall.enter(address("192.0.2.1:7"));
    let hello = b"\x16\x03\x01\x00";
    assert_eq!(hall.says(key, hello), Step::StartTls(hello.to_vec()));
    assert_eq!(hall.entrance.tls_done(key, None, hall.now), Step::Wait);
    admission(hall.says(key, HANDSHAKE));
    let plain = Hall::one(rules.clone(), "192.0.2.1:7", HANDSHAKE);
    assert_eq!(code(&plain), 400);
    assert_eq!(
        error(&plain)["error"]["data"]["reason"],
        json!("tls_required")
    );
    let mut hall = Hall::new(rules.clone());
    let key = hall.enter(address("192.0.2.1:7"));
    assert_eq!(hall.says(key, "GET / HT"), Step::Wait, "it may be anything");
    assert!(matches!(hall.says(key, "TP/1.1\r\n"), Step::Answer(text) if text.starts_with("HTTP")));
    let http = Hall::one(rules, "192.0.2.1:7", "GET / HTTP/1.1\r\n");
    assert!(matches!(http, Step::Answer(text) if text.starts_with("HTTP/1.1 400 ")));
}

#[test]
fn a_certificate_has_a_name_and_may_be_limited() {
    let certificates = "laptop certificate default\nother certificate weather";
    let rules = Rules {
        tls: true,
        tokens: Some(Tokens::parse(certificates).unwrap()),
        timeout: DEFAULT_TIMEOUT,
        ..Rules::default()
    };
    let shows = |name: Option<&str>| {
        let mut hall = Hall::new(rules.clone());
        let key = hall.enter(address("192.0.2.1:7"));
        hall.says(key, b"\x16\x03\x01");
        hall.entrance.tls_done(key, name, hall.now)
    };
    let identity = admission(shows(Some("laptop"))).identity.unwrap();
    assert_eq!(identity.to_string(), "cert:laptop");
    assert_eq!(code(&shows(Some("other"))), 403);
    assert_eq!(code(&shows(Some("no name"))), 403);
    admission(shows(Some("not-limited")));
    assert_eq!(
        shows(None),
        Step::Wait,
        "without a certificate a token is needed"
    );
}

#[test]
fn before_tls_is_done_nobody_is_told_anything() {
    let rules = Rules {
        tls: true,
        ..behind_balancer()
    };
    for said in [
        &b""[..],
        b"PROXY TCP4 192.0.2.9 10.0.0.1 1 80\r\n",
        b"PROXY TCP4 192.0.2.9 10.0.0.1 1 80\r\n\x16\x03",
    ] {
        let mut hall = Hall::new(rules.clone());
        let key = hall.enter(address("10.0.0.1:5"));
        hall.says(key, said);
        hall.pass(DEFAULT_TIMEOUT);
        assert_eq!(hall.entrance.deadline(key, hall.now), Step::Close);
    }
}

#[test]
fn nothing_that_was_sent_is_in_debug_output() {
    let mut hall = Hall::new(with_tokens());
    let key = hall.enter(address("192.0.2.1:7"));
    hall.says(key, HANDSHAKE.trim_end());
    let visitors = format!("{:?} {:?}", hall.entrance, hall.entrance.visitors[key.0]);
    let step = format!("{:?}", hall.says(key, "\n"));
    assert!(visitors.contains("192.0.2.1:7") && step.contains("ann"));
    for debug in [visitors, step] {
        assert!(
            !debug.contains(TOKEN) && !debug.contains("109, 116, 112"),
            "{debug}"
        );
    }
}

fn with_choice(default: Option<ServiceKey>) -> Rules {
    let names = ["time", "git"].map(Name::new);
    Rules {
        servers: Directory::new(names.into(), default),
        timeout: DEFAULT_TIMEOUT,
        ..Rules::default()
    }
}

/// Which server a visitor gets.
fn service(step: &Step) -> Option<ServiceKey> {
    match step {
        Step::Admit(admission) => Some(admission.service),
        _ => None,
    }
}

const FOR_GIT: &str = "{\"type\":\"handshake\",\"server\":\"git\"}\n";

#[test]
fn the_first_line_says_which_server_is_wanted() {
    let (time, git) = (ServiceKey(0), ServiceKey(1));
    let one = |default, text: &str| Hall::one(with_choice(default), "192.0.2.1:1", text);
    assert_eq!(service(&one(None, FOR_GIT)), Some(git));
    assert_eq!(service(&one(Some(time), FOR_GIT)), Some(git));
    assert_eq!(service(&one(Some(time), "{}\n")), Some(time));
    let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(MAX_FIRST_LINE_BYTES));
    assert_eq!(service(&one(Some(time), &long)), Some(time));
    let unknown = FOR_GIT.replace("git", "gi");
    for (default, text) in [(None, "{}\n"), (None, &long), (Some(time), &unknown)] {
        let step = one(default, text);
        let Step::Answer(told) = &step else {
            panic!("{step:?}");
        };
        assert!(told.contains("\"code\":404,"), "{told}");
        assert!(!told.contains("git") && !told.contains("time"), "{told}");
    }
}

#[test]
fn a_door_of_its_own_is_that_servers_alone() {
    let rules = with_choice(None);
    let client = address("192.0.2.1:1");
    assert_eq!(rules.judge(None, client), Arrival::Asked);
    assert_eq!(rules.judge(Some(ServiceKey(1)), client), Arrival::Free);
    let mut hall = Hall::new(Rules {
        tokens: with_tokens().tokens,
        ..rules
    });
    let mut says = |text: &str| {
        let key = hall
            .entrance
            .enter_for(Some(ServiceKey(1)), client, 0, hall.now);
        hall.says(key, text)
    };
    assert_eq!(service(&says(HANDSHAKE)), Some(ServiceKey(1)));
    let other = HANDSHAKE.replace('}', ",\"server\":\"time\"}");
    assert!(matches!(says(&other), Step::Answer(told) if told.contains("404")));
}

#[test]
fn tokens_and_certificates_are_good_for_the_servers_that_they_name() {
    let tokens = "ann of-ann-alone-1234 git\nlaptop certificate time";
    let rules = || Rules {
        tokens: Some(Tokens::parse(tokens).unwrap()),
        ..with_choice(None)
    };
    let says = |token: &str, server: &str| {
        let line = json!({"type": "handshake", "token": token, "server": server});
        match Hall::one(rules(), "192.0.2.1:1", format!("{line}\n")) {
            Step::Admit(admission) => Ok(admission.service),
            Step::Answer(told) => {
                let told: Value = serde_json::from_str(&told).unwrap();
                Err(told["error"]["code"].as_i64().unwrap())
            }
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(says("of-ann-alone-1234", "git"), Ok(ServiceKey(1)));
    assert_eq!(says("of-ann-alone-1234", "time"), Err(403));
    assert_eq!(says("of-ann-alone-1234", "none"), Err(404));
    assert_eq!(says("of-ann-alone-1235", "none"), Err(401));
}
