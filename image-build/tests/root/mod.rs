//! A directory with a distribution in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image_build::apt::{self, Source};
use image_build::tools;
use image_build::workspace::Workspace;
use nix::fcntl::{Flock, FlockArg};

/// The output of a program in a root.
pub(crate) struct Said {
    pub(crate) success: bool,
    /// Standard output and standard error.
    pub(crate) text: String,
}

/// A root with one distribution. It is removed on drop.
pub(crate) struct Root {
    directory: tempfile::TempDir,
    workspace: Workspace,
    suite: &'static str,
    mirror: Mirror,
}

/// Where a suite's packages come from.
struct Mirror {
    uri: String,
    components: &'static str,
    /// The script of debootstrap, where it need not know the suite's name.
    script: Option<&'static str>,
    /// A file of keys, where debootstrap's own choice is not on this machine.
    keys: Option<&'static str>,
}

impl Mirror {
    /// That of this machine's main archive; Ubuntu's is looked for beside it.
    fn of(suite: &str) -> Option<Self> {
        let sources = apt::image_sources().expect("a Debian mirror");
        let uri = sources.first()?.uri.trim_end_matches('/').to_owned();
        if suite != "noble" {
            return Some(Self {
                uri,
                components: "main",
                script: None,
                keys: None,
            });
        }
        let uri = format!("{}/ubuntu", uri.strip_suffix("/debian")?);
        let release = format!("{uri}/dists/{suite}/Release");
        let asked = Command::new("curl")
            .args(["--silent", "--fail", "--location", "--max-time", "30"])
            .args(["--output", "/dev/null", &release])
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            keelson_testing::skip("mirror of Ubuntu", "there is none beside Debian's");
            return None;
        }
        let keys = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";
        Some(Self {
            uri,
            components: "main,universe",
            script: Some("/usr/share/debootstrap/scripts/gutsy"),
            keys: Path::new(keys).exists().then_some(keys),
        })
    }
}

