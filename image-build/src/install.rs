//! Installs packages of the distribution without removing others.
//!
//! A wanted package may conflict with an installed one: QEMU's programs come from one source, so
//! those of a stable release and of its backports can't be mixed, and apt solves that by removing
//! packages that were not named. So the installed packages are named too, removals and downgrades
//! are forbidden, and apt simulates the installation first. If that fails, other versions of the
//! wanted packages are tried: those of the suites that apt knows, then those of the release's
//! backports on the same mirror.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Source};
use crate::distribution::Distribution;
use crate::needs::{Survey, explain};
use crate::privilege::{as_root, authenticate, is_root};
use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// Options of every call of apt-get.
const OPTIONS: [&str; 8] = [
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "APT::Get::Assume-Yes=true",
    "-o",
    "APT::Get::AutomaticRemove=false",
    "--no-remove",
    "--no-install-recommends",
];

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Installed {
    name: String,
    version: String,
}

/// What apt is asked to install in one call.
#[derive(Debug, Default)]
struct Request {
    packages: Vec<String>,
    /// The suite whose versions are preferred, also for dependencies.
    suite: Option<String>,
    /// A configuration file that apt reads after the machine's own.
    configuration: Option<PathBuf>,
}

/// Installs the packages that the survey misses. Installed packages stay, in their version or a
/// newer one.
///
/// # Errors
/// sudo does not allow it, or apt can't install them beside the installed packages. The message
/// names the conflict, and says what to do.
pub fn install(workspace: &Workspace, distribution: &Distribution, survey: &Survey) -> Result<()> {
    let missing: Vec<&str> = survey.missing.iter().map(|need| need.package).collect();
    progress::say(&format!(
        "These packages of the distribution are missing and are installed now{}; nothing is \
         removed:\n{}",
        if is_root() { "" } else { " with sudo" },
        explain(&survey.missing)
    ));
    if !is_root() && !authenticate() {
        bail!(
            "sudo does not allow it. Install these packages as root and try again:\n  apt-get \
             install --no-remove {}",
            missing.join(" ")
        );
    }
    let present = installed(&survey.present)?;
    let mut step = Step::begin("apt-get install");
    let log = progress::log_file(&workspace.log(), "apt");
    let outcome = attempt(workspace, distribution, &missing, &present, &mut step, &log);
    let gone = lost(&present, &installed(&survey.present)?);
    if !gone.is_empty() {
        bail!(
            "apt removed packages that it was to keep: {}",
            gone.join(", ")
        );
    }
    outcome.with_context(|| format!("install these packages:\n{}", explain(&survey.missing)))?;
    step.done(&missing.join(" "));
    Ok(())
}

fn attempt(
    workspace: &Workspace,
    distribution: &Distribution,
    missing: &[&str],
    present: &[Installed],
    step: &mut Step,
    log: &Path,
) -> Result<()> {
    // Package lists may be missing or out of date; they are fetched only then.
    if let Some(requests) = solve(missing, present, None)
        && fulfil(&requests, step, log).is_ok()
    {
        return Ok(());
    }
    step.detail("package lists");
    let lists = progress::log_file(&workspace.log(), "apt-update");
    progress::run(step, as_root("apt-get").args(OPTIONS).arg("update"), &lists)?;
    if let Some(requests) = solve(missing, present, None) {
        return fulfil(&requests, step, log);
    }
    step.detail("the release's backports");
    if let Some(requests) = from_backports(workspace, distribution, missing, present, step)? {
        return fulfil(&requests, step, log);
    }
    bail!(refusal(missing, present));
}

/// Lets apt install, after it has printed unexpected changes.
fn fulfil(requests: &[Request], step: &mut Step, log: &Path) -> Result<()> {
    for request in requests {
        if let Some(suite) = &request.suite {
            progress::say(&format!(
                "   ! from {suite}, to go with the versions that are installed: {}",
                request.packages.join(" ")
            ));
        }
        if let Ok(plan) = simulate(request) {
            for (name, old, new) in upgrades(&plan) {
                progress::say(&format!("   ! {name} is upgraded from {old} to {new}"));
            }
        }
        progress::run(step, &mut apt_get(request), log)?;
    }
    Ok(())
}

