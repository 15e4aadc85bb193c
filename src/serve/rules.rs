//! What the options ask of connections before they are let in.

use log::warn;

use crate::entrance::tokens::Tokens;
use crate::entrance::{Balancers, Directory, Network, Rules};
use crate::options::{Balancer, ServeOptions, Served};
use crate::util::service_key::ServiceKey;

/// The rules of the entrance.
pub(super) fn of(options: &ServeOptions, servers: Directory, tokens: Option<Tokens>) -> Rules {
    warn_of_oddities(options);
    Rules {
        servers,
        allow: options.allow.clone(),
        balancers: balancers(&options.proxy_protocol),
        tls: options.tls_cert.is_some(),
        tokens,
        exempts_unix: options.token_exempt_unix,
        counts_addresses: options.max_sessions_per_address.is_some(),
        timeout: options.entrance_timeout,
    }
}

/// What clients can ask for.
pub(super) fn directory(servers: &[Served]) -> Directory {
    let names = servers.iter().map(|served| served.name.clone());
    let default = servers.iter().position(|served| served.is_default);
    Directory::new(names.collect(), default.map(ServiceKey))
}

/// Whether anything is asked for which a connection has to wait.
pub(super) fn need_places(options: &ServeOptions, servers: &Directory) -> bool {
    servers.is_choice()
        || !options.proxy_protocol.is_empty()
        || options.token_file.is_some()
        || options.tls_cert.is_some()
}

fn balancers(all: &[Balancer]) -> Balancers {
    let mut balancers = Balancers::default();
    for balancer in all {
        match balancer {
            Balancer::Unix => balancers.unix = true,
            Balancer::Network(network) => balancers.networks.push(*network),
        }
    }
    balancers
}

/// Options that are likely to be a mistake.
fn warn_of_oddities(options: &ServeOptions) {
    let networks = options.proxy_protocol.iter();
    let everything = networks.filter_map(|balancer| match balancer {
        Balancer::Network(network) if network.is_everything() => Some(network),
        Balancer::Network(_) | Balancer::Unix => None,
    });
    for network in everything {
        warn!(
            "--proxy-protocol {network}: whoever connects can say to be anybody; name the balancer's address alone"
        );
    }
    if options.token_exempt_unix && options.token_file.is_none() {
        warn!("--token-exempt-unix: without --token-file nobody needs a token");
    }
    if options.max_sessions_per_client.is_some()
        && options.token_file.is_none()
        && options.tls_client_ca.is_none()
    {
        warn!(
            "--max-sessions-per-client: without --token-file or --tls-client-ca clients have no names to be counted by"
        );
    }
}

/// Whether not everyone who can connect can use the server.
pub(super) fn keep_strangers_out(options: &ServeOptions) -> bool {
    let lets_all_in = options.allow.iter().any(Network::is_everything);
    let shows_something = options.token_file.is_some() || options.tls_client_ca.is_some();
    shows_something || (!options.allow.is_empty() && !lets_all_in)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entrance::Name;
    use crate::util::captured_log::captured;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn options_become_rules() {
        let plain = of(&ServeOptions::default(), Directory::only(), None);
        assert!(!plain.ask_anything());
        let options = ServeOptions {
            allow: vec![network("192.0.2.0/24")],
            proxy_protocol: vec![Balancer::Unix, Balancer::Network(network("10.0.0.7"))],
            max_sessions_per_address: Some(3),
            ..ServeOptions::default()
        };
        let rules = of(&options, Directory::only(), Some(Tokens::default()));
        assert!(rules.need_places() && rules.counts_addresses && rules.balancers.unix);
        assert_eq!(rules.balancers.networks, [network("10.0.0.7")]);
        assert_eq!(rules.allow, options.allow);
    }

    #[test]
    fn an_allow_list_of_everything_keeps_nobody_out() {
        let allows = |allow: &str| ServeOptions {
            allow: vec![network(allow)],
            ..ServeOptions::default()
        };
        assert!(!keep_strangers_out(&ServeOptions::default()));
        assert!(keep_strangers_out(&allows("192.0.2.0/24")));
        assert!(!keep_strangers_out(&allows("0.0.0.0/0")));
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..ServeOptions::default()
        };
        assert!(keep_strangers_out(&with_tokens));
    }

    #[test]
    fn what_is_likely_to_be_a_mistake_is_warned_of() {
        let warnings = |options: &ServeOptions| captured(|| warn_of_oddities(options)).len();
        let mut options = ServeOptions {
            proxy_protocol: vec![Balancer::Unix, Balancer::Network(network("10.0.0.7"))],
            ..ServeOptions::default()
        };
        assert_eq!(warnings(&options), 0);
        options
            .proxy_protocol
            .push(Balancer::Network(network("0.0.0.0/0")));
        assert_eq!(warnings(&options), 1);
        options.token_exempt_unix = true;
        options.max_sessions_per_client = Some(3);
        assert_eq!(warnings(&options), 3);
        options.tls_client_ca = Some("authority".into());
        assert_eq!(warnings(&options), 2);
        options.token_file = Some("tokens".into());
        assert_eq!(warnings(&options), 1);
        options.tls_client_ca = None;
        assert_eq!(warnings(&options), 1);
    }

    #[test]
    fn places_are_needed_where_something_is_asked_that_takes_time() {
        let need = |options: &ServeOptions| need_places(options, &Directory::only());
        let plain = ServeOptions::default;
        assert!(!need(&plain()));
        let with_balancer = ServeOptions {
            proxy_protocol: vec![Balancer::Unix],
            ..plain()
        };
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..plain()
        };
        let with_tls = ServeOptions {
            tls_cert: Some("certificate".into()),
            ..plain()
        };
        assert!(need(&with_balancer) && need(&with_tokens) && need(&with_tls));
        let names = ["files", "weather"].map(Name::new).to_vec();
        assert!(need_places(&plain(), &Directory::new(names, None)));
    }
}
