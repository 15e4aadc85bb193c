//! The tools of the demo server: their names, arguments and results. A call that takes time or ends the process is
//! described here and carried out elsewhere.

use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::message::{Fault, INVALID_PARAMS, Object, fault};

/// The longest `sleep`, in seconds.
const MAX_SLEEP_SECONDS: f64 = 3600.0;

/// How much of a bad argument is shown in the message about it.
const SHOWN_CHARS: usize = 60;

/// Signals that end a process by default. With those that stop it, it would just hang.
const DEADLY_SIGNALS: [&str; 10] = [
    "SIGABRT", "SIGBUS", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGKILL", "SIGQUIT", "SIGSEGV",
    "SIGTERM",
];

/// All tools, as a JSON array on one line. The schemas are of the default dialect of both eras, JSON Schema 2020-12.
pub(super) static LIST: LazyLock<String> =
    LazyLock::new(|| include_str!("tools.json").lines().map(str::trim).collect());

/// What a call comes to. The text is JSON: members of the result.
pub(super) enum Call {
    Done(String),
    Sleep(Duration, String),
    /// This is to be written down first. JSON.
    Note(String, String),
    Crash(Crash),
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    Exit(u8),
    Signal(Signal),
}

/// Reads the `params` of a `tools/call`. A call that names no tool or brings no object is the client's fault, wrong
/// arguments are the model's.
pub(super) fn call(params: &Object) -> Result<Call, Fault> {
    let refuse = |why: &str| fault(INVALID_PARAMS, why);
    let name = params.string("name");
    let name = name.ok_or_else(|| refuse("name is missing or not a string"))?;
    let arguments = params.object("arguments");
    let arguments = arguments.ok_or_else(|| refuse("arguments is not an object"))?;
    let called = match &*name {
        "echo" => echo(&arguments),
        "add" => add(&arguments),
        "sleep" => sleep(&arguments),
        "note" => note(&arguments),
        "crash" => crash(&arguments),
        _ => return Err(refuse(&format!("Unknown tool: {name}"))),
    };
    // 2025-11-25 and newer want a mistake in a result, so that the model sees it and can do better ("Error Handling" of
    // Tools); older clients take it, too.
    Ok(called.unwrap_or_else(|mistake| {
        let content = content(&quoted(&format!("{name}: {mistake}")));
        Call::Done(content + r#","isError":true"#)
    }))
}

fn echo(arguments: &Object) -> Result<Call, String> {
    match arguments.given("text").map(RawValue::get) {
        // Goes back as the JSON it came as: a text of megabytes is never decoded.
        Some(text) if text.starts_with('"') => Ok(Call::Done(content(text))),
        _ => Err(mistake("text", arguments, "a string")),
    }
}

fn note(arguments: &Object) -> Result<Call, String> {
    match arguments.given("text").map(RawValue::get) {
        Some(text) if text.starts_with('"') => {
            Ok(Call::Note(text.to_owned(), content(&quoted("noted"))))
        }
        _ => Err(mistake("text", arguments, "a string")),
    }
}

fn add(arguments: &Object) -> Result<Call, String> {
    let sum = match (number::<i64>("a", arguments), number::<i64>("b", arguments)) {
        (Ok(a), Ok(b)) => (i128::from(a) + i128::from(b)).to_string(),
        _ => (number::<f64>("a", arguments)? + number::<f64>("b", arguments)?).to_string(),
    };
    Ok(Call::Done(content(&quoted(&sum))))
}

fn sleep(arguments: &Object) -> Result<Call, String> {
    let seconds = number("seconds", arguments)?;
    if !(0.0..=MAX_SLEEP_SECONDS).contains(&seconds) {
        let wanted = format!("a number from 0 to {MAX_SLEEP_SECONDS}");
        return Err(mistake("seconds", arguments, &wanted));
    }
    let duration = Duration::from_secs_f64(seconds);
    let slept = format!("slept for {} s", duration.as_secs_f64());
    Ok(Call::Sleep(duration, content(&quoted(&slept))))
}

fn crash(arguments: &Object) -> Result<Call, String> {
    if arguments.given("signal").is_some() {
        let name = arguments.string("signal").unwrap_or_default();
        return match name.parse() {
            Ok(signal) if DEADLY_SIGNALS.contains(&&*name) => {
                Ok(Call::Crash(Crash::Signal(signal)))
            }
            _ => Err(mistake("signal", arguments, &DEADLY_SIGNALS.join(", "))),
        };
    }
    if arguments.given("exit_code").is_none() {
        return Ok(Call::Crash(Crash::Exit(1)));
    }
    // By way of its decimals: to JSON Schema 3.0 is an integer, too.
    let decimals = number::<f64>("exit_code", arguments)?.to_string();
    match decimals.parse() {
        Ok(code) => Ok(Call::Crash(Crash::Exit(code))),
        Err(_) => Err(mistake("exit_code", arguments, "an integer from 0 to 255")),
    }
}

fn number<T: DeserializeOwned>(name: &str, arguments: &Object) -> Result<T, String> {
    let json = arguments.given(name).map_or("", RawValue::get);
    serde_json::from_str(json).map_err(|_| mistake(name, arguments, "a number"))
}

fn mistake(name: &str, arguments: &Object, wanted: &str) -> String {
    let Some(json) = arguments.given(name).map(RawValue::get) else {
        return format!("{name} is missing (wanted: {wanted})");
    };
    let (shown, more) = match json.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => (&json[..end], "…"),
        None => (json, ""),
    };
    format!("{name}: {shown}{more} is not what is wanted: {wanted}")
}