/// Finds requests, to be made one after the other, that apt can fulfil; `None` if there are none
/// with these package lists.
fn solve(
    missing: &[&str],
    present: &[Installed],
    configuration: Option<&Path>,
) -> Option<Vec<Request>> {
    let request = |wanted: &[&str], others: &[String], suite: Option<&str>| Request {
        packages: wanted
            .iter()
            .map(|name| (*name).to_owned())
            .chain(others.iter().cloned())
            .collect(),
        suite: suite.map(str::to_owned),
        configuration: configuration.map(Path::to_owned),
    };
    let possible = |request: &Request| simulate(request).is_ok();
    // Installed packages stay, or become newer.
    let kept: Vec<String> = present
        .iter()
        .map(|package| format!("{}={}", package.name, package.version))
        .collect();
    let renewed: Vec<String> = present.iter().map(|package| package.name.clone()).collect();
    for others in [&kept, &renewed] {
        let plain = request(missing, others, None);
        if possible(&plain) {
            return Some(vec![plain]);
        }
    }
    // Conflicting packages are installed in another version.
    let (fitting, blocked): (Vec<&str>, Vec<&str>) = missing
        .iter()
        .partition(|name| possible(&request(&[name], &kept, None)));
    if blocked.is_empty() {
        return None;
    }
    suites(&madison(&blocked, configuration))
        .iter()
        .map(|suite| {
            let mut requests = vec![request(&blocked, &kept, Some(suite))];
            if !fitting.is_empty() {
                requests.push(request(&fitting, &kept, None));
            }
            requests
        })
        .find(|requests| requests.iter().all(possible))
}

/// Tries again with the backports of the machine's release, which its apt need not know. Their
/// lists are kept in our own directory, so that the machine's configuration stays as it is.
fn from_backports(
    workspace: &Workspace,
    distribution: &Distribution,
    missing: &[&str],
    present: &[Installed],
    step: &mut Step,
) -> Result<Option<Vec<Request>>> {
    let Some(backports) = backports(distribution, &apt::configured_sources()?) else {
        return Ok(None);
    };
    let directory = std::path::absolute(workspace.tools().join("apt-backports"))?;
    let configuration = apt::beside_the_machines(&directory, &[backports])?;
    let log = progress::log_file(&workspace.log(), "apt-backports");
    let mut update = as_root("apt-get");
    update
        .arg("-c")
        .arg(&configuration)
        .args(OPTIONS)
        .arg("update");
    // A mirror without them must not hide the conflict.
    if progress::run(step, &mut update, &log).is_err() {
        return Ok(None);
    }
    Ok(solve(missing, present, Some(&configuration)))
}

/// The archive of a Debian release's backports on the mirror of its main archive.
fn backports(distribution: &Distribution, configured: &[Source]) -> Option<Source> {
    if distribution.id != "debian" || distribution.codename.is_empty() {
        return None;
    }
    let main = configured.iter().find(|source| {
        source.suite == distribution.codename
            && source.uri.trim_end_matches('/').ends_with("/debian")
    })?;
    Some(Source {
        uri: main.uri.clone(),
        suite: format!("{}-backports", distribution.codename),
    })
}

fn arguments(request: &Request) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(configuration) = &request.configuration {
        words.extend(["-c".to_owned(), configuration.display().to_string()]);
    }
    words.extend(OPTIONS.map(str::to_owned));
    if let Some(suite) = &request.suite {
        words.extend(["--target-release".to_owned(), suite.clone()]);
    }
    words.push("install".to_owned());
    words.extend(request.packages.iter().cloned());
    words
}

fn apt_get(request: &Request) -> Command {
    let mut command = as_root("apt-get");
    command.args(arguments(request));
    command
}