impl Root {
    /// Makes the root, from an archive of the last run where there is one.
    pub(crate) fn new(name: &str, suite: &'static str) -> Option<Self> {
        if !keelson_testing::is_root() {
            return None;
        }
        if tools::in_path("debootstrap").is_none() {
            keelson_testing::skip("debootstrap", "it is not installed");
            return None;
        }
        let mirror = Mirror::of(suite)?;
        let workspace = Workspace::locate().unwrap();
        let store = workspace.target().join("roots");
        fs::create_dir_all(&store).unwrap();
        let archive = bootstrapped(&store, suite, &mirror);
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(&store)
            .unwrap();
        succeeds(
            Command::new("tar")
                .arg("-C")
                .arg(directory.path())
                .arg("-xpf")
                .arg(archive),
        );
        let root = Self {
            directory,
            workspace,
            suite,
            mirror,
        };
        root.configure();
        Some(root)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    /// Package sources, this machine's ways to them, and a dpkg that need not survive a power cut.
    fn configure(&self) {
        let _ = fs::remove_file(self.path("etc/apt/sources.list"));
        self.add_source(self.suite);
        let dump = Command::new("apt-config")
            .args(["dump", "Acquire"])
            .output()
            .unwrap();
        let ways: String = String::from_utf8_lossy(&dump.stdout)
            .lines()
            .filter(|line| !line.starts_with("Acquire::IndexTargets") && !line.contains("::cdrom"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        let parts = self.path("etc/apt/apt.conf.d");
        fs::write(parts.join("90machine"), ways).unwrap();
        fs::write(parts.join("91languages"), "Acquire::Languages \"none\";\n").unwrap();
        for file in ["auth.conf", "auth.conf.d", "ssl"] {
            let from = Path::new("/etc/apt").join(file);
            if from.exists() {
                let to = self.path("etc/apt");
                succeeds(Command::new("cp").arg("-r").arg(from).arg(to));
            }
        }
        let hurried = self.path("etc/dpkg/dpkg.cfg.d");
        fs::create_dir_all(&hurried).unwrap();
        fs::write(hurried.join("hurried"), "force-unsafe-io\n").unwrap();
        let services = self.path("usr/sbin/policy-rc.d");
        fs::write(&services, "#!/bin/sh\nexit 101\n").unwrap();
        succeeds(Command::new("chmod").arg("755").arg(services));
        self.apt(&["update"]);
    }

    fn source_file(&self, suite: &str) -> PathBuf {
        self.path("etc/apt/sources.list.d")
            .join(format!("{suite}.list"))
    }

    /// Lets the root's apt know a suite of its mirror.
    pub(crate) fn add_source(&self, suite: &str) {
        let (uri, components) = (&self.mirror.uri, self.mirror.components.replace(',', " "));
        let line = format!("deb {uri} {suite} {components}\n");
        fs::create_dir_all(self.path("etc/apt/sources.list.d")).unwrap();
        fs::write(self.source_file(suite), line).unwrap();
    }

    pub(crate) fn remove_source(&self, suite: &str) {
        fs::remove_file(self.source_file(suite)).unwrap();
    }

    /// Takes the release's name out of os-release.
    pub(crate) fn forget_codename(&self) {
        self.rewrite_release("VERSION_CODENAME=", "FORGOTTEN_CODENAME=");
    }

    pub(crate) fn remember_codename(&self) {
        self.rewrite_release("FORGOTTEN_CODENAME=", "VERSION_CODENAME=");
    }

    fn rewrite_release(&self, from: &str, to: &str) {
        let file = self.path("usr/lib/os-release");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }

    /// A program in the root, with the root's own /proc and /dev, this machine's network and Rust,
    /// and the source tree where it is on this machine. All mounts end with the program.
    fn program(&self, words: &[&str]) -> Command {
        let script = r#"set -e
            root=$1; shift; source=$1; shift
            mount --make-rprivate /
            mount -t proc proc "$root/proc"
            mount --rbind /dev "$root/dev"
            for file in /etc/resolv.conf /etc/hosts; do
                touch "$root$file"
                mount --bind "$file" "$root$file"
            done
            for directory in "$source" "${RUSTUP_HOME:-$HOME/.rustup}" "${CARGO_HOME:-$HOME/.cargo}"; do
                mkdir -p "$root$directory"
                mount --rbind "$directory" "$root$directory"
                mount -o remount,ro,bind "$root$directory"
            done
            exec chroot "$root" "$@""#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", script, "sh"])
            .arg(self.directory.path())
            .arg(self.workspace.root())
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", path_inside())
            .env("CARGO_TARGET_DIR", "/var/tmp/target")
            .env("KEELSON_DEBIAN_MIRROR", debian_mirror())
            .env_remove("CI")
            .stdin(Stdio::null());
        command
    }

    fn says(&self, words: &[&str]) -> Said {
        let output = self.program(words).output().unwrap();
        Said {
            success: output.status.success(),
            text: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }

    /// Runs a program that must succeed.
    pub(crate) fn runs(&self, words: &[&str]) -> String {
        let said = self.says(words);
        assert!(said.success, "{words:?}: {}", said.text);
        said.text
    }

    pub(crate) fn apt(&self, arguments: &[&str]) {
        self.runs(&[&["apt-get", "-q", "-y"], arguments].concat());
    }

    /// `cargo xtask setup --for PURPOSE`: this tool's own program, with this machine's libraries,
    /// since the root's may be older.
    pub(crate) fn setup(&self, purpose: &str) -> Said {
        let own = Path::new(env!("CARGO_BIN_EXE_xtask"));
        let place = self.path("opt/xtask");
        fs::create_dir_all(&place).unwrap();
        fs::copy(own, place.join("xtask")).unwrap();
        let mut loader = None;
        for library in libraries(own) {
            let name = library.file_name().unwrap().to_string_lossy().into_owned();
            fs::copy(&library, place.join(&name)).unwrap();
            if name.starts_with("ld-linux") {
                loader = Some(format!("/opt/xtask/{name}"));
            }
        }
        let program = ["/opt/xtask/xtask", "setup", "--for", purpose];
        match loader {
            None => self.says(&program),
            Some(loader) => {
                let by = [loader.as_str(), "--library-path", "/opt/xtask"];
                self.says(&[&by[..], &program].concat())
            }
        }
    }

    /// Name and version of each installed package.
    fn packages(&self) -> BTreeMap<String, String> {
        let format = "${Package} ${Version} ${db:Status-Status}\\n";
        self.runs(&["dpkg-query", "--show", "--showformat", format])
            .lines()
            .filter_map(|line| line.strip_suffix(" installed")?.split_once(' '))
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect()
    }

    pub(crate) fn version(&self, package: &str) -> Option<String> {
        self.packages().remove(package)
    }

    /// Checks that the set-up succeeds, removes no package, and has nothing to do when it is
    /// repeated.
    pub(crate) fn gets_everything(&self, purpose: &str) {
        let before = self.packages();
        let first = self.setup(purpose);
        assert!(first.success, "{}", first.text);
        assert!(first.text.contains("nothing is removed"), "{}", first.text);
        let after = self.packages();
        let gone: Vec<&String> = before.keys().filter(|k| !after.contains_key(*k)).collect();
        assert!(gone.is_empty(), "{gone:?} {}", first.text);
        let second = self.setup(purpose);
        assert!(second.success, "{}", second.text);
        assert!(!second.text.contains("apt-get"), "{}", second.text);
        assert!(second.text.contains("has everything."), "{}", second.text);
    }
}

/// Where the root's programs are, and this machine's Rust.
fn path_inside() -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{cargo}/bin")
}

fn debian_mirror() -> String {
    apt::image_sources()
        .ok()
        .and_then(|sources: Vec<Source>| Some(sources.first()?.uri.clone()))
        .expect("a Debian mirror")
}

/// The libraries and the loader of a program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect()
}

/// The archive of a fresh root; made once, and kept among the build files.
fn bootstrapped(store: &Path, suite: &str, mirror: &Mirror) -> PathBuf {
    let archive = store.join(format!("{suite}.tar"));
    // Two tests want the same one.
    let lock = fs::File::create(store.join(format!("{suite}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error);
    if archive.exists() {
        return archive;
    }
    let directory = tempfile::tempdir_in(store).unwrap();
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "--include=ca-certificates"]);
    command.arg(format!("--components={}", mirror.components));
    match mirror.keys {
        Some(keys) => command.arg(format!("--keyring={keys}")),
        None if mirror.script.is_some() => command.arg("--no-check-gpg"),
        None => &mut command,
    };
    command.arg(suite).arg(directory.path()).arg(&mirror.uri);
    command.args(mirror.script);
    succeeds(&mut command);
    let new = archive.with_extension("new");
    succeeds(
        Command::new("tar")
            .arg("-C")
            .arg(directory.path())
            .arg("-cpf")
            .arg(&new)
            .arg("."),
    );
    fs::rename(&new, &archive).unwrap();
    archive
}

fn succeeds(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
