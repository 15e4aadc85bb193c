//! Sessions that go on with new servers because the user wants that.

use super::*;
use crate::session::SwapEnd;

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
const CANCEL: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
const OTHER_CAPABILITIES: &str =
    r#""result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}"#;
const OTHER_VERSION: &str = r#""result":{"protocolVersion":"2024-11-05","capabilities":{}}"#;
const BEGINS: [Action; 2] = [Action::BeginSwap, Action::QueueSwap];
const MOVED: [Action; 1] = [Action::EndSwap(SwapEnd::Moved)];

impl World {
    #[track_caller]
    fn swap_wanted(&mut self) {
        self.event(|session, cx| session.handle(Event::SwapWanted, cx));
        assert_eq!(self.took_actions(), BEGINS);
        assert!(self.session.waits_for_turn());
    }

    /// A new server is wanted, and started beside the old one. Returns what it is asked.
    #[track_caller]
    fn successor(&mut self) -> Vec<String> {
        self.swap_wanted();
        self.event(|session, cx| session.handle(Event::SuccessorStarted { pid: Some(8) }, cx));
        self.successor_got()
    }

    fn successor_got(&mut self) -> Vec<String> {
        let text = self.session.to_successor().to_vec();
        self.event(|session, cx| session.handle(Event::SuccessorWritten(text.len()), cx));
        lines(text)
    }

    fn successor_says(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.event(|session, cx| session.handle(Event::SuccessorBytes(line.as_bytes()), cx));
    }

