//! OpenStack's config drive: a disk called `config-2`.

use super::{Context, Finding, Source, SourceError};
use crate::clouds::openstack;
use crate::seed::{Bytes, NetworkDocument, Seed};

const LABEL: &str = "config-2";
const META_DATA: &str = "openstack/latest/meta_data.json";
const USER_DATA: &str = "openstack/latest/user_data";
const VENDOR_DATA: &str = "openstack/latest/vendor_data.json";
const NETWORK_DATA: &str = "openstack/latest/network_data.json";

pub(super) struct ConfigDrive;

impl Source for ConfigDrive {
    fn name(&self) -> &'static str {
        "config-drive"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let volumes = context.disks.list();
        let Some(volume) = volumes.into_iter().find(|volume| volume.is_called(LABEL)) else {
            return Ok(Finding::Nothing);
        };
        let place = volume.device.display().to_string();
        let names = [META_DATA, USER_DATA, VENDOR_DATA, NETWORK_DATA];
        let mut files = context.disks.read(&volume, &names)?;
        let meta = files
            .remove(META_DATA)
            .ok_or_else(|| SourceError::document(&place, format!("it has no {META_DATA}")))?;
        let meta = openstack::meta_data(&meta)
            .map_err(|error| SourceError::document(format!("{place}: {META_DATA}"), error))?;
        let mut seed = Seed::new(self.name(), &place, &meta.uuid);
        seed.hostname = meta.hostname;
        seed.public_keys = meta.public_keys;
        seed.user_data = files.remove(USER_DATA).map(Bytes);
        seed.vendor_data = files
            .remove(VENDOR_DATA)
            .and_then(|bytes| openstack::vendor_data(&bytes));
        seed.network = files
            .remove(NETWORK_DATA)
            .map(|bytes| NetworkDocument::Openstack(Bytes(bytes)));
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}
