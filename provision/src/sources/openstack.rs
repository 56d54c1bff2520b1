//! OpenStack's metadata service.

use super::{Context, Finding, Source, SourceError};
use crate::clouds::openstack;
use crate::fetch::Ask;
use crate::seed::{Bytes, NetworkDocument, Seed};
use crate::user_data::MAX_BYTES;

const BASE: &str = "http://169.254.169.254/openstack/latest";

pub(super) struct OpenStack;

impl Source for OpenStack {
    fn name(&self) -> &'static str {
        "openstack"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let Some(network) = context.network else {
            return Ok(Finding::Later);
        };
        let url = format!("{BASE}/meta_data.json");
        // Its proxy answers 404 while it does not know the machine yet.
        let meta = network.patiently(Ask::get(&url, &[], MAX_BYTES), &[404])?;
        let meta =
            openstack::meta_data(&meta).map_err(|error| SourceError::document(url, error))?;
        let get =
            |name: &str| network.optional(Ask::get(&format!("{BASE}/{name}"), &[], MAX_BYTES));
        let mut seed = Seed::new(self.name(), BASE, &meta.uuid);
        seed.hostname = meta.hostname;
        seed.public_keys = meta.public_keys;
        seed.user_data = get("user_data")?.map(Bytes);
        seed.vendor_data =
            get("vendor_data.json")?.and_then(|bytes| openstack::vendor_data(&bytes));
        seed.network =
            get("network_data.json")?.map(|bytes| NetworkDocument::Openstack(Bytes(bytes)));
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}