    /// The new server answers what it was asked in this way.
    fn successor_answers(&mut self, asked: &[String], outcome: &str) {
        let question: Value = serde_json::from_str(&asked[0]).unwrap();
        let line = format!(r#"{{"jsonrpc":"2.0","id":{},{outcome}}}"#, question["id"]);
        self.successor_says(&line);
    }

    /// It is to take the place of the old one, and does.
    #[track_caller]
    fn moves(&mut self) {
        assert_eq!(self.took_actions(), [Action::MoveUpstream]);
        assert!(self.session.wants_move());
        self.event(|session, cx| session.handle(Event::UpstreamMoved, cx));
        assert_eq!(self.took_actions(), MOVED);
    }

    #[track_caller]
    fn is_not_fit(&mut self, words: &str) {
        let end = SwapEnd::Failed { had_turn: true };
        assert_eq!(self.took_actions(), [Action::EndSwap(end)]);
        let failure = self.session.swap_failure().unwrap();
        assert!(failure.contains(words), "{failure}");
        self.event(|session, cx| session.handle(Event::SwapOver, cx));
        assert_eq!(self.took_actions(), []);
        assert!(!self.session.is_swapping() && self.session.swap_failure().is_none());
    }

    /// The old server serves, as if nothing had been.
    #[track_caller]
    fn goes_on(&mut self, number: u64) {
        self.client(&request(number));
        assert_eq!(self.server_got(), [request(number)]);
        self.server(&response(number));
        assert_eq!(self.client_got(), [response(number)]);
    }
}

/// A modern session that has got its first response.
fn modern() -> World {
    let mut world = World::up();
    world.client(MODERN);
    assert_eq!(world.server_got(), [MODERN]);
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    world
}

#[test]
fn a_legacy_session_moves_once_the_new_server_has_agreed_and_nobody_waits() {
    let mut world = World::greeted();
    for number in 2..10 {
        let asked = world.successor();
        replay_id(&asked);
        world.goes_on(number);
        world.successor_answers(&asked, OTHER_CAPABILITIES);
        world.client(&request(100 + number));
        assert_eq!(world.server_got(), [] as [&str; 0]);
        world.moves();
        assert_eq!(world.server_got(), [INITIALIZED, &request(100 + number)]);
        world.server(&response(100 + number));
        assert_eq!(world.client_got(), [response(100 + number)]);
    }
    let summary = world.session.summary(world.now).to_string();
    assert!(!summary.contains("restart"), "{summary}");
}

#[test]
fn what_is_in_flight_is_finished_and_what_is_new_waits() {
    let mut world = World::greeted();
    world.client(&request(2));
    world.client(&request(3));
    assert_eq!(world.server_got().len(), 2);
    world.server(&request(7));
    assert_eq!(world.client_got(), [request(7)]);
    let asked = world.successor();
    world.successor_answers(&asked, r#""result":{"protocolVersion":"2025-06-18"}"#);
    world.client(&request(4));
    world.client(&response(7));
    world.client(CANCEL);
    assert_eq!(
        world.server_got(),
        [&response(7), CANCEL],
        "for the old one"
    );
    world.pass(29 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.server(&response(3));
    world.moves();
    assert_eq!(world.client_got(), [response(3)]);
    assert_eq!(world.server_got(), [INITIALIZED, &request(4)]);
}

#[test]
fn a_request_that_the_old_server_never_answers_is_lost_after_half_a_minute() {
    let mut world = World::greeted();
    world.client(&request(2));
    assert_eq!(world.server_got(), [request(2)]);
    let asked = world.successor();
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    world.client(&request(3));
    world.pass(29_999 * MILLISECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(MILLISECOND);
    world.moves();
    let error = world.client_got_error(&json!(2), 502, "process_terminated");
    assert_eq!(error["error"]["data"]["delivered"], true);
    assert_eq!(world.server_got(), [INITIALIZED, &request(3)]);
}

#[test]
fn lines_that_the_old_server_has_not_taken_are_for_the_new_one() {
    let mut world = World::greeted();
    let asked = world.successor();
    world.client(&request(2));
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    world.client(&request(3));
    world.pass(30 * SECOND);
    world.moves();
    assert_eq!(world.server_got(), [INITIALIZED, &request(2), &request(3)]);
    assert_eq!(world.client_got(), [] as [&str; 0]);
}

#[test]
fn a_new_server_that_is_not_fit_changes_nothing() {
    for (outcome, words) in [
        (OTHER_VERSION, "the same version of MCP"),
        (r#""error":{"code":1,"message":"no"}"#, "the same version"),
    ] {
        let mut world = World::greeted();
        let asked = world.successor();
        world.successor_answers(&asked, outcome);
        world.is_not_fit(words);
        world.goes_on(2);
    }
    let mut world = World::greeted();
    world.successor();
    world.pass(10 * SECOND);
    world.is_not_fit("not answered within 10 s");
    world.goes_on(2);
}

#[test]
fn a_new_server_that_dies_or_can_not_be_started_changes_nothing() {
    let mut world = World::greeted();
    let asked = world.successor();
    let event = Event::SuccessorStderr(b"no such module\n");
    world.event(|session, cx| session.handle(event, cx));
    let event = Event::SuccessorEnded(Some(Exit::Code(1)));
    world.event(|session, cx| session.handle(event, cx));
    world.is_not_fit("it ended (exit code 1); its last line on stderr: no such module");
    world.goes_on(2);
    let end = SwapEnd::Failed { had_turn: false };
    world.swap_wanted();
    world.event(|session, cx| session.handle(Event::SuccessorFailed("no such file"), cx));
    assert_eq!(world.took_actions(), [Action::EndSwap(end)]);
    world.event(|session, cx| session.handle(Event::SwapOver, cx));
    world.goes_on(3);
    // One that dies while the old one finishes.
    world.client(&request(4));
    assert_eq!(world.server_got(), [request(4)]);
    let again = world.successor();
    assert_ne!(asked, again, "each replay has an id of its own");
    world.successor_answers(&again, OTHER_CAPABILITIES);
    world.client(&request(5));
    world.event(|session, cx| session.handle(event, cx));
    assert_eq!(world.server_got(), [request(5)], "it waited for nothing");
    world.is_not_fit("it ended (exit code 1)");
}

#[test]
fn a_modern_session_moves_if_the_new_server_speaks_its_version() {
    let mut world = modern();
    let asked = world.successor();
    assert!(
        asked[0].contains(r#""method":"server/discover""#),
        "{asked:?}"
    );
    assert!(asked[0].contains(r#""2026-07-28""#), "{asked:?}");
    world.successor_answers(&asked, r#""result":{"supportedVersions":["2027-01-01"]}"#);
    world.is_not_fit("version");
    let asked = world.successor();
    world.successor_answers(&asked, r#""result":{"supportedVersions":["2026-07-28"]}"#);
    world.moves();
    world.goes_on(2);
}

#[test]
fn an_open_subscription_gets_its_result() {
    let mut world = modern();
    world.client(LISTEN);
    assert_eq!(world.server_got(), [LISTEN]);
    let asked = world.successor();
    world.successor_answers(&asked, r#""result":{}"#);
    let told = world.server_got();
    assert!(told[0].contains("notifications/cancelled"), "{told:?}");
    let got = world.client_got_json();
    assert_eq!(
        (&got[0]["id"], &got[0]["result"]["resultType"]),
        (&json!("l"), &json!("complete"))
    );
    world.moves();
    world.client(LISTEN);
    assert_eq!(world.server_got(), [LISTEN]);
}

#[test]
fn a_session_in_the_middle_of_a_question_to_the_user_moves_when_that_is_over() {
    let state =
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s"}}"#;
    let begin = || {
        let mut world = World::up();
        world.client(MODERN);
        world.server_got();
        world.server(state);
        world.client_got();
        world.event(|session, cx| session.handle(Event::SwapWanted, cx));
        assert_eq!(world.took_actions(), [Action::BeginSwap]);
        world
    };
    let mut world = begin();
    world.pass(Duration::from_mins(9));
    assert_eq!(world.took_actions(), []);
    let brought = MODERN.replace(r#""id":1"#, r#""id":2"#);
    let brought = brought.replace(r#""params":{"#, r#""params":{"requestState":"s","#);
    world.client(&brought);
    assert_eq!(world.took_actions(), [Action::QueueSwap]);
    let mut world = begin();
    world.pass(Duration::from_mins(10));
    assert_eq!(world.took_actions(), [Action::QueueSwap], "not for ever");
}

#[test]
fn a_question_to_the_user_that_comes_late_lets_requests_pass_again() {
    let mut world = modern();
    let second = MODERN.replace(r#""id":1"#, r#""id":2"#);
    world.client(&second);
    world.server_got();
    let asked = world.successor();
    world.successor_answers(&asked, r#""result":{}"#);
    let third = MODERN.replace(r#""id":1"#, r#""id":3"#);
    let third = third.replace(r#""params":{"#, r#""params":{"requestState":"s","#);
    let state =
        r#"{"jsonrpc":"2.0","id":2,"result":{"resultType":"input_required","requestState":"s"}}"#;
    world.client(&request(9));
    assert_eq!(world.server_got(), [] as [&str; 0]);
    world.server(state);
    assert_eq!(world.took_actions(), []);
    assert_eq!(world.server_got(), [request(9)]);
    world.server(&response(9));
    world.client(&third);
    assert_eq!(world.server_got(), [third]);
    world.server(&response(3));
    world.moves();
}

#[test]
fn a_session_in_the_middle_of_its_handshake_moves_after_it() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.server_got();
    world.event(|session, cx| session.handle(Event::SwapWanted, cx));
    assert_eq!(world.took_actions(), [Action::BeginSwap]);
    world.server(AGREED);
    assert_eq!(world.took_actions(), [Action::QueueSwap]);
    world.event(|session, cx| session.handle(Event::SuccessorStarted { pid: Some(8) }, cx));
    let asked = world.successor_got();
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    world.moves();
    assert_eq!(
        world.server_got(),
        [] as [&str; 0],
        "the client has not said so"
    );
    world.client(INITIALIZED);
    assert_eq!(world.server_got(), [INITIALIZED]);
}

#[test]
fn a_handshake_that_begins_anew_has_the_new_server_asked_anew() {
    let mut world = World::greeted();
    world.successor();
    world.client(INITIALIZE);
    assert_eq!(world.took_actions(), [Action::EndSwap(SwapEnd::Again)]);
    world.server_got();
    world.server(AGREED);
    assert_eq!(world.took_actions(), [Action::QueueSwap]);
}

#[test]
fn of_a_session_without_a_handshake_the_new_server_has_to_live_for_a_while() {
    for has_spoken in [false, true] {
        let mut world = World::up();
        if has_spoken {
            world.goes_on(1);
        }
        assert_eq!(world.successor(), [] as [&str; 0]);
        world.successor_says(r#"{"method":"early"}"#);
        world.pass(499 * MILLISECOND);
        assert_eq!(world.took_actions(), []);
        world.pass(MILLISECOND);
        world.moves();
        assert_eq!(world.client_got(), [r#"{"method":"early"}"#]);
        world.goes_on(2);
    }
}

#[test]
fn what_the_new_server_says_before_it_is_used_comes_after_what_the_old_one_has_said() {
    let mut world = World::greeted();
    let asked = world.successor();
    world.successor_says(r#"{"method":"new"}"#);
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    assert!(!world.session.wants_successor_output());
    world.server(r#"{"method":"old"}"#);
    world.moves();
    assert_eq!(
        world.client_got(),
        [r#"{"method":"old"}"#, r#"{"method":"new"}"#]
    );
}

#[test]
fn lists_that_may_have_changed_are_told_of_and_what_was_set_up_is_set_up_again() {
    let lists = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}}}}"#;
    let subscribe =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a"}}"#;
    let mut world = World::up();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    world.server_got();
    world.server(lists);
    world.client(subscribe);
    world.server_got();
    world.server(&response(2));
    world.client_got();
    let asked = world.successor();
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    world.moves();
    let got = world.client_got_json();
    assert_eq!(got[0]["method"], "notifications/tools/list_changed");
    let set_up = world.server_got();
    assert_eq!(set_up[0], INITIALIZED);
    assert!(
        set_up[1].contains(r#""method":"resources/subscribe""#),
        "{set_up:?}"
    );
    // From now on the new capabilities count.
    world.server_dies(Exit::Signal(9));
    world.took_actions();
    world.pass(2 * SECOND);
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(9) }, cx));
    world.client(&request(3));
    let id = replay_id(&world.server_got());
    world.server(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},{OTHER_CAPABILITIES}}}"#
    ));
    let restored = world.server_got();
    assert_eq!(restored.last(), Some(&request(3)), "{restored:?}");
}

#[test]
fn questions_of_the_old_server_are_taken_back() {
    let mut world = World::greeted();
    world.server(&request(7));
    assert_eq!(world.client_got(), [request(7)]);
    let asked = world.successor();
    world.successor_answers(&asked, OTHER_CAPABILITIES);
    world.moves();
    let got = world.client_got_json();
    assert_eq!(got[0]["method"], "notifications/cancelled");
    assert_eq!(world.server_got(), [INITIALIZED]);
    world.client(&response(7));
    assert_eq!(world.server_got(), [] as [&str; 0]);
}

#[test]
fn a_session_that_loses_its_server_or_ends_has_nothing_to_be_moved() {
    let over = Action::EndSwap(SwapEnd::Over { had_turn: true });
    let mut world = World::greeted();
    let asked = world.successor();
    world.server_dies(Exit::Signal(9));
    assert!(world.took_actions().contains(&over));
    assert!(!world.session.is_swapping());
    let mut world = World::greeted();
    world.client(&request(2));
    world.server_got();
    world.successor();
    world.client_ends();
    assert_eq!(world.took_actions(), [over]);
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
    let mut world = World::greeted();
    let again = world.successor();
    assert_eq!(asked, again);
    world.successor_answers(&again, OTHER_CAPABILITIES);
    // The old one dies before the two were exchanged.
    world.server_exits(Exit::Signal(9));
    assert!(!world.session.wants_move());
    assert_eq!(world.took_actions(), [Action::MoveUpstream, over]);
}

#[test]
fn what_has_no_server_has_nothing_to_be_moved() {
    let mut world = World::greeted();
    world.server_dies(Exit::Signal(9));
    world.took_actions();
    world.event(|session, cx| session.handle(Event::SwapWanted, cx));
    assert_eq!(world.took_actions(), []);
    let mut world = World::connector();
    world.took_actions();
    world.event(|session, cx| session.handle(Event::SwapWanted, cx));
    assert_eq!(world.took_actions(), []);
}

#[test]
fn a_session_whose_handshake_can_not_be_replayed_keeps_its_server() {
    let mut world = World::with(|settings| settings.replays = false);
    world.start();
    world.client(INITIALIZE);
    world.server_got();
    world.server(AGREED);
    world.event(|session, cx| session.handle(Event::SwapWanted, cx));
    let over = Action::EndSwap(SwapEnd::Over { had_turn: false });
    assert_eq!(world.took_actions(), [Action::BeginSwap, over]);
}

/// The old server has gone first, and the next one was started.
#[track_caller]
fn in_place(world: &mut World) {
    world.swap_wanted();
    world.event(|session, cx| session.handle(Event::SwapInPlace, cx));
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.client(&request(3));
    world.server_dies(Exit::Code(0));
    world.start_next();
}

#[test]
fn the_old_server_may_have_to_go_first() {
    let mut world = World::greeted();
    in_place(&mut world);
    let asked = world.server_got();
    let id = replay_id(&asked);
    world.server(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},{OTHER_CAPABILITIES}}}"#
    ));
    assert_eq!(world.took_actions(), MOVED);
    assert_eq!(world.server_got(), [INITIALIZED, &request(3)]);
    world.server(&response(3));
    assert_eq!(world.client_got(), [response(3)], "and no notice");
    world.pass(SECOND);
    assert_eq!(world.client_got(), [] as [&str; 0]);
    let summary = world.session.summary(world.now).to_string();
    assert!(!summary.contains("restart"), "{summary}");
}

#[test]
fn one_that_takes_the_place_of_another_and_is_not_fit_is_like_any_that_is_lost() {
    let failed = Action::EndSwap(SwapEnd::Failed { had_turn: true });
    let mut world = World::greeted();
    in_place(&mut world);
    world.server_got();
    world.server_dies(Exit::Code(1));
    let actions = world.took_actions();
    assert!(actions.contains(&failed), "{actions:?}");
    assert!(world.session.swap_failure().is_some());
    let mut world = World::greeted();
    in_place(&mut world);
    let id = replay_id(&world.server_got());
    world.server(&format!(r#"{{"jsonrpc":"2.0","id":{id},{OTHER_VERSION}}}"#));
    let actions = world.took_actions();
    assert!(actions.contains(&failed), "{actions:?}");
    world.client_got_error(&json!(3), 503, "server_changed");
}
