//! What a request asks for, and whether whoever asks may have it.

use super::request::Request;
use super::response::Status;

/// Sessions that are told of at once, unless another number is asked for.
const DEFAULT_LIMIT: usize = 200;

/// The most.
const MAX_LIMIT: usize = 1000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Whether the loop turns.
    Health,
    /// Whether a new session would be served; by this server, if one is named.
    Ready(Option<String>),
    /// Prometheus's.
    Metrics,
    /// All there is, as JSON.
    Json(Window),
    /// The same as a page.
    Page(Window),
}

/// Which sessions are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many at most.
    pub limit: usize,
    /// Those from this key on.
    pub from: usize,
    /// Whether what was before is wanted, too.
    pub has_history: bool,
}

impl Route {
    /// What a request asks for. Not everything is for peers on other machines, unless all is public.
    pub fn of(request: &Request, may_see_all: bool) -> Result<Self, Status> {
        let query = Query(&request.query);
        let route = match request.path.as_str() {
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready(query.get("server")),
            "/metrics" => Self::Metrics,
            _ if !may_see_all => return Err(Status::Forbidden),
            "/status.json" => Self::Json(query.window()?),
            "/" => Self::Page(query.window()?),
            _ => return Err(Status::NotFound),
        };
        Ok(route)
    }
}

/// What stands after the question mark.
struct Query<'a>(&'a str);

impl Query<'_> {
    /// The first value of this name.
    fn get(&self, name: &str) -> Option<String> {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decoded(value))
    }

    fn number(&self, name: &str, otherwise: usize) -> Result<usize, Status> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(value) => value.parse().map_err(|_| Status::BadRequest),
        }
    }

    fn window(&self) -> Result<Window, Status> {
        let limit = self.number("limit", DEFAULT_LIMIT)?;
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Status::BadRequest);
        }
        Ok(Window {
            limit,
            from: self.number("after", 0)?,
            has_history: self.get("history").is_some(),
        })
    }
}

/// A value without its percent signs. What is not UTF-8 then is no name of anything.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        if let (b'%', Some(byte)) = (first, escaped) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str, may_see_all: bool) -> Result<Route, Status> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            is_head: false,
            path: path.to_owned(),
            query: query.to_owned(),
        };
        Route::of(&request, may_see_all)
    }

    #[test]
    fn paths_are_what_they_are() {
        let named = |name: &str| Ok(Route::Ready(Some(name.to_owned())));
        assert_eq!(route("/healthz", false), Ok(Route::Health));
        assert_eq!(route("/readyz", false), Ok(Route::Ready(None)));
        assert_eq!(route("/readyz?x&server=a%40b%", false), named("a@b%"));
        assert_eq!(route("/metrics?x=1", false), Ok(Route::Metrics));
        for path in ["", "/x", "/metrics/", "//", "/%6detrics"] {
            assert_eq!(route(path, true), Err(Status::NotFound), "{path}");
        }
    }

    #[test]
    fn other_machines_see_nothing_of_sessions() {
        for path in ["/", "/status.json", "/x"] {
            assert_eq!(route(path, false), Err(Status::Forbidden), "{path}");
        }
    }

    #[test]
    fn a_window_has_its_limits() {
        let window = |target: &str| match route(target, true) {
            Ok(Route::Json(window) | Route::Page(window)) => Ok(window),
            other => Err(other),
        };
        let expected = Window {
            limit: 200,
            from: 0,
            has_history: false,
        };
        assert_eq!(window("/"), Ok(expected));
        let expected = Window {
            limit: 1000,
            from: 7,
            has_history: true,
        };
        assert_eq!(
            window("/status.json?history=1&limit=1000&after=7"),
            Ok(expected)
        );
        for query in ["limit=0", "limit=1001", "limit=x", "after=-1", "limit="] {
            let target = format!("/status.json?{query}");
            assert_eq!(window(&target), Err(Err(Status::BadRequest)), "{query}");
        }
    }
}