/// What apt would do, line by line; or why it can't.
fn simulate(request: &Request) -> Result<String, String> {
    let output = Command::new("apt-get")
        .arg("--simulate")
        .args(arguments(request))
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("start apt-get: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && !text.lines().any(|line| line.starts_with("Remv ")) {
        Ok(text)
    } else {
        Err(text + &String::from_utf8_lossy(&output.stderr))
    }
}

/// Name, old and new version of what a simulation upgrades: `Inst name [old] (new archive [arch])`.
fn upgrades(plan: &str) -> Vec<(&str, &str, &str)> {
    plan.lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let (old, rest) = rest.strip_prefix('[')?.split_once(']')?;
            let new = rest.trim_start().strip_prefix('(')?.split_whitespace();
            Some((name, old, new.into_iter().next()?))
        })
        .collect()
}

/// What apt-cache knows about versions of packages.
fn madison(packages: &[&str], configuration: Option<&Path>) -> String {
    let mut command = Command::new("apt-cache");
    if let Some(configuration) = configuration {
        command.arg("-c").arg(configuration);
    }
    command.arg("madison").args(packages);
    progress::output(&mut command).unwrap_or_default()
}

/// The suites in lines such as ` name | version | address suite/component architecture Packages`.
fn suites(madison: &str) -> Vec<String> {
    let mut suites: Vec<String> = Vec::new();
    for line in madison.lines() {
        let place = line.split('|').nth(2).unwrap_or_default();
        let suite = place.split_whitespace().nth(1).unwrap_or_default();
        let suite = suite.split('/').next().unwrap_or_default();
        if !suite.is_empty() && suite != "." && !suites.iter().any(|known| known == suite) {
            suites.push(suite.to_owned());
        }
    }
    suites
}

