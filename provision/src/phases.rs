//! The two phases: *local* before the network, *network* after it.
//!
//! A first boot is a new instance-id. The same one with other documents changes nothing: that is
//! what everyone does who provisions machines, and what takes people by surprise, so it is said in
//! the log. What was read at a first boot is kept ([`crate::store`]), and is in effect at every
//! later one, whether the source is still there or not.

use std::collections::BTreeMap;
use std::time::Duration;

use keelson_model::format::DocumentFormat;
use keelson_model::provision::{ProvisionState, ProvisionStatus};
use toml::Table;

use crate::compose::{Composed, compose};
use crate::disk::Volumes;
use crate::fetch::{Ask, Fetcher, Method};
use crate::machine::{HostMachine, HostPlatform};
use crate::resources::{self, ResourceError, Resources, shown};
use crate::seed::{Bytes, Seed};
use crate::sources::{self, Context, Finding};
use crate::store::{Store, StoreError};

/// How long the network phase may take at a first boot, and at a later one.
const FIRST_LIMIT: Duration = Duration::from_secs(120);
const LATER_LIMIT: Duration = Duration::from_secs(30);

/// What a phase did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The layer is another one than before.
    pub changed: bool,
    /// The network phase has something to do.
    pub network_wanted: bool,
}

/// A machine, its disks and the files of its provisioning.
pub struct Provisioning<'a> {
    /// The machine.
    pub machine: &'a HostMachine,
    /// Its disks.
    pub disks: &'a dyn Volumes,
    /// Where results are kept.
    pub store: &'a Store,
}

impl Provisioning<'_> {
    /// The phase before the network.
    ///
    /// # Errors
    /// A result can't be written.
    pub fn local(&self) -> Result<Outcome, StoreError> {
        self.run(None)
    }

    /// The phase after it, which may take `limit`; without, as long as the situation deserves.
    ///
    /// # Errors
    /// A result can't be written.
    pub fn network(&self, limit: Option<Duration>) -> Result<Outcome, StoreError> {
        let first = !matches!(self.store.seed(), Ok(Some(_)));
        let usual = if first { FIRST_LIMIT } else { LATER_LIMIT };
        self.run(Some(&Fetcher::new(limit.unwrap_or(usual))))
    }

    fn run(&self, network: Option<&Fetcher>) -> Result<Outcome, StoreError> {
        self.store.prepare()?;
        let mut problems = Vec::new();
        let platform = self.machine.platform().unwrap_or_else(|error| {
            problems.push(error.to_string());
            HostPlatform::Local
        });
        let (kept, unreadable) = match self.store.seed() {
            Ok(kept) => (kept, false),
            Err(error) => {
                problems.push(error.to_string());
                (None, true)
            }
        };
        let found = self.search(platform, network, &mut problems);
        let kept = kept.filter(|kept| self.belongs(kept, &found, &mut problems));
        let mut decision = decide(found, kept, &mut problems);
        decision.layer_stays = unreadable && decision.seed.is_none();
        decision.failed |= decision.layer_stays;
        self.apply(decision, network, platform, problems)
    }

    /// Asks the sources in their order.
    fn search(
        &self,
        platform: HostPlatform,
        network: Option<&Fetcher>,
        problems: &mut Vec<String>,
    ) -> Found {
        let context = Context {
            machine: self.machine,
            disks: self.disks,
            network,
        };
        let mut failed = false;
        for source in sources::of(platform) {
            match source.read(&context) {
                Ok(Finding::Nothing) => {}
                Ok(Finding::Seed(mut seed, notes)) => {
                    seed.machine = self.machine.uuid();
                    problems.extend(notes);
                    return Found::Seed(seed);
                }
                Ok(Finding::Later) => return Found::Later,
                // A source that concerns this machine and fails ends the search: what another one
                // says may be meant for nobody.
                Err(error) => {
                    problems.push(format!("{}: {error}", source.name()));
                    failed = true;
                    break;
                }
            }
        }
        match failed {
            true => Found::Failure,
            false => Found::Nothing,
        }
    }

    /// Whether a kept seed may be used on this machine. A copied disk brings that of another one,
    /// whose metadata service will say what is right here. A seed disk may be detached for good, and
    /// machines move: without its address, nobody would reach this one again.
    fn belongs(&self, kept: &Seed, found: &Found, problems: &mut Vec<String>) -> bool {
        let (Some(then), Some(now)) = (&kept.machine, self.machine.uuid()) else {
            return true;
        };
        if *then == now || matches!(found, Found::Seed(_)) {
            return true;
        }
        if !sources::is_cloud(&kept.source) {
            problems.push(format!(
                "the kept documents of instance {} were read on another machine; they stay in effect",
                kept.instance_id
            ));
            return true;
        }
        problems.push(format!(
            "the kept documents of instance {} belong to another machine and are not used",
            kept.instance_id
        ));
        false
    }

    fn apply(
        &self,
        decision: Decision,
        network: Option<&Fetcher>,
        platform: HostPlatform,
        mut problems: Vec<String>,
    ) -> Result<Outcome, StoreError> {
        let Decision {
            seed,
            new,
            later,
            failed,
            layer_stays,
        } = decision;
        let mut state = match (&seed, failed, later) {
            (_, _, true) => ProvisionState::Pending,
            (_, true, false) => ProvisionState::Failed,
            (Some(_), false, false) => ProvisionState::Complete,
            (None, false, false) => ProvisionState::None,
        };
        let mut composed = Composed {
            table: Table::new(),
            warnings: Vec::new(),
        };
        let mut keep = None;
        if let Some(mut seed) = seed.clone() {
            let mut resources = Fetched::of(&seed, network);
            let links = self.machine.links();
            composed = match compose(&seed, &mut resources, &links) {
                Ok(composed) => {
                    seed.resources = resources.had;
                    keep = new.then_some(seed);
                    composed
                }
                // The network itself may come with the seed, so that is in effect already.
                Err(error) => {
                    state = match network {
                        None => ProvisionState::Pending,
                        Some(_) => {
                            problems.push(error.to_string());
                            ProvisionState::Failed
                        }
                    };
                    seed.user_data = None;
                    seed.vendor_data = None;
                    compose(&seed, &mut BTreeMap::new(), &links).unwrap_or(composed)
                }
            };
        }
        let changed = !layer_stays && self.store.write_layer(&composed.table)?;
        // After the layer: a crash between both makes the next boot a first one again.
        if let Some(seed) = &keep {
            self.store.keep(seed)?;
            tracing::info!(
                source = %seed.source,
                place = %seed.place,
                instance = %seed.instance_id,
                "a first boot: the documents of the platform are in effect"
            );
        }
        let network_wanted = network.is_none() && state == ProvisionState::Pending;
        if let Some(client) = network
            && seed.is_some()
        {
            report(platform, client, &mut problems);
        }
        for warning in &composed.warnings {
            tracing::warn!("{warning}");
        }
        for problem in &problems {
            tracing::warn!("{problem}");
        }
        self.store.write_status(&ProvisionStatus {
            format: DocumentFormat::FIRST,
            state,
            source: seed.as_ref().map(|seed| seed.source.clone()),
            place: seed.as_ref().map(|seed| seed.place.clone()),
            instance_id: seed.as_ref().map(|seed| seed.instance_id.clone()),
            when: jiff::Timestamp::now().to_string(),
            applied: composed.settings(),
            warnings: composed.warnings.iter().map(ToString::to_string).collect(),
            problems,
        })?;
        Ok(Outcome {
            changed,
            network_wanted,
        })
    }
}

