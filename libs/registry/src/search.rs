//! Searches repositories by words of their names. Docker Hub and some other registries support it
//! (Docker Registry HTTP API V1, `/v1/search`).

use http::{Method, Uri, header};
use keelson_model::json::{self, JsonError, lenient, lenient_list};
use serde::Deserialize;

use crate::asked::Asked;
use crate::auth::Credentials;
use crate::client::{Ask, Attempt, Client, unreachable};
use crate::connect::ConnectError;
use crate::error::RegistryError;
use crate::uri::{authority, with_query};

/// Docker Hub's address for searches.
const DOCKER_HUB: &str = "index.docker.io";
/// Largest answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// `busybox`, `team/app`.
    pub name: String,
    /// Its owner's description.
    #[serde(deserialize_with = "lenient")]
    pub description: String,
    /// Its number of stars.
    #[serde(deserialize_with = "lenient")]
    pub star_count: i64,
    /// Whether it is one of Docker's official images.
    #[serde(deserialize_with = "lenient")]
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "lenient_list")]
    results: Vec<SearchResult>,
}

/// Reads an answer. Results without a name are skipped.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<Vec<SearchResult>, JsonError> {
    let answer: Answer = json::from_slice(bytes)?;
    let results = answer.results.into_iter();
    Ok(results.filter(|result| !result.name.is_empty()).collect())
}

impl Client {
    /// Asks a registry (`docker.io`, `host[:port]`) for at most `limit` repositories. HTTPS or
    /// plain HTTP is chosen as for pulls.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>, RegistryError> {
        let name = match domain {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        let credentials = match credentials {
            None => self.stored_credentials(domain, term).await?,
            given => given,
        };
        let authorization = credentials.as_ref().and_then(Credentials::basic);
        let mut ask = ask(true, name, term, limit)?;
        if let Some(value) = &authorization {
            ask = ask.header(header::AUTHORIZATION, value);
        }
        let response = match self.try_send(&ask).await {
            // Not if there is TLS with a wrong certificate.
            Err(Attempt::Connect(
                ConnectError::NotTls | ConnectError::Refused | ConnectError::Failed(_),
            )) if self.options.may_be_plain(name) => {
                ask = self::ask(false, name, term, limit)?;
                if let Some(value) = &authorization
                    && self.options.may_see_secrets(name)
                {
                    ask = ask.header(header::AUTHORIZATION, value);
                }
                self.send(&ask).await?
            }
            outcome => outcome.map_err(|error| unreachable(&ask.uri, error))?,
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, &ask).await);
        }
        let bytes = self.read(response, MAX_ANSWER, &ask).await?;
        parse_answer(&bytes).map_err(|error| RegistryError::Protocol {
            host: authority(&ask.uri).to_owned(),
            what: ask.what.clone(),
            reason: error.to_string(),
        })
    }
}

fn ask(tls: bool, name: &str, term: &str, limit: u32) -> Result<Ask, RegistryError> {
    let scheme = if tls { "https" } else { "http" };
    let limit = limit.to_string();
    let wrong = || RegistryError::Setup(format!("{name:?} is not a valid registry"));
    let path: Uri = format!("{scheme}://{name}/v1/search")
        .parse()
        .map_err(|_| wrong())?;
    let uri = with_query(&path, &[("q", term), ("n", &limit)]).ok_or_else(wrong)?;
    Ok(Ask::new(Method::GET, uri, Asked::Search(term.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_encoded() {
        let ask = ask(false, "localhost:5000", "a b&n=9", 7).unwrap();
        assert_eq!(
            ask.uri.to_string(),
            "http://localhost:5000/v1/search?q=a%20b%26n%3D9&n=7"
        );
        assert!(self::ask(true, "a b", "x", 1).is_err());
    }

    #[test]
    fn answers_may_leave_members_out() {
        let read = |text: &str| parse_answer(text.as_bytes()).unwrap();
        let found = read(
            r#"{"num_results":"1","Results":[null,{"name":"x","description":null,
                "STAR_COUNT":3,"is_official":"no","is_trusted":true},{"name":null},7]}"#,
        );
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].star_count, &*found[0].name), (3, "x"));
        assert!(read(r#"{"results":null}"#).is_empty());
        assert!(read("{}").is_empty());
        assert!(parse_answer(b"[]").is_err());
    }
}
