//! Credentials, and the challenges with which a registry asks for them (RFC 9110 section 11.6.1;
//! Docker token authentication).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How the caller proves who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name; empty for none.
    pub username: String,
    /// Password or personal token.
    pub password: String,
    /// A refresh token of the registry's token service, instead of a password.
    pub identity_token: String,
    /// A bearer token that is sent unchanged.
    pub registry_token: String,
}

/// Secrets never get into logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of an `Authorization` header with user name and password, if there are any.
    pub(crate) fn basic(&self) -> Option<String> {
        if self.username.is_empty() || self.password.is_empty() {
            return None;
        }
        let text = format!("{}:{}", self.username, self.password);
        Some(format!("Basic {}", STANDARD.encode(text)))
    }
}

/// The credentials that a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token of a token service.
    Bearer {
        /// The token service.
        realm: String,
        /// The registry's name there.
        service: Option<String>,
    },
}

/// Longest header that is read, in bytes.
const MAX_CHALLENGE: usize = 8 << 10;

impl Challenge {
    /// Reads a `WWW-Authenticate` header, which may have several challenges. The best known one is
    /// returned.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.get(..MAX_CHALLENGE).unwrap_or(header);
        let mut best = None;
        for (scheme, parameters) in split(header) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm").filter(|realm| !realm.is_empty()) {
                    return Some(Self::Bearer {
                        realm,
                        service: get("service"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                best = Some(Self::Basic);
            }
        }
        best
    }
}

type Parameters = Vec<(String, String)>;

/// Splits a header into schemes with their parameters.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut out: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not a token: nothing sensible can follow.
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after.strip_prefix('=') {
            let value = value.trim_start_matches([' ', '\t']);
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted_string(quoted),
                None => {
                    let (value, after) = token(value);
                    (value.to_owned(), after)
                }
            };
            if let Some((_, parameters)) = out.last_mut() {
                parameters.push((word.to_owned(), value));
            }
            rest = after;
        } else {
            out.push((word.to_owned(), Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    out
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_graphic() || "=,\"".contains(c))
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(
            Challenge::parse(
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                 scope=\"repository:library/busybox:pull,push\""
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: Some("registry.docker.io".to_owned()),
            })
        );
        assert_eq!(
            Challenge::parse("basic Realm=\"a \\\"b\\\", c\""),
            Some(Challenge::Basic)
        );
        assert_eq!(
            Challenge::parse("Negotiate, Basic realm=x, Bearer realm=https://t , service = s"),
            Some(Challenge::Bearer {
                realm: "https://t".to_owned(),
                service: Some("s".to_owned()),
            })
        );
        for none in ["", "Negotiate", "Bearer", "Bearer realm=\"\"", "\"", "=,="] {
            assert_eq!(Challenge::parse(none), None, "{none}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            username: "user".to_owned(),
            password: "geheim".to_owned(),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("geheim"));
        assert_eq!(credentials.basic().unwrap(), "Basic dXNlcjpnZWhlaW0=");
        assert_eq!(Credentials::default().basic(), None);
    }

    proptest! {
        #[test]
        fn no_header_causes_a_panic(text in any::<String>()) {
            let _ = Challenge::parse(&text);
        }

        #[test]
        fn quoted_values_come_back(value in "[ -~]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer service=\"{quoted}\", realm=\"r\"");
            prop_assert_eq!(
                Challenge::parse(&header),
                Some(Challenge::Bearer { realm: "r".to_owned(), service: Some(value) })
            );
        }
    }
}
