//! The tools of the demo server: what they are called, what they take, what they give. A call that
//! takes time or ends the process is described here and carried out by others.

use std::borrow::Cow;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::value::RawValue;

use super::answer::Fault;
use super::json::{members, quoted, string};
use super::message::{Params, given};

/// The longest `sleep`, in seconds.
const MAX_SLEEP_SECONDS: f64 = 3600.0;

/// So much of a bad argument is shown in the message about it.
const SHOWN_CHARS: usize = 60;

/// Signals that end a process by default. With those that stop it, it would just hang.
const DEADLY_SIGNALS: [Signal; 10] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGHUP,
    Signal::SIGILL,
    Signal::SIGINT,
    Signal::SIGKILL,
    Signal::SIGQUIT,
    Signal::SIGSEGV,
    Signal::SIGTERM,
];

/// All tools, as the JSON array that `tools/list` answers with. The schemas are of the default dialect
/// of both eras, JSON Schema 2020-12.
pub(super) const LIST: &str = concat!(
    r#"[{"name":"echo","description":"Answers with the text it is given.","#,
    r#""inputSchema":{"type":"object","properties":{"#,
    r#""text":{"type":"string","description":"The text to answer with."}},"#,
    r#""required":["text"]}},"#,
    r#"{"name":"add","description":"Adds two numbers.","#,
    r#""inputSchema":{"type":"object","properties":{"#,
    r#""a":{"type":"number","description":"The first number."},"#,
    r#""b":{"type":"number","description":"The second number."}},"#,
    r#""required":["a","b"]}},"#,
    r#"{"name":"sleep","description":"Answers after a while. Other requests are served meanwhile.","#,
    r#""inputSchema":{"type":"object","properties":{"#,
    r#""seconds":{"type":"number","minimum":0,"maximum":3600,"description":"How long to wait."}},"#,
    r#""required":["seconds"]}},"#,
    r#"{"name":"crash","description":"Ends this server at once, without an answer.","#,
    r#""inputSchema":{"type":"object","properties":{"#,
    r#""exit_code":{"type":"integer","minimum":0,"maximum":255,"default":1,"#,
    r#""description":"The exit code of the process."},"#,
    r#""signal":{"type":"string","enum":["SIGABRT","SIGBUS","SIGFPE","SIGHUP","SIGILL","SIGINT","#,
    r#""SIGKILL","SIGQUIT","SIGSEGV","SIGTERM"],"#,
    r#""description":"Die of this signal instead of exiting."}}}}]"#,
);

/// What a call comes to.
pub(super) enum Call<'a> {
    /// The answer, as a JSON string.
    Text(Cow<'a, str>),
    /// The call was wrong; the message is a JSON string. 2025-11-25 and newer want that in a result, so
    /// that the model sees it and can do better ("Error Handling" of Tools); older clients take it, too.
    Mistake(String),
    Sleep(Duration),
    Crash(Crash),
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    Exit(u8),
    Signal(Signal),
}

/// All that any tool here reads of its arguments. `null` counts as absent.
#[derive(Default)]
struct Arguments<'a> {
    text: Option<&'a RawValue>,
    a: Option<&'a RawValue>,
    b: Option<&'a RawValue>,
    seconds: Option<&'a RawValue>,
    exit_code: Option<&'a RawValue>,
    signal: Option<&'a RawValue>,
}

/// Reads a `tools/call`. A call that names no tool or brings no object is the client's fault, wrong
/// arguments are the model's.
pub(super) fn call<'a>(params: &Params<'a>) -> Result<Call<'a>, Fault> {
    let Some(name) = params.name.and_then(string) else {
        return Err(Fault::invalid_params("name is missing or not a string"));
    };
    let arguments = match params.arguments {
        None => Arguments::default(),
        Some(arguments) => Arguments::read(arguments)
            .ok_or_else(|| Fault::invalid_params("arguments is not an object"))?,
    };
    let called = match &*name {
        "echo" => echo(&arguments),
        "add" => add(&arguments),
        "sleep" => sleep(&arguments),
        "crash" => crash(&arguments),
        _ => return Err(Fault::invalid_params(&format!("Unknown tool: {name}"))),
    };
    Ok(called.unwrap_or_else(|mistake| Call::Mistake(quoted(&format!("{name}: {mistake}")))))
}

