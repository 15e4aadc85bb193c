//! The table against the options: nothing is declared that is not read, nothing read that is not declared, and the
//! texts are true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::super::flag::{DefaultText, Flag, Mode, Options, Set};
use super::all;
use crate::options::{BenchOptions, ConnectOptions, ServeOptions, ServerOptions};

/// Reads a flag into the options, with this value if it takes one.
fn set<O: Options>(flag: &Flag, options: &mut O, value: &str) {
    match O::set_of(flag) {
        Some(Set::Switch(set)) => set(options),
        Some(Set::Value(set)) => set(options, value).unwrap_or_else(|error| {
            panic!("{}: {value:?} is not {error}", flag.name);
        }),
        Some(Set::Information) | None => panic!("{} is not read", flag.name),
    }
}

/// Names and values of a struct's fields, from its derived `Debug`.
fn fields(options: &impl Debug) -> BTreeMap<String, String> {
    let text = format!("{options:#?}");
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let is_inner = |line: &str| line.starts_with([' ', ')', ']', '}']);
        match line.strip_prefix("    ").filter(|line| !is_inner(line)) {
            Some(field) => {
                let (field, value) = field.split_once(": ").unwrap();
                name = field.to_owned();
                fields.insert(name.clone(), value.to_owned());
            }
            None if fields.is_empty() => {}
            None => fields.get_mut(&name).unwrap().push_str(line),
        }
    }
    fields
}

/// The flags of a mode that are read.
fn read_flags<O: Options>() -> impl Iterator<Item = &'static Flag> {
    let is_read =
        |flag: &&Flag| O::set_of(flag).is_some_and(|set| !matches!(set, Set::Information));
    O::MODE.flags().filter(is_read)
}

/// Reads each flag's example, and returns the fields that change.
fn fields_set<O: Options + Default + Debug>() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for flag in read_flags::<O>() {
        let mut options = O::default();
        if let Some(opposite) = O::MODE.find(flag.opposite().as_ref()) {
            set(opposite, &mut options, "");
        }
        let before = fields(&options);
        set(flag, &mut options, flag.example.unwrap_or_default());
        let mut after = fields(&options);
        after.retain(|name, value| before[name] != *value);
        assert_eq!(after.len(), 1, "{} sets one field: {after:?}", flag.name);
        all.extend(after.into_keys());
    }
    all
}

#[test]
fn every_flag_sets_a_field_and_every_field_has_a_flag() {
    let names = |fields: BTreeMap<String, String>| fields.into_keys().collect::<BTreeSet<_>>();
    let declared = fields_set::<ServeOptions>();
    assert_eq!(declared, names(fields(&ServeOptions::default())));
    let declared = fields_set::<ServerOptions>();
    assert_eq!(declared, names(fields(&ServerOptions::default())));
    let mut declared = fields_set::<ConnectOptions>();
    declared.extend(["address".to_owned()]);
    assert_eq!(declared, names(fields(&ConnectOptions::default())));
    let mut declared = fields_set::<BenchOptions>();
    declared.extend(["target".to_owned()]);
    assert_eq!(declared, names(fields(&BenchOptions::default())));
}

fn assert_defaults<O: Options + Default + Debug + PartialEq>() {
    for flag in read_flags::<O>() {
        let DefaultText::Value(default) = flag.default else {
            continue;
        };
        let example = flag.example.unwrap();
        assert_ne!(example, default, "{}", flag.name);
        let mut options = O::default();
        set(flag, &mut options, example);
        set(flag, &mut options, default);
        assert_eq!(options, O::default(), "{}", flag.name);
    }
}

#[test]
fn the_defaults_are_what_the_table_says() {
    assert_defaults::<ServeOptions>();
    assert_defaults::<ServerOptions>();
    assert_defaults::<ConnectOptions>();
    assert_defaults::<BenchOptions>();
}

fn assert_ranges<O: Options + Default>() {
    for flag in read_flags::<O>() {
        let Some(Set::Value(set)) = O::set_of(flag) else {
            continue;
        };
        let Err(error) = set(&mut O::default(), "\u{1}") else {
            continue;
        };
        let (_, range) = error.split_once('(').unwrap();
        let range = range.trim_end_matches(')');
        if range.contains(" to ") {
            assert!(flag.help.contains(range), "{}: {range}", flag.name);
        }
    }
}

#[test]
fn the_texts_name_the_ranges_that_are_checked() {
    assert_ranges::<ServeOptions>();
    assert_ranges::<ConnectOptions>();
    assert_ranges::<BenchOptions>();
}

#[test]
fn names_are_distinct_and_texts_are_sentences() {
    for mode in Mode::ALL {
        let mut seen = BTreeSet::new();
        for flag in mode.flags() {
            assert!(flag.name.starts_with("--"), "{}", flag.name);
            for name in flag.short.into_iter().chain([flag.name]) {
                assert!(seen.insert(name), "{name} stands twice");
            }
        }
    }
    for flag in all() {
        assert!(flag.serve.is_some() || flag.connect.is_some() || flag.bench.is_some());
        assert!(
            flag.help.is_ascii() && flag.help.ends_with('.'),
            "{}",
            flag.name
        );
        assert!(!flag.help.contains("  "), "{}", flag.name);
        assert_eq!(flag.help.matches('`').count() % 2, 0, "{}", flag.name);
        assert!(flag.brief().len() <= 110, "{}", flag.brief());
        assert_eq!(
            flag.value.is_some(),
            flag.example.is_some(),
            "{}",
            flag.name
        );
    }
}
