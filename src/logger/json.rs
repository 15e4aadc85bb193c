//! Records as JSON, one object a line.

use std::fmt::Write as _;

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use time::OffsetDateTime;

use super::escape;

/// What of a line is neither message nor fields, in bytes.
pub(super) const FRAME_BYTES: usize =
    r#"{"time":"2026-11-22T14:25:18.123Z","level":"error","message":""}"#.len() + 1;

/// The longest text of a field, in bytes.
const MAX_FIELD_BYTES: usize = 128;

/// The fields of a record, as members of an object, each after a comma. `name` is what a record is about that does not say
/// otherwise.
pub(super) fn fields(record: &Record<'_>, target: &str, name: &str) -> String {
    let mut fields = Fields(String::new());
    // What is known of ours is in the fields.
    if target != name && record.key_values().count() == 0 {
        fields.text("target", target);
    }
    // The visitor has no errors of its own.
    let _ = record.key_values().visit(&mut fields);
    fields.0
}

/// An object and a line end, of a message and fields that are escaped.
pub(super) fn line(level: Level, message: &str, fields: &str) -> Vec<u8> {
    let (time, level) = (timestamp(OffsetDateTime::now_utc()), name_of(level));
    let line = format!(
        "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":\"{message}\"{fields}}}\n"
    );
    debug_assert!(line.len() <= message.len() + fields.len() + FRAME_BYTES);
    line.into_bytes()
}

fn name_of(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// As RFC 3339 has it, to the millisecond.
fn timestamp(now: OffsetDateTime) -> String {
    let (hour, minute, second, millis) = now.to_hms_milli();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z",
        now.year(),
        u8::from(now.month()),
        now.day()
    )
}

/// Members of an object, each after a comma. What is null is left out.
struct Fields(String);

impl Fields {
    fn text(&mut self, key: &str, text: &str) {
        let text = escape::json(format_args!("{text}"), MAX_FIELD_BYTES);
        let _ = write!(self.0, ",\"{key}\":\"{text}\"");
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let key = escape::json(format_args!("{key}"), MAX_FIELD_BYTES);
        value.visit(Field { key, fields: self })
    }
}

/// A member whose name is known.
struct Field<'a> {
    key: String,
    fields: &'a mut Fields,
}

impl VisitValue<'_> for Field<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.fields.text(&self.key, &value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        let _ = write!(self.fields.0, ",\"{}\":{value}", self.key);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        let _ = write!(self.fields.0, ",\"{}\":{value}", self.key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::kv::ToValue;

    use super::*;

    fn read(line: &[u8]) -> serde_json::Value {
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn what_is_known_becomes_fields() {
        let pid: Option<u32> = None;
        let kvs: [(&str, Value<'_>); 4] = [
            ("session", 7_u64.into()),
            ("client", "127.0.0.1:\"1".into()),
            ("offset", (-1_i64).into()),
            ("pid", pid.to_value()),
        ];
        let record = Record::builder().key_values(&kvs).build();
        let message = escape::json(format_args!("a\nb"), 100);
        let read = read(&line(
            Level::Warn,
            &message,
            &fields(&record, "session 7", "proxy"),
        ));
        assert_eq!(
            (&read["session"], &read["offset"]),
            (&7.into(), &(-1).into())
        );
        assert_eq!(read["client"], "127.0.0.1:\"1");
        assert_eq!(
            (&read["level"], &read["message"]),
            (&"warn".into(), &"a\nb".into())
        );
        assert!(read.get("target").is_none() && read.get("pid").is_none());
        let record = Record::builder().build();
        assert_eq!(fields(&record, "mio", "proxy"), r#","target":"mio""#);
    }

    #[test]
    fn the_time_is_that_of_rfc_3339() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_007_999_999).unwrap();
        assert_eq!(timestamp(time), "2026-09-21T14:13:20.007Z");
    }

    #[test]
    fn a_message_is_whole_however_long() {
        for text in ["x", "\"", "\u{1}", "\u{202e}", "😀"] {
            let message = escape::json(format_args!("{}", text.repeat(9000)), 4000);
            assert!((3980..=4000).contains(&message.len()), "{text:?}");
            let line = line(Level::Info, &message, "");
            let message = read(&line)["message"].as_str().unwrap().to_owned();
            assert_eq!(message.trim_start_matches(text), "…", "{text:?}");
        }
    }
}