impl<'a> Arguments<'a> {
    fn read(json: &'a RawValue) -> Option<Self> {
        let names = ["text", "a", "b", "seconds", "exit_code", "signal"];
        let [text, a, b, seconds, exit_code, signal] =
            members(json.get(), names)?.map(|argument| argument.and_then(given));
        Some(Self {
            text,
            a,
            b,
            seconds,
            exit_code,
            signal,
        })
    }
}

fn echo<'a>(arguments: &Arguments<'a>) -> Result<Call<'a>, String> {
    match arguments.text {
        // Goes back as the JSON it came as: a text of megabytes is never decoded.
        Some(text) if text.get().starts_with('"') => Ok(Call::Text(Cow::Borrowed(text.get()))),
        other => Err(mistake("text", other, "a string")),
    }
}

fn add<'a>(arguments: &Arguments<'a>) -> Result<Call<'a>, String> {
    let a = number("a", arguments.a)?;
    let b = number("b", arguments.b)?;
    let sum = match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => (i128::from(a) + i128::from(b)).to_string(),
        _ => (float(&a) + float(&b)).to_string(),
    };
    Ok(Call::Text(Cow::Owned(quoted(&sum))))
}

fn sleep<'a>(arguments: &Arguments<'a>) -> Result<Call<'a>, String> {
    let seconds = float(&number("seconds", arguments.seconds)?);
    if (0.0..=MAX_SLEEP_SECONDS).contains(&seconds) {
        Ok(Call::Sleep(Duration::from_secs_f64(seconds)))
    } else {
        let wanted = format!("a number from 0 to {MAX_SLEEP_SECONDS}");
        Err(mistake("seconds", arguments.seconds, &wanted))
    }
}

fn crash<'a>(arguments: &Arguments<'a>) -> Result<Call<'a>, String> {
    if let Some(signal) = arguments.signal {
        let name = string(signal).unwrap_or_default();
        return match DEADLY_SIGNALS.iter().find(|known| known.as_str() == name) {
            Some(&signal) => Ok(Call::Crash(Crash::Signal(signal))),
            None => Err(mistake(
                "signal",
                Some(signal),
                &DEADLY_SIGNALS.map(Signal::as_str).join(", "),
            )),
        };
    }
    let Some(exit_code) = arguments.exit_code else {
        return Ok(Call::Crash(Crash::Exit(1)));
    };
    // By way of its decimals: to JSON Schema 3.0 is an integer, too.
    let decimals = float(&number("exit_code", Some(exit_code))?).to_string();
    match decimals.parse() {
        Ok(code) => Ok(Call::Crash(Crash::Exit(code))),
        Err(_) => Err(mistake(
            "exit_code",
            Some(exit_code),
            "an integer from 0 to 255",
        )),
    }
}

fn number(name: &str, argument: Option<&RawValue>) -> Result<serde_json::Number, String> {
    argument
        .and_then(|number| serde_json::from_str(number.get()).ok())
        .ok_or_else(|| mistake(name, argument, "a number"))
}

fn float(number: &serde_json::Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn mistake(name: &str, argument: Option<&RawValue>, wanted: &str) -> String {
    match argument.map(RawValue::get) {
        None => format!("{name} is missing (wanted: {wanted})"),
        Some(json) => match json.char_indices().nth(SHOWN_CHARS) {
            None => format!("{name}: {json} is not what is wanted: {wanted}"),
            Some((end, _)) => format!("{name}: {}… is not what is wanted: {wanted}", &json[..end]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(params: &str) -> String {
        let params = Params::read(Some(serde_json::from_str(params).unwrap()))
            .ok()
            .unwrap();
        match call(&params) {
            Ok(Call::Text(json)) => json.into_owned(),
            Ok(Call::Mistake(json)) => format!("mistake {json}"),
            Ok(Call::Sleep(duration)) => format!("sleep {duration:?}"),
            Ok(Call::Crash(crash)) => format!("{crash:?}"),
            Err(_) => "fault".to_owned(),
        }
    }

    fn called(name: &str, arguments: &str) -> String {
        text(&format!(r#"{{"name":"{name}","arguments":{arguments}}}"#))
    }

    #[test]
    fn schemas_are_json_on_one_line_and_name_the_signals() {
        assert!(!LIST.contains('\n'));
        let tools: serde_json::Value = serde_json::from_str(LIST).unwrap();
        let names: Vec<&str> = tools
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["echo", "add", "sleep", "crash"]);
        let signals = &tools[3]["inputSchema"]["properties"]["signal"]["enum"];
        assert_eq!(
            *signals,
            serde_json::json!(DEADLY_SIGNALS.map(Signal::as_str))
        );
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
