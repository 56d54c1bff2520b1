//! The metadata service of Amazon EC2, version 2 only: every request has a token. There is no way
//! back to version 1, which any redirect of any program on the machine could read.

use super::{Context, Finding, Source, SourceError};
use crate::fetch::{Ask, FetchError, Fetcher, Method};
use crate::seed::{Bytes, Seed};
use crate::user_data::MAX_BYTES;

/// Over IPv4 and IPv6.
const BASES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:ec2::254]"];
/// Six hours, the longest that is allowed.
const TTL: &[(&str, &str)] = &[("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
/// Longest small answer, in bytes.
const SMALL: usize = 16 << 10;
/// Most keys that are read.
const MAX_KEYS: usize = 64;
/// How long one address is tried before the other one.
const TURN: std::time::Duration = std::time::Duration::from_secs(15);

pub(super) struct Ec2;

impl Source for Ec2 {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let Some(network) = context.network else {
            return Ok(Finding::Later);
        };
        let (base, token) = token(network)?;
        let headers = [("X-aws-ec2-metadata-token", token.as_str())];
        let latest = format!("{base}/latest");
        let optional = |path: &str, limit: usize| {
            network.optional(Ask::get(&format!("{latest}/{path}"), &headers, limit))
        };
        let text = |path: &str| -> Result<Option<String>, SourceError> {
            let bytes = optional(path, SMALL)?;
            let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
            Ok(text.filter(|text| !text.is_empty()))
        };
        let id = text("meta-data/instance-id")?
            .ok_or_else(|| SourceError::document(&latest, "it has no instance-id"))?;
        let mut seed = Seed::new(self.name(), &latest, &id);
        seed.hostname = text("meta-data/local-hostname")?;
        // Lines `0=NAME`.
        let list = text("meta-data/public-keys/")?.unwrap_or_default();
        for line in list.lines().take(MAX_KEYS) {
            let index = line.split('=').next().unwrap_or_default();
            if index.bytes().all(|byte| byte.is_ascii_digit()) && !index.is_empty() {
                let path = format!("meta-data/public-keys/{index}/openssh-key");
                seed.public_keys.extend(text(&path)?);
            }
        }
        seed.user_data = optional("user-data", MAX_BYTES)?.map(Bytes);
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}

/// A token, and the address that gave it.
fn token(network: &Fetcher) -> Result<(&'static str, String), SourceError> {
    let mut turn = BASES.iter().cycle();
    loop {
        let base = turn.next().copied().unwrap_or(BASES[0]);
        let url = format!("{base}/latest/api/token");
        let ask = Ask {
            url: &url,
            method: Method::Put,
            headers: TTL,
            limit: SMALL,
            redirects: false,
        };
        match network.until(TURN).patiently(ask, &[]) {
            Ok(bytes) => {
                let token = String::from_utf8_lossy(&bytes).trim().to_owned();
                let good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
                return match good {
                    true => Ok((base, token)),
                    false => Err(SourceError::document(url, "the token is none")),
                };
            }
            // Time-outs say nothing; a refusal is final.
            Err(error @ FetchError::Status { .. }) if !error.may_pass() => {
                return Err(SourceError::Token(error));
            }
            Err(error) if network.is_over() || !error.may_pass() => {
                return Err(SourceError::Token(error));
            }
            Err(_) => {}
        }
    }
}
