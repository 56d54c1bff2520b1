//! Whether the machine is healthy with its configuration, which then is the last good one.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use keelson_blocking::blocking;
use keelson_config::{ChangeError, LoadedConfig, Sources, change};
use keelson_model::ip::IpPrefix;
use serde::Deserialize;

/// netcfg's report.
pub(crate) const NETWORK_STATUS: &str = "/run/keelson/netcfg/status.json";
/// How often the machine is looked at until it is healthy.
const INTERVAL: Duration = Duration::from_secs(5);
/// Largest report of netcfg that is read, in bytes.
const MAX_REPORT: u64 = 16 << 20;

/// Why a machine is not healthy.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("{NETWORK_STATUS}: {0}")]
    Unread(#[from] io::Error),
    #[error("{NETWORK_STATUS}: {0}")]
    Unclear(#[from] serde_json::Error),
    #[error("network: {0}")]
    Network(String),
    #[error("a change waits for its confirmation")]
    Waits,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Waits until the machine is healthy and keeps its configuration as the last good one. Without a
/// merged configuration there is no machine to look at, and serving is enough.
///
/// `all_bound`: the API listens wherever the configuration says.
pub(crate) async fn keep_last_good(sources: Sources, loaded: LoadedConfig, all_bound: bool) {
    if loaded.operator_is_broken() {
        return;
    }
    if !all_bound {
        tracing::warn!("the machine is not healthy: the API does not listen wherever it should");
        return;
    }
    let mut told = false;
    loop {
        let (sources, loaded) = (sources.clone(), loaded.clone());
        let looked = blocking(move || look(&sources, &loaded)).await;
        match looked {
            Ok(Ok(())) => return,
            Ok(Err(why)) if !told => {
                tracing::info!(%why, "the machine is not healthy yet");
                told = true;
            }
            Ok(Err(_)) => {}
            Err(error) => {
                tracing::error!(%error, "the machine's health can't be found out");
                return;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Says why the machine is not healthy, or keeps its configuration.
fn look(sources: &Sources, loaded: &LoadedConfig) -> Result<(), Unhealthy> {
    if sources.effective.exists() {
        network_is_healthy(loaded)?;
    }
    if change::waiting(sources)?.is_some() {
        return Err(Unhealthy::Waits);
    }
    if let Err(error) = keelson_config::save_last_good(loaded, sources) {
        tracing::warn!(%error, "the last good configuration can't be saved");
    }
    Ok(())
}

/// The part of netcfg's report that says whether somebody can reach this machine.
#[derive(Deserialize)]
struct Report {
    links: Vec<Link>,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Link {
    managed: bool,
    carrier: bool,
    addresses: Vec<String>,
}

fn network_is_healthy(loaded: &LoadedConfig) -> Result<(), Unhealthy> {
    let file = std::fs::File::open(NETWORK_STATUS)?;
    let report = serde_json::from_reader(io::Read::take(file, MAX_REPORT))?;
    judge(&report, loaded)
}

/// The network is healthy if a managed link can be reached, or if netcfg has nothing to complain
/// about but the configuration's files.
fn judge(report: &Report, loaded: &LoadedConfig) -> Result<(), Unhealthy> {
    let reachable = report.links.iter().any(|link| {
        let address = |text: &String| {
            let prefix = text.parse::<IpPrefix>();
            prefix.is_ok_and(|prefix| is_of_a_machine(prefix.address))
        };
        link.managed && link.carrier && link.addresses.iter().any(address)
    });
    if reachable {
        return Ok(());
    }
    let files: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    match report
        .problems
        .iter()
        .find(|problem| !files.contains(problem))
    {
        Some(problem) => Err(Unhealthy::Network(problem.clone())),
        None => Ok(()),
    }
}

fn is_of_a_machine(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(addresses: &[&str], problems: &[&str]) -> Report {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Report {
            links: vec![Link {
                managed: true,
                carrier: true,
                addresses: owned(addresses),
            }],
            problems: owned(problems),
        }
    }

    #[test]
    fn a_machine_that_can_be_reached_is_healthy() {
        let root = tempfile::tempdir().unwrap();
        let loaded = keelson_config::load(&Sources::under(root.path()));
        let problem = "the configuration names link eth7, which this machine does not have";
        for (addresses, problems, healthy) in [
            (&["192.0.2.1/24"][..], &[problem][..], true),
            (&[], &[], true),
            (&[], &[problem], false),
            (&["127.0.0.1/8", "fe80::1/64"], &[problem], false),
            (&["nonsense"], &[problem], false),
        ] {
            let judged = judge(&report(addresses, problems), &loaded);
            assert_eq!(judged.is_ok(), healthy, "{addresses:?} {problems:?}");
        }
    }

    #[test]
    fn problems_of_files_are_no_problems_of_the_network() {
        let root = tempfile::tempdir().unwrap();
        let sources = Sources::under(root.path());
        std::fs::create_dir_all(sources.image.parent().unwrap()).unwrap();
        std::fs::write(&sources.image, "nonsense").unwrap();
        let loaded = keelson_config::load(&sources);
        let problem = loaded.problems[0].to_string();
        assert!(judge(&report(&[], &[&problem]), &loaded).is_ok());
        assert!(judge(&report(&[], &[&problem, "another"]), &loaded).is_err());
    }
}
