//! user-data by URL on the kernel command line: `cloud-config-url=`, `ignition.config.url=`.

use sha2::{Digest as _, Sha256};

use super::{Context, Finding, Source, SourceError};
use crate::fetch::{Ask, Method};
use crate::resources::shown;
use crate::seed::{Bytes, Seed};
use crate::user_data::MAX_BYTES;

pub(super) struct Url;

impl Source for Url {
    fn name(&self) -> &'static str {
        "url"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let parameter = |name| context.machine.parameter(name);
        let url = parameter("ignition.config.url").or_else(|| parameter("cloud-config-url"));
        let Some(url) = url else {
            return Ok(Finding::Nothing);
        };
        if !["http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            let reason = format!("{} is not supported: use http: or https:", shown(&url));
            return Err(SourceError::document("kernel command line", reason));
        }
        let Some(network) = context.network else {
            return Ok(Finding::Later);
        };
        let bytes = network.patiently(
            Ask {
                url: &url,
                method: Method::Get,
                headers: &[],
                limit: MAX_BYTES,
                redirects: true,
            },
            &[],
        )?;
        // Another URL is another first boot.
        let id = format!("url-{}", &hex::encode(Sha256::digest(&url))[..16]);
        let mut seed = Seed::new(self.name(), &shown(&url), &id);
        seed.user_data = Some(Bytes(bytes));
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}