/// What the sources say together.
enum Found {
    Nothing,
    Seed(Box<Seed>),
    Later,
    Failure,
}

/// Which documents are in effect.
struct Decision {
    seed: Option<Seed>,
    /// They are those of a first boot.
    new: bool,
    /// The network phase may bring others.
    later: bool,
    /// A source could not be read.
    failed: bool,
    /// The kept documents can't be read, so the layer that was made of them is all that is left.
    layer_stays: bool,
}

fn decide(found: Found, kept: Option<Seed>, problems: &mut Vec<String>) -> Decision {
    let (seed, new, later, failed) = match (found, kept) {
        (Found::Seed(found), Some(kept))
            if kept.source == found.source && kept.instance_id == found.instance_id =>
        {
            if !kept.says_the_same(&found) {
                problems.push(format!(
                    "{}: the documents of {} have changed, but its instance-id ({}) has not: they are not \
                     applied again. Give it a new instance-id",
                    found.place, found.source, found.instance_id
                ));
            }
            (Some(kept), false, false, false)
        }
        (Found::Seed(found), _) => (Some(*found), true, false, false),
        (Found::Later, kept) => (kept, false, true, false),
        (Found::Failure, kept) => (kept, false, false, true),
        (Found::Nothing, kept) => (kept, false, false, false),
    };
    Decision {
        seed,
        new,
        later,
        failed,
        layer_stays: false,
    }
}

/// Tells the platform that all is done.
fn report(platform: HostPlatform, client: &Fetcher, problems: &mut Vec<String>) {
    for source in sources::of(platform) {
        if let Err(error) = source.report(client) {
            problems.push(format!("{}: report: {error}", source.name()));
        }
    }
}

/// Resources of a seed, those that were read before and those that the network gives.
struct Fetched<'a> {
    had: BTreeMap<String, Bytes>,
    network: Option<&'a Fetcher>,
}

impl<'a> Fetched<'a> {
    fn of(seed: &Seed, network: Option<&'a Fetcher>) -> Self {
        Self {
            had: seed.resources.clone(),
            network,
        }
    }
}

impl Resources for Fetched<'_> {
    fn get(&mut self, url: &str) -> Result<Vec<u8>, ResourceError> {
        if let Some(bytes) = self.had.get(url) {
            return Ok(bytes.0.clone());
        }
        let failed = |reason: String| ResourceError::Failed {
            url: shown(url),
            reason,
        };
        if self.had.len() >= resources::MOST {
            return Err(failed(format!("there are more than {}", resources::MOST)));
        }
        if !["http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(failed("only http: and https: are supported".to_owned()));
        }
        let Some(network) = self.network else {
            return Err(ResourceError::Later(shown(url)));
        };
        let ask = Ask {
            url,
            method: Method::Get,
            headers: &[],
            limit: resources::MAX_BYTES,
            redirects: true,
        };
        match network.patiently(ask, &[]) {
            Ok(bytes) => {
                self.had.insert(url.to_owned(), Bytes(bytes.clone()));
                Ok(bytes)
            }
            // The next boot tries again: it may be an outage.
            Err(error) if error.may_pass() => Err(ResourceError::Later(shown(url))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