/// `text` is a JSON string.
fn content(text: &str) -> String {
    [r#""content":[{"type":"text","text":"#, text, "}]"].concat()
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(params: &str) -> String {
        match call(&Object::read(params).unwrap()) {
            Ok(Call::Done(content)) => {
                let text = content
                    .strip_prefix(r#""content":[{"type":"text","text":"#)
                    .unwrap();
                match text.split_once("}]").unwrap() {
                    (text, "") => text.to_owned(),
                    (text, more) => {
                        assert_eq!(more, r#","isError":true"#);
                        format!("mistake {text}")
                    }
                }
            }
            Ok(Call::Sleep(duration, _)) => format!("sleep {duration:?}"),
            Ok(Call::Crash(crash)) => format!("{crash:?}"),
            Ok(Call::Note(text, _)) => format!("note {text}"),
            Err(_) => "fault".to_owned(),
        }
    }

    fn called(name: &str, arguments: &str) -> String {
        text(&format!(r#"{{"name":"{name}","arguments":{arguments}}}"#))
    }

    #[test]
    fn schemas_are_json_on_one_line_and_name_the_signals() {
        assert!(!LIST.contains('\n'));
        let tools: serde_json::Value = serde_json::from_str(&LIST).unwrap();
        let names: Vec<&str> = tools
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["echo", "add", "sleep", "note", "crash"]);
        let signals = &tools[4]["inputSchema"]["properties"]["signal"]["enum"];
        assert_eq!(*signals, serde_json::json!(DEADLY_SIGNALS));
    }

    #[test]
    fn echo_keeps_the_text_as_it_was_written() {
        assert_eq!(
            called("echo", r#"{"text":"\u00e9\n\"é"}"#),
            r#""\u00e9\n\"é""#
        );
        assert_eq!(
            called("echo", r#"{"text":5}"#),
            r#"mistake "echo: text: 5 is not what is wanted: a string""#
        );
        assert_eq!(
            text(r#"{"name":"echo"}"#),
            r#"mistake "echo: text is missing (wanted: a string)""#
        );
    }

    #[test]
    fn sums_look_like_sums() {
        for (a, b, sum) in [
            ("2", "3", "5"),
            ("2.0", "3", "5"),
            ("0.5", "0.25", "0.75"),
            ("-2", "-3", "-5"),
            ("9223372036854775807", "1", "9223372036854775808"),
        ] {
            let arguments = format!(r#"{{"a":{a},"b":{b}}}"#);
            assert_eq!(called("add", &arguments), format!("\"{sum}\""));
        }
        assert!(called("add", r#"{"a":"2","b":3}"#).starts_with("mistake"));
        assert!(called("add", r#"{"a":2}"#).contains("b is missing"));
    }

    #[test]
    fn a_note_is_a_text() {
        assert_eq!(called("note", r#"{"text":"\u00e9"}"#), r#"note "\u00e9""#);
        assert!(called("note", r#"{"text":7}"#).starts_with("mistake"));
    }

    #[test]
    fn sleeps_have_limits() {
        assert_eq!(called("sleep", r#"{"seconds":0}"#), "sleep 0ns");
        assert_eq!(called("sleep", r#"{"seconds":3600}"#), "sleep 3600s");
        assert_eq!(called("sleep", r#"{"seconds":0.25}"#), "sleep 250ms");
        for bad in ["-1", "3600.5", "\"1\"", "null", "1e999"] {
            let arguments = format!(r#"{{"seconds":{bad}}}"#);
            let answer = called("sleep", &arguments);
            assert!(answer == "fault" || answer.starts_with("mistake"), "{bad}");
        }
    }

    #[test]
    fn crashes_are_what_was_ordered() {
        assert_eq!(text(r#"{"name":"crash"}"#), "Exit(1)");
        assert_eq!(called("crash", r#"{"exit_code":3}"#), "Exit(3)");
        assert_eq!(called("crash", r#"{"exit_code":3.0}"#), "Exit(3)");
        assert_eq!(
            called("crash", r#"{"signal":"SIGKILL"}"#),
            "Signal(SIGKILL)"
        );
        for signal in DEADLY_SIGNALS {
            let arguments = format!(r#"{{"signal":"{signal}"}}"#);
            assert_eq!(called("crash", &arguments), format!("Signal({signal})"));
        }
        for bad in [
            r#"{"exit_code":256}"#,
            r#"{"exit_code":-1}"#,
            r#"{"exit_code":1.5}"#,
            r#"{"signal":"SIGSTOP"}"#,
            r#"{"signal":9}"#,
        ] {
            assert!(called("crash", bad).starts_with("mistake"), "{bad}");
        }
    }

    #[test]
    fn long_arguments_are_not_repeated_whole() {
        let arguments = format!(r#"{{"seconds":"{}"}}"#, "é".repeat(1000));
        assert!(called("sleep", &arguments).len() < 300);
    }

    #[test]
    fn calls_of_nothing_are_faults() {
        for bad in [
            r#"{"name":"nothing"}"#,
            r#"{"name":5}"#,
            "{}",
            r#"{"name":"echo","arguments":["a"]}"#,
        ] {
            assert_eq!(text(bad), "fault", "{bad}");
        }
    }
}
