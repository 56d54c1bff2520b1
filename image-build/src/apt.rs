//! The building machine's package sources: where its Debian mirror is, and fetching single
//! packages of another Debian release without touching the machine's own apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::{self, Step};

/// The Debian release that the image is made of.
pub const IMAGE_RELEASE: &str = "trixie";
/// The release before it, whose clients are still in use.
pub const FORMER_RELEASE: &str = "bookworm";
/// Keys that Debian signs its archive with.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One archive, as a line or a stanza of apt's configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Base address.
    pub uri: String,
    /// `bookworm`, `bookworm-security`, ….
    pub suite: String,
}

/// Reads `sources.list(5)` in its one-line format. Lines that are no `deb` lines are left out.
#[must_use]
pub fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let rest = line.trim().strip_prefix("deb")?;
            if !rest.starts_with([' ', '\t', '[']) {
                return None;
            }
            let rest = rest.trim();
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => rest,
            };
            let mut words = rest.split_whitespace();
            Some(Source {
                uri: words.next()?.to_owned(),
                suite: words.next()?.to_owned(),
            })
        })
        .collect()
}

/// Reads `sources.list(5)` in its deb822 format: stanzas of fields. Disabled stanzas and those
/// without binary packages are left out.
#[must_use]
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<&str> {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.split_whitespace().collect())
            .unwrap_or_default()
    };
    if !words("types").contains(&"deb") || words("enabled").contains(&"no") {
        return Vec::new();
    }
    words("uris")
        .iter()
        .flat_map(|uri| {
            words("suites").into_iter().map(|suite| Source {
                uri: (*uri).to_owned(),
                suite: suite.to_owned(),
            })
        })
        .collect()
}

/// The archives of `wanted` on the mirrors that `configured` names for another release.
#[must_use]
pub fn for_release(wanted: &str, configured: &[Source]) -> Vec<Source> {
    // By the suite's ending, which says what the archive is for.
    const KINDS: [&str; 3] = ["", "-updates", "-security"];
    const RELEASES: [&str; 6] = [
        "bullseye", "bookworm", "trixie", "forky", "stable", "testing",
    ];
    let mut found: Vec<Source> = Vec::new();
    for source in configured {
        let kind = KINDS.iter().find(|kind| {
            source
                .suite
                .strip_suffix(**kind)
                .is_some_and(|release| RELEASES.contains(&release))
        });
        let Some(kind) = kind else { continue };
        // Third parties use Debian's suite names too; the addresses of Debian's own archives end in
        // these names.
        let path = source.uri.trim_end_matches('/');
        if !path.ends_with("/debian") && !path.ends_with("/debian-security") {
            continue;
        }
        let suite = format!("{wanted}{kind}");
        if !found.iter().any(|known| known.suite == suite) {
            found.push(Source {
                uri: source.uri.clone(),
                suite,
            });
        }
    }
    // Without its main archive the others are of no use.
    if !found.iter().any(|source| source.suite == wanted) {
        found.clear();
    }
    found
}

/// The package archives that the image is built from.
///
/// # Errors
/// See [`sources_of`].
pub fn image_sources() -> Result<Vec<Source>> {
    sources_of(IMAGE_RELEASE)
}

/// The package archives of `release`: on the mirror that the variable `KEELSON_DEBIAN_MIRROR`
/// names, or on those that the machine uses itself, or, on a machine that is no Debian, on
/// debootstrap's.
///
/// # Errors
/// None of these names a Debian mirror.
pub fn sources_of(release: &str) -> Result<Vec<Source>> {
    if let Ok(mirror) = std::env::var("KEELSON_DEBIAN_MIRROR") {
        return Ok(vec![Source {
            uri: mirror,
            suite: release.to_owned(),
        }]);
    }
    let sources = for_release(release, &configured_sources()?);
    if !sources.is_empty() {
        return Ok(sources);
    }
    let script = fs::read_to_string("/usr/share/debootstrap/functions").unwrap_or_default()
        + &fs::read_to_string("/usr/sbin/debootstrap").unwrap_or_default();
    if let Some(mirror) = debootstrap_mirror(&script) {
        return Ok(vec![Source {
            uri: mirror,
            suite: release.to_owned(),
        }]);
    }
    bail!(
        "no Debian mirror is known: neither apt's configuration nor an installed debootstrap \
         names one. Set KEELSON_DEBIAN_MIRROR to the address of a Debian archive."
    )
}

