//! NoCloud: lines in SMBIOS and on the kernel command line, a disk called `cidata`, a directory
//! behind a URL.
//!
//! In meta-data, the first of these that says something wins; user-data comes from the last that has
//! any (cloud-init, `DataSourceNoCloud.py`).

use std::path::Path;

use super::{Context, Finding, Source, SourceError};
use crate::disk::read_file;
use crate::fetch::{Ask, Fetcher, Method};
use crate::nocloud::{DEFAULT_ID, Files, Line, NoCloudData, line, meta_data};
use crate::resources::shown;
use crate::seed::{Bytes, NetworkDocument, Seed};
use crate::user_data::MAX_BYTES;

/// Label of a disk.
const LABEL: &str = "cidata";
const NAMES: [&str; 4] = ["meta-data", "user-data", "vendor-data", "network-config"];

pub(super) struct NoCloud;

impl Source for NoCloud {
    fn name(&self) -> &'static str {
        "nocloud"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let mut gathered = Gathered::default();
        for (place, text) in [
            (
                "SMBIOS serial number",
                context.machine.smbios("product_serial"),
            ),
            ("kernel command line", parameter(context)),
        ] {
            // The serial number is a text of its own with `ds=`; most are something else.
            let text = text.as_deref().map(str::trim);
            let text = match place {
                "SMBIOS serial number" => text.and_then(|text| text.strip_prefix("ds=")),
                _ => text,
            };
            let Some(text) = text else {
                continue;
            };
            let read = line(text, |name| context.machine.smbios_keyword(name))
                .map_err(|source| SourceError::Line { place, source })?;
            if let Some(line) = read {
                gathered.line(place, line);
            }
        }
        gathered.disks(context)?;
        if let Some(url) = gathered.seed_from.clone() {
            let files = match (url.strip_prefix("file://"), context.network) {
                (Some(directory), _) => from_directory(&context.machine.path(directory)),
                (None, Some(network)) => Some(from_url(network, &url)?),
                (None, None) => return Ok(Finding::Later),
            };
            match files {
                Some(files) => gathered.files(&shown(&url), files)?,
                None => gathered
                    .notes
                    .push(format!("{}: there is no seed", shown(&url))),
            }
        }
        Ok(gathered.finish(self.name()))
    }
}

fn parameter(context: &Context<'_>) -> Option<String> {
    let machine = context.machine;
    machine
        .parameter("ds")
        .or_else(|| machine.parameter("ci.ds"))
}

#[derive(Default)]
struct Gathered {
    places: Vec<String>,
    notes: Vec<String>,
    seed_from: Option<String>,
    meta: NoCloudData,
    user_data: Option<Bytes>,
    vendor_data: Option<Bytes>,
    network: Option<Bytes>,
}

impl Gathered {
    fn line(&mut self, place: &str, line: Line) {
        self.places.push(place.to_owned());
        self.seed_from = self.seed_from.take().or(line.seed_from);
        self.meta.hostname = self.meta.hostname.take().or(line.hostname);
        self.meta.instance_id = self.meta.instance_id.take().or(line.instance_id);
    }

    /// The first disk that has all that a seed needs.
    fn disks(&mut self, context: &Context<'_>) -> Result<(), SourceError> {
        let mut last_error = None;
        for volume in context.disks.list() {
            if !volume.is_called(LABEL) {
                continue;
            }
            let place = volume.device.display().to_string();
            let mut found = match context.disks.read(&volume, &NAMES) {
                Ok(found) => found,
                // Another disk may be good.
                Err(error) => {
                    self.notes.push(error.to_string());
                    last_error = Some(error);
                    continue;
                }
            };
            let mut take = |name: &str| found.remove(name).map(Bytes);
            let files = Files {
                meta_data: take("meta-data"),
                user_data: take("user-data"),
                vendor_data: take("vendor-data"),
                network_config: take("network-config"),
            };
            if let Some(missing) = files.missing() {
                self.notes
                    .push(format!("{place}: it has no {missing} and is passed over"));
                continue;
            }
            return self.files(&place, files);
        }
        match last_error {
            Some(error) if self.places.is_empty() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn files(&mut self, place: &str, files: Files) -> Result<(), SourceError> {
        self.places.push(place.to_owned());
        let bytes = files.meta_data.unwrap_or_default().0;
        let meta = meta_data(&bytes)
            .map_err(|error| SourceError::document(format!("{place}: meta-data"), error))?;
        if meta.has_interfaces_file {
            self.notes.push(format!(
                "{place}: network-interfaces in meta-data is not supported: use network-config"
            ));
        }
        let mine = &mut self.meta;
        mine.hostname = mine.hostname.take().or(meta.hostname);
        mine.instance_id = mine.instance_id.take().or(meta.instance_id);
        if mine.public_keys.is_empty() {
            mine.public_keys = meta.public_keys;
        }
        self.seed_from = self.seed_from.take().or(meta.seed_from);
        self.user_data = files.user_data.or(self.user_data.take());
        self.vendor_data = files.vendor_data.or(self.vendor_data.take());
        self.network = self.network.take().or(files.network_config);
        Ok(())
    }

    fn finish(self, name: &str) -> Finding {
        if self.places.is_empty() {
            // A disk that lacks a file is a mistake of somebody, and no seed.
            for note in self.notes {
                tracing::warn!("{note}");
            }
            return Finding::Nothing;
        }
        let id = self.meta.instance_id.as_deref().unwrap_or(DEFAULT_ID);
        let mut seed = Seed::new(name, &self.places.join(", "), id);
        seed.hostname = self.meta.hostname;
        seed.public_keys = self.meta.public_keys;
        let not_empty = |bytes: Bytes| (!bytes.0.is_empty()).then_some(bytes);
        seed.user_data = self.user_data.and_then(not_empty);
        seed.vendor_data = self.vendor_data.and_then(not_empty);
        seed.network = self
            .network
            .and_then(not_empty)
            .map(NetworkDocument::CloudInit);
        Finding::Seed(Box::new(seed), self.notes)
    }
}

/// A seed in a directory of the machine. `None`: there is none.
fn from_directory(directory: &Path) -> Option<Files> {
    let read = |name: &str| read_file(&directory.join(name)).ok().map(Bytes);
    let files = Files {
        meta_data: read("meta-data"),
        user_data: read("user-data"),
        vendor_data: read("vendor-data"),
        network_config: read("network-config"),
    };
    files.missing().is_none().then_some(files)
}

fn from_url(network: &Fetcher, base: &str) -> Result<Files, SourceError> {
    // The names go behind the path, in front of a query.
    let get = |name: &str, needed: bool| -> Result<Option<Bytes>, SourceError> {
        let url = format!("{base}{name}");
        let ask = Ask {
            url: &url,
            method: Method::Get,
            headers: &[],
            limit: MAX_BYTES,
            redirects: true,
        };
        let bytes = match needed {
            true => Some(network.patiently(ask, &[])?),
            false => network.optional(ask)?,
        };
        Ok(bytes.map(Bytes))
    };
    Ok(Files {
        meta_data: get("meta-data", true)?,
        user_data: get("user-data", true)?,
        vendor_data: get("vendor-data", false)?,
        network_config: get("network-config", false)?,
    })
}