/// Those of `names` that dpkg has installed, with their versions.
fn installed(names: &[&str]) -> Result<Vec<Installed>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // It fails when it does not know one, but still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat"])
        .arg("${Package} ${Version} ${db:Status-Status}\\n")
        .args(names)
        .output()
        .context("start dpkg-query")?;
    Ok(parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_installed(text: &str) -> Vec<Installed> {
    text.lines()
        .filter_map(|line| {
            let [name, version, "installed"] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            Some(Installed {
                name: name.to_owned(),
                version: version.to_owned(),
            })
        })
        .collect()
}

fn lost(before: &[Installed], after: &[Installed]) -> Vec<String> {
    before
        .iter()
        .filter(|package| !after.iter().any(|other| other.name == package.name))
        .map(|package| package.name.clone())
        .collect()
}

/// The conflict in apt's words, and the possible solutions.
fn refusal(missing: &[&str], present: &[Installed]) -> String {
    let mut request = Request {
        packages: missing.iter().map(|name| (*name).to_owned()).collect(),
        ..Request::default()
    };
    let alone = simulate(&request).err().unwrap_or_default();
    let names = present.iter().map(|package| package.name.clone());
    request.packages.extend(names);
    let together = simulate(&request).err().unwrap_or_default();
    explained(&alone, &together, present)
}

fn explained(alone: &str, together: &str, present: &[Installed]) -> String {
    let conflict = format!("{}\n{}", reasons(alone), reasons(together));
    let in_the_way: Vec<String> = present
        .iter()
        .filter(|package| names(&conflict, &package.name))
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    let in_the_way = match in_the_way.is_empty() {
        true => "what is installed".to_owned(),
        false => in_the_way.join(", "),
    };
    format!(
        "apt can't install them beside {in_the_way}, and nothing is removed or downgraded for \
         them. It says:\n{}\nEither let apt know the archive that the installed versions came \
         from (in /etc/apt/sources.list.d), or go back to the release's own versions of them, \
         `apt-get install --allow-downgrades NAME/SUITE`; then try again.",
        conflict.trim()
    )
}

/// Whether a text has a package's name as a word.
fn names(text: &str, package: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
        .any(|word| word == package)
}

/// The parts of apt's output that say why it can't, without its general remarks.
fn reasons(output: &str) -> String {
    const BEGINNINGS: [&str; 2] = [
        "The following packages have unmet dependencies:",
        "The following packages will be REMOVED:",
    ];
    let mut kept = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        inside = BEGINNINGS.contains(&line) || inside && line.starts_with(' ');
        if inside || line.starts_with("E: ") {
            kept.push(line);
        }
    }
    kept.truncate(40);
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_be_removed_or_downgraded() {
        let request = Request {
            packages: vec!["a".to_owned(), "b=1".to_owned()],
            suite: Some("stable-backports".to_owned()),
            configuration: Some("/x/apt.conf".into()),
        };
        let words = arguments(&request).join(" ");
        assert!(words.starts_with("-c /x/apt.conf "), "{words}");
        assert!(words.contains(" --no-remove "), "{words}");
        assert!(!words.contains("downgrades"), "{words}");
        let end = " --target-release stable-backports install a b=1";
        assert!(words.ends_with(end), "{words}");
    }

    #[test]
    fn apts_plan_is_read() {
        let plan = "Inst qemu-utils [1:7.2+dfsg-7] (1:10.0+ds Debian:12 [amd64])\n\
                    Inst libx (1.0 Debian:12 [amd64])\nConf libx (1.0 Debian:12 [amd64])\n";
        assert_eq!(
            upgrades(plan),
            [("qemu-utils", "1:7.2+dfsg-7", "1:10.0+ds")]
        );
    }

    #[test]
    fn suites_are_read() {
        let text = " qemu-utils | 1:10.0 | http://mirror.example/debian bookworm-backports/main \
                    amd64 Packages\n qemu-utils | 1:7.2 | http://mirror.example/debian \
                    bookworm/main amd64 Packages\n";
        assert_eq!(suites(text), ["bookworm-backports", "bookworm"]);
        assert!(suites("").is_empty());
    }

    #[test]
    fn only_what_is_installed_counts() {
        let text = "a 1.0 installed\nb 2 config-files\nc 3 installed\n";
        let before = parse_installed(text);
        assert_eq!(before.len(), 2);
        assert_eq!(lost(&before, &before[..1]), ["c"]);
        assert!(installed(&[]).unwrap().is_empty());
    }

    #[test]
    fn backports_lie_on_the_same_mirror() {
        let source = |uri: &str, suite: &str| Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        };
        let debian = Distribution {
            id: "debian".to_owned(),
            codename: "bookworm".to_owned(),
            ..Distribution::default()
        };
        let configured = [
            source("http://third.example/tool", "bookworm"),
            source("http://mirror.example/debian", "bookworm"),
        ];
        assert_eq!(
            backports(&debian, &configured),
            Some(source("http://mirror.example/debian", "bookworm-backports"))
        );
        assert_eq!(backports(&Distribution::default(), &configured), None);
    }

    #[test]
    fn a_refusal_names_what_is_in_the_way_and_the_remedy() {
        let together = "Reading package lists...\nSome packages could not be installed.\n\
            The following packages have unmet dependencies:\n \
            qemu-utils : Breaks: qemu-system-common (< 1:8.0) but 1:7.2 is to be installed\n\
            E: Unable to correct problems, you have held broken packages.\n";
        let alone = "The following packages will be REMOVED:\n  qemu-utils\n\
            E: Packages need to be removed but remove is disabled.\n";
        let present = [("qemu-utils", "1:10.0"), ("curl", "7")].map(|(name, version)| Installed {
            name: name.to_owned(),
            version: version.to_owned(),
        });
        let text = explained(alone, together, &present);
        assert!(text.contains("beside qemu-utils 1:10.0, and"), "{text}");
        assert!(text.contains("Breaks: qemu-system-common"), "{text}");
        assert!(text.contains("--allow-downgrades"), "{text}");
        assert!(!text.contains("Reading package lists"), "{text}");
    }
}