/// The mirror that debootstrap uses when none is given.
fn debootstrap_mirror(script: &str) -> Option<String> {
    script.lines().find_map(|line| {
        let value = line.trim().strip_prefix("DEF_MIRROR=")?;
        let value = value.trim_matches(['"', '\'']);
        value.contains("://").then(|| value.to_owned())
    })
}

/// The files that name the machine's archives.
fn source_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.retain(|file| {
        file.extension()
            .is_some_and(|e| e == "list" || e == "sources")
    });
    files.sort();
    files
}

/// The archives that the machine's own apt uses.
///
/// # Errors
/// A file of its configuration cannot be read.
pub fn configured_sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for file in source_files() {
        let parse: fn(&str) -> Vec<Source> = match file.extension().and_then(|e| e.to_str()) {
            Some("list") => parse_one_line,
            _ => parse_deb822,
        };
        match fs::read_to_string(&file) {
            Ok(text) => sources.extend(parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        }
    }
    Ok(sources)
}

/// `sources` in deb822 format, signed by Debian.
#[must_use]
pub fn deb822(sources: &[Source]) -> String {
    sources
        .iter()
        .map(|source| {
            format!(
                "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {DEBIAN_KEYRING}\n\n",
                source.uri, source.suite
            )
        })
        .collect()
}

/// Fetches the package `name` of [`IMAGE_RELEASE`] and unpacks it into `destination`, with
/// lists, state and cache of its own below `directory`.
///
/// # Errors
/// The mirror does not answer, its signature does not fit, or it has no such package.
pub fn fetch_and_unpack(
    step: &mut Step,
    name: &str,
    directory: &Path,
    destination: &Path,
    logs: &Path,
) -> Result<()> {
    fetch_and_unpack_of(IMAGE_RELEASE, step, &[name], directory, destination, logs)
}

/// Like [`fetch_and_unpack`] for packages of `release`, which has a `directory` of its own.
///
/// # Errors
/// The mirror does not answer, its signature does not fit, or it has no such package.
pub fn fetch_and_unpack_of(
    release: &str,
    step: &mut Step,
    names: &[&str],
    directory: &Path,
    destination: &Path,
    logs: &Path,
) -> Result<()> {
    let configuration = private_configuration(directory, &sources_of(release)?)?;
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", &configuration)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        command
    };
    let first = names.first().copied().unwrap_or_default();
    let log = progress::log_file(logs, &format!("fetch-{first}"));
    progress::run(step, &mut apt_get(&["-qq", "update"]), &log)?;
    let downloads = directory.join("packages");
    fs::create_dir_all(&downloads)?;
    for old in fs::read_dir(&downloads)?.flatten() {
        fs::remove_file(old.path())?;
    }
    progress::run(
        step,
        apt_get(&["-qq", "download"])
            .args(names)
            .current_dir(&downloads),
        &log,
    )?;
    let packages: Vec<PathBuf> = fs::read_dir(&downloads)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    if packages.len() < names.len() {
        bail!(
            "apt-get download left {} packages of {names:?}",
            packages.len()
        );
    }
    // The tool must be complete or absent, because an existing one is used without further checks.
    let staging = destination.with_extension("new");
    let _ = fs::remove_dir_all(&staging);
    let _ = fs::remove_dir_all(destination);
    fs::create_dir_all(&staging)?;
    for package in &packages {
        progress::run(
            step,
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(package)
                .arg(&staging),
            &log,
        )?;
    }
    fs::rename(&staging, destination)
        .with_context(|| format!("rename {} to {}", staging.display(), destination.display()))
}

