//! Each option and subcommand is offered by each shell. Whether the shells understand that is tested where there is one.

use super::super::pages::SUBCOMMANDS;
use super::*;

#[test]
fn every_shell_offers_every_option_and_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let text = text(OsStr::new(shell)).unwrap();
        for mode in Mode::ALL {
            for flag in mode.flags() {
                let name = match shell {
                    "fish" => format!("-l {}", flag.name.trim_start_matches('-')),
                    _ => flag.name.to_owned(),
                };
                assert!(text.contains(&name), "{shell}: {name}");
            }
        }
        for subcommand in SUBCOMMANDS {
            assert!(
                text.contains(subcommand.name),
                "{shell}: {}",
                subcommand.name
            );
        }
        assert!(text.contains("eager lazy"), "{shell}");
        assert!(
            !text.contains('@') || shell == "zsh",
            "{shell}: a mark is left"
        );
        assert!(text.is_ascii() && text.ends_with('\n'), "{shell}");
    }
    assert_eq!(text(OsStr::new("tcsh")), None);
}
