//! Azure: `ovf-env.xml` on a disc, the metadata service, and the report that the machine is ready.

use super::{Context, Finding, Source, SourceError};
use crate::clouds::{add_keys, azure};
use crate::disk::label::FileSystem;
use crate::fetch::{Ask, Fetcher, Method};
use crate::user_data::MAX_BYTES;

const INSTANCE: &str = "http://169.254.169.254/metadata/instance?api-version=2021-08-01";
const HEADERS: &[(&str, &str)] = &[("Metadata", "true")];
/// Statuses that the service answers while it is not ready (cloud-init, `azure/imds.py`).
const NOT_YET: &[u16] = &[404, 410, 429, 500];
/// The wire server, which wants the report.
const WIRE: &str = "http://168.63.129.16/machine/";
const WIRE_HEADERS: &[(&str, &str)] = &[
    ("x-ms-version", "2012-11-30"),
    ("x-ms-agent-name", "keelson"),
];
const OVF: &str = "ovf-env.xml";

pub(super) struct Azure;

impl Source for Azure {
    fn name(&self) -> &'static str {
        "azure"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let Some(network) = context.network else {
            return Ok(Finding::Later);
        };
        let mut notes = Vec::new();
        let environment = environment(context, &mut notes);
        let bytes = network.patiently(Ask::get(INSTANCE, HEADERS, MAX_BYTES), NOT_YET)?;
        let instance =
            azure::instance(&bytes).map_err(|error| SourceError::document(INSTANCE, error))?;
        let mut seed = instance.into_seed(self.name(), INSTANCE);
        // Custom data is on the disc; the newer user data is with the service.
        seed.user_data = environment.user_data.or(seed.user_data);
        seed.hostname = environment.hostname.or(seed.hostname);
        add_keys(&mut seed.public_keys, environment.public_keys);
        Ok(Finding::Seed(Box::new(seed), notes))
    }

    /// Without it the deployment fails after 20 to 40 minutes.
    fn report(&self, network: &Fetcher) -> Result<(), SourceError> {
        let url = format!("{WIRE}?comp=goalstate");
        let goal = network.patiently(Ask::get(&url, WIRE_HEADERS, MAX_BYTES), NOT_YET)?;
        let goal = azure::goal_state(&goal).map_err(|error| SourceError::document(url, error))?;
        let report = azure::ready_report(&goal);
        let ask = Ask {
            url: &format!("{WIRE}?comp=health"),
            method: Method::Post("text/xml; charset=utf-8", &report),
            headers: WIRE_HEADERS,
            limit: MAX_BYTES,
            redirects: false,
        };
        network.patiently(ask, NOT_YET)?;
        Ok(())
    }
}

/// The disc's document; an empty one if there is none. The disc is there at the first boot only.
fn environment(context: &Context<'_>, notes: &mut Vec<String>) -> azure::Environment {
    for volume in context.disks.list() {
        if volume.file_system == FileSystem::Vfat {
            continue;
        }
        let bytes = match context.disks.read(&volume, &[OVF]) {
            Ok(mut files) => files.remove(OVF),
            Err(error) => {
                notes.push(error.to_string());
                None
            }
        };
        match bytes.map(|bytes| azure::environment(&bytes)) {
            None => {}
            Some(Ok(environment)) => return environment,
            Some(Err(error)) => {
                notes.push(format!("{}: {OVF}: {error}", volume.device.display()));
            }
        }
    }
    azure::Environment::default()
}
