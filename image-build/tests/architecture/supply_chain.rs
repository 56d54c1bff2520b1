//! The allowed code of others: licences, forbidden packages and sources, as deny.toml says. The
//! file has cargo-deny's format, so that people who have that program can use it (for advisories,
//! which change by the day). These tests enforce its rules on every machine.

use std::collections::BTreeSet;
use std::fs;

use cargo_metadata::semver::VersionReq;
use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;

use super::root;

/// An unknown key would be a rule that nothing checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    graph: Graph,
    #[serde(rename = "advisories")]
    _advisories: toml::Table,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    targets: Vec<String>,
    all_features: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Licences {
    allow: BTreeSet<String>,
    /// For cargo-deny, which reads licence files; these tests read what packages declare.
    #[serde(rename = "confidence-threshold")]
    _confidence_threshold: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    wildcards: String,
    allow_wildcard_paths: bool,
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
}

fn policy() -> Policy {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    toml::from_str(&text).expect("deny.toml as it is understood here")
}

/// The packages for the targets that the policy names, those that only build or test included.
fn packages(policy: &Policy) -> Vec<Package> {
    assert!(policy.graph.all_features);
    assert!(!policy.graph.targets.is_empty());
    let mut found: Vec<Package> = Vec::new();
    for target in &policy.graph.targets {
        let options = ["--locked", "--filter-platform", target].map(str::to_owned);
        let metadata: Metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .features(cargo_metadata::CargoOpt::AllFeatures)
            .other_options(options.to_vec())
            .exec()
            .expect("cargo metadata");
        let resolved = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
        let used: BTreeSet<_> = resolved.iter().map(|node| &node.id).collect();
        for package in &metadata.packages {
            if used.contains(&package.id) && !found.iter().any(|known| known.id == package.id) {
                found.push(package.clone());
            }
        }
    }
    assert!(found.len() > 100, "only {} packages", found.len());
    found
}

fn breaches(policy: &Policy, package: &Package) -> Vec<String> {
    let mut found = Vec::new();
    let licence = package.license.clone().unwrap_or_default();
    if !is_allowed(&policy.licenses.allow, &licence) {
        found.push(format!("licence {licence:?}"));
    }
    if policy.bans.deny.iter().any(|ban| ban.name == *package.name) {
        found.push("the package is forbidden".to_owned());
    }
    match &package.source {
        Some(source) if source.is_crates_io() => {}
        Some(source) => found.push(format!("comes from {source}")),
        None if package.manifest_path.starts_with(root()) => {}
        None => found.push(format!("lies at {}", package.manifest_path)),
    }
    // The lock file pins the dependencies of other packages.
    if package.source.is_none() {
        let wild = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.req == VersionReq::STAR && dependency.path.is_none());
        found.extend(wild.map(|dependency| format!("takes any version of {}", dependency.name)));
    }
    found
        .into_iter()
        .map(|breach| format!("{} {}: {breach}", package.name, package.version))
        .collect()
}

/// Whether an SPDX expression can be met with `allowed`. Every side of an AND and one side of an OR
/// must be allowed. Brackets are ignored; that is never more generous than the expression.
fn is_allowed(allowed: &BTreeSet<String>, expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| allowed.contains(licence.trim()))
    })
}

#[test]
fn licences_bans_and_sources_are_kept() {
    let policy = policy();
    // `breaches` checks these rules. Nothing would check a further one in deny.toml.
    assert_eq!(policy.bans.wildcards, "deny");
    assert!(policy.bans.allow_wildcard_paths);
    assert_eq!(policy.bans.multiple_versions, "warn", "not held here");
    assert_eq!(policy.sources.unknown_registry, "deny");
    assert_eq!(policy.sources.unknown_git, "deny");
    let wrong: Vec<String> = packages(&policy)
        .iter()
        .flat_map(|package| breaches(&policy, package))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_of_breach_is_seen() {
    let policy = policy();
    let some = packages(&policy);
    let of_registry = some.iter().find(|package| package.source.is_some());
    let good = of_registry.expect("a package of others").clone();
    assert_eq!(breaches(&policy, &good), [""; 0]);
    let seen = |change: &dyn Fn(&mut serde_json::Value), word: &str| {
        let mut value = serde_json::to_value(&good).unwrap();
        change(&mut value);
        let changed: Package = serde_json::from_value(value).unwrap();
        let found = breaches(&policy, &changed);
        assert!(
            found.iter().any(|breach| breach.contains(word)),
            "{found:?}"
        );
    };
    seen(&|package| package["license"] = "GPL-3.0".into(), "GPL-3.0");
    seen(
        &|package| package["license"] = serde_json::Value::Null,
        "licence",
    );
    seen(
        &|package| package["name"] = "native-tls".into(),
        "forbidden",
    );
    let git = "git+https://example.org/x#1";
    seen(&|package| package["source"] = git.into(), "comes from");
    let elsewhere = "registry+https://example.org/index";
    seen(
        &|package| package["source"] = elsewhere.into(),
        "comes from",
    );
    let own = |package: &mut serde_json::Value| package["source"] = serde_json::Value::Null;
    seen(&own, "lies at");
}

#[test]
fn licence_expressions_are_read() {
    let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"]
        .map(str::to_owned)
        .into();
    for good in [
        "MIT OR GPL-3.0",
        "Apache-2.0/MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(is_allowed(&allowed, good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "GPL-3.0 OR MIT AND GPL-2.0",
        "",
    ] {
        assert!(!is_allowed(&allowed, bad), "{bad}");
    }
}