/// Writes an apt configuration whose every directory lies below `directory`.
fn private_configuration(directory: &Path, sources: &[Source]) -> Result<PathBuf> {
    let directory = std::path::absolute(directory)?;
    for sub in [
        "etc/sources.list.d",
        "etc/preferences.d",
        "etc/apt.conf.d",
        "state/lists/partial",
        "cache/archives/partial",
    ] {
        fs::create_dir_all(directory.join(sub))?;
    }
    fs::write(directory.join("status"), "")?;
    fs::write(
        directory.join("etc/sources.list.d/debian.sources"),
        deb822(sources),
    )?;
    let at = directory.display();
    let configuration = directory.join("apt.conf");
    fs::write(
        &configuration,
        format!(
            "Dir::Etc \"{at}/etc\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{at}/etc/sources.list.d\";\n\
             Dir::State \"{at}/state\";\n\
             Dir::State::status \"{at}/status\";\n\
             Dir::Cache \"{at}/cache\";\n\
             APT::Sandbox::User \"\";\n"
        ),
    )
    .with_context(|| format!("write {}", configuration.display()))?;
    Ok(configuration)
}

/// Writes an apt configuration for `-c` that has `others` in addition to the machine's own
/// archives. Its lists are below `directory`; packages are installed on the machine.
///
/// # Errors
/// A file cannot be copied or written.
pub fn beside_the_machines(directory: &Path, others: &[Source]) -> Result<PathBuf> {
    let parts = directory.join("sources");
    if parts.exists() {
        fs::remove_dir_all(&parts).with_context(|| format!("remove {}", parts.display()))?;
    }
    for part in [&parts, &directory.join("lists/partial")] {
        fs::create_dir_all(part).with_context(|| format!("create {}", part.display()))?;
    }
    for (number, file) in source_files().iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match fs::copy(file, parts.join(format!("machine-{number}-{name}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("copy {}", file.display()));
            }
            _ => {}
        }
    }
    fs::write(parts.join("others.sources"), deb822(others))?;
    let at = directory.display();
    let configuration = directory.join("apt.conf");
    fs::write(
        &configuration,
        format!(
            "Dir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{at}/sources\";\n\
             Dir::State::lists \"{at}/lists\";\n\
             Dir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\n\
             APT::Sandbox::User \"root\";\n"
        ),
    )
    .with_context(|| format!("write {}", configuration.display()))?;
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        }
    }

    #[test]
    fn one_line_format() {
        let text = "# comment\n\
            deb http://mirror.example/debian bookworm main contrib\n\
            deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm-updates main # x\n\
            deb-src http://mirror.example/debian bookworm main\n";
        assert_eq!(
            parse_one_line(text),
            [
                source("http://mirror.example/debian", "bookworm"),
                source("https://mirror.example/debian", "bookworm-updates"),
            ]
        );
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb deb-src\n# comment\nURIs: http://mirror.example/debian\n\
            Suites: bookworm\n bookworm-updates\nComponents: main\n\n\
            Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nEnabled: no\n\n\
            Types: deb-src\nURIs: http://source.example/debian\nSuites: bookworm";
        assert_eq!(
            parse_deb822(text),
            [
                source("http://mirror.example/debian", "bookworm"),
                source("http://mirror.example/debian", "bookworm-updates"),
            ]
        );
    }

    #[test]
    fn suites_are_exchanged_and_strangers_left_out() {
        let configured = [
            source("http://mirror.example/debian/", "bookworm"),
            source("http://second.example/debian", "bookworm"),
            source("http://mirror.example/debian-security", "bookworm-security"),
            source("http://third.example/tool", "bookworm"),
            source("http://mirror.example/debian", "bookworm-backports"),
        ];
        assert_eq!(
            for_release(IMAGE_RELEASE, &configured),
            [
                source("http://mirror.example/debian/", "trixie"),
                source("http://mirror.example/debian-security", "trixie-security"),
            ]
        );
        let ubuntu = [source("http://mirror.example/ubuntu", "noble")];
        assert_eq!(for_release(IMAGE_RELEASE, &ubuntu), []);
        let security_only = [source(
            "http://mirror.example/debian-security",
            "bookworm-security",
        )];
        assert_eq!(for_release(IMAGE_RELEASE, &security_only), []);
    }

    #[test]
    fn debootstrap_names_its_mirror() {
        let script = "DEF_MIRROR=\"$X\"\n  DEF_MIRROR=\"http://mirror.example/debian\"\n";
        assert_eq!(
            debootstrap_mirror(script).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(debootstrap_mirror("MIRROR=x"), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let sources = [
            source("http://a.example/debian", "trixie"),
            source("http://a.example/s", "x"),
        ];
        assert_eq!(parse_deb822(&deb822(&sources)), sources);
    }
}
