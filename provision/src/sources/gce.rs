//! The metadata server of Google Compute Engine.

use super::{Context, Finding, Source, SourceError};
use crate::clouds::gce;
use crate::fetch::Ask;
use crate::user_data::MAX_BYTES;

/// By address: the name `metadata.google.internal` needs a name server.
const URL: &str = "http://169.254.169.254/computeMetadata/v1/?recursive=true";
/// Without it, the server answers 403, so that no redirect of a browser can read it.
const HEADERS: &[(&str, &str)] = &[("Metadata-Flavor", "Google")];

pub(super) struct Gce;

impl Source for Gce {
    fn name(&self) -> &'static str {
        "gce"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let Some(network) = context.network else {
            return Ok(Finding::Later);
        };
        let bytes = network.patiently(Ask::get(URL, HEADERS, MAX_BYTES), &[])?;
        let meta = gce::meta_data(&bytes).map_err(|error| SourceError::document(URL, error))?;
        let seed = meta.into_seed(self.name(), URL);
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}
