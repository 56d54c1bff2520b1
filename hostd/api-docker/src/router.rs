//! Finding the route of a request.

use crate::error::ApiError;
use crate::query::percent_decode;
use crate::routes::{ROUTES, Route};
use crate::version::ApiVersion;

/// A route with what its placeholders stood for.
#[derive(Debug)]
pub struct Match {
    /// The route.
    pub route: &'static Route,
    /// The placeholder's value, decoded; empty when the route has none.
    pub name: String,
}

/// Finds the route for a method and a path without its version. `None`: there is no such page.
///
/// # Errors
/// InvalidInput when the path has an escape that is none.
pub fn find(method: &str, path: &str, version: ApiVersion) -> Result<Option<Match>, ApiError> {
    percent_decode(path, false)?;
    let found = ROUTES
        .iter()
        .filter(|route| route.method == method && route.since <= version)
        .find_map(|route| Some((route, match_path(route.path, path)?)));
    match found {
        Some((route, name)) => Ok(Some(Match {
            route,
            name: percent_decode(name, false)?,
        })),
        None => Ok(None),
    }
}

/// Matches a path against a pattern with at most one placeholder and returns its value.
fn match_path<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (placeholder, after) = rest.split_once('}')?;
    let value = path.strip_prefix(before)?.strip_suffix(after)?;
    let many = placeholder.ends_with('*');
    (!value.is_empty() && (many || !value.contains('/'))).then_some(value)
}

/// What Docker says about an object of a kind of which there is none. Clients that look a name up
/// in every kind (`docker inspect NAME`) go on after it; they would stop at anything else.
pub(crate) fn missing_object(route: &Route, name: &str) -> Option<String> {
    match (route.method, route.path) {
        ("GET", "/volumes/{name}") => Some(format!("get {name}: no such volume")),
        ("GET", "/plugins/{name*}/json") => Some(format!("plugin \"{name}\" not found")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Operation;

    fn found(method: &str, path: &str) -> Option<(Operation, String)> {
        let found = find(method, path, ApiVersion::MAX).unwrap();
        found.map(|m| (m.route.operation, m.name))
    }

    #[test]
    fn names_are_taken_from_the_path() {
        assert_eq!(
            found("GET", "/containers/json"),
            Some((Operation::ContainerList, String::new()))
        );
        assert_eq!(
            found("GET", "/containers/abc/json"),
            Some((Operation::ContainerInspect, "abc".to_owned()))
        );
        assert_eq!(
            found("GET", "/images/localhost:5000/a/b:1/json"),
            Some((Operation::ImageInspect, "localhost:5000/a/b:1".to_owned()))
        );
        assert_eq!(
            found("DELETE", "/images/a%2Fb"),
            Some((Operation::ImageDelete, "a/b".to_owned()))
        );
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(found("GET", "/containers"), None);
        assert_eq!(found("GET", "/containers/a/b/json"), None);
        assert_eq!(found("POST", "/containers/json"), None);
        assert_eq!(found("GET", "/containers//json"), None);
        assert_eq!(found("GET", "/"), None);
        assert!(find("GET", "/containers/%zz/json", ApiVersion::MAX).is_err());
    }

    #[test]
    fn a_route_is_hidden_from_older_versions() {
        let prune = |minor| find("POST", "/images/prune", ApiVersion::new(1, minor)).unwrap();
        assert!(prune(24).is_none());
        assert!(prune(25).is_some());
    }
}
