//! Services from real files, through the real engine.

#[path = "../../containers/tests/common/options.rs"]
mod options;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hostd_containers::{Engine, Scope};
use hostd_host_services::definition::Definition;
use hostd_host_services::{Services, ServicesError, ServicesOptions};
use hostd_images::ImageStore;
use keelson_model::service::{ServiceState, ServiceStatus};

const LIMIT: Duration = Duration::from_secs(30);

type Definitions = BTreeMap<String, Definition>;

/// Makes two EROFS files: `base` with busybox, and `over` with a file more. `None`: not possible here.
fn make_layers(directory: &Path) -> Option<()> {
    if !keelson_testing::is_root() {
        return None;
    }
    let tree = directory.join("tree");
    for part in ["bin", "etc", "run", "tmp", "proc", "sys", "dev", "data"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    keelson_testing::busybox::install(&tree.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh")).unwrap();
    let over = directory.join("over");
    fs::create_dir_all(over.join("etc")).unwrap();
    fs::write(over.join("etc/greeting"), "hello from above").unwrap();
    let layers = directory.join("layers");
    fs::create_dir(&layers).unwrap();
    for (name, tree) in [("base", tree), ("over", over)] {
        let mut command = Command::new("mkfs.erofs");
        let file = layers.join(format!("{name}.erofs"));
        match command.arg(&file).arg(&tree).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => {
                keelson_testing::skip("mkfs.erofs", error);
                return None;
            }
        }
    }
    Some(())
}

struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        make_layers(directory.path())?;
        Some(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The life of one hostd, which ends as if by SIGKILL.
    fn life<T>(
        &self,
        definitions: &Definitions,
        work: impl AsyncFnOnce(Engine, Services) -> T,
    ) -> T {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let result = tokio.block_on(async {
            let root = self.path("root");
            let images = ImageStore::open(&root.join("engine"), &self.path("run")).unwrap();
            let options = options::engine_in(self.directory.path(), &images);
            let engine = Engine::open(options).await.unwrap();
            let options = ServicesOptions {
                layers: self.path("layers"),
                state: root.join("services"),
                run: self.path("run/services"),
                engine: engine.clone(),
                images,
            };
            let services = Services::open(options, definitions.clone()).await;
            work(engine, services).await
        });
        tokio.shutdown_timeout(Duration::from_secs(5));
        result
    }

    fn text(&self, service: &str, file: &str) -> String {
        let path = self
            .path("root/services")
            .join(service)
            .join("data")
            .join(file);
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let root = self.path("root");
        let none = Definitions::new();
        self.life(&none, async |engine, services| {
            // Waits until those of the test are gone.
            services.apply(Definitions::new()).await;
            engine.shutdown().await;
        });
        // The mounts of the store for its containers.
        let images = ImageStore::open(&root.join("engine"), &self.path("run")).unwrap();
        images.shutdown();
    }
}

fn define(text: &str) -> Definition {
    Definition {
        config: toml::from_str(text).unwrap(),
        places: [("layers".to_owned(), "/x/host.toml:7".to_owned())].into(),
    }
}

fn script(script: &str, more: &str) -> Definition {
    define(&format!(
        r#"
layers = ["base"]
command = ["/bin/busybox", "sh", "-c", '''{script}''']
{more}
[[mounts]]
source = "{{state}}/data"
target = "/data"
writable = true
"#
    ))
}

fn all(list: Vec<(&str, Definition)>) -> Definitions {
    let list = list.into_iter();
    list.map(|(name, made)| (name.to_owned(), made)).collect()
}

async fn until(
    services: &Services,
    name: &str,
    accept: impl Fn(&ServiceStatus) -> bool,
) -> ServiceStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = services.one(name).unwrap();
        if accept(&status) {
            return status.clone();
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const STAY: &str = "trap 'exit 0' TERM; while :; do busybox sleep 0.02; done";

fn stays(what: &str, more: &str) -> Definition {
    script(&format!("echo {what} >> /data/log; {STAY}"), more)
}

async fn is(services: &Services, name: &str, state: ServiceState) -> ServiceStatus {
    until(services, name, |status| status.state == state).await
}

#[test]
fn services_run_are_kept_and_replaced() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut given = all(vec![
        ("second", stays("second", "after = ['first']")),
        ("first", stays("first", "")),
        ("circle", script("exit", "after = ['circle']")),
        (
            "writes",
            script("echo x > /etc/x || echo refused > /data/log; exit 3", ""),
        ),
    ]);
    let pid = machine.life(&given, async |engine, services| {
        let second = is(&services, "second", ServiceState::Running).await;
        let first = is(&services, "first", ServiceState::Running).await;
        assert!(first.since <= second.since);
        assert_eq!(machine.text("first", "log"), "first\n");
        let circle = is(&services, "circle", ServiceState::Failed).await;
        assert!(circle.error.unwrap().contains("circle after circle"));
        // Ends at once, so it is started again and again, and that is reported.
        let loops = is(&services, "writes", ServiceState::Failing).await;
        assert!(loops.restarts >= 3, "{loops:?}");
        assert_eq!(loops.exit_code, Some(3));
        assert_eq!(machine.text("writes", "log"), "refused\n");
        assert!(engine.list(Scope::User).is_empty());

        // A killed service comes back.
        let pid = rustix::process::Pid::from_raw(first.pid.unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until(&services, "first", |status| {
            status.state == ServiceState::Running && status.restarts == 1
        })
        .await
        .pid
    });

    // Another hostd keeps unchanged services, replaces changed ones, and removes those that are
    // gone.
    given.insert("second".to_owned(), stays("changed", "after = ['first']"));
    given.remove("writes");
    machine.life(&given, async |engine, services| {
        let first = is(&services, "first", ServiceState::Running).await;
        assert_eq!(first.pid, pid, "kept");
        let deadline = Instant::now() + LIMIT;
        while !machine.text("second", "log").ends_with("changed\n") {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(engine.inspect(Scope::System, "writes").is_err());
        is(&services, "second", ServiceState::Running).await;

        services.shutdown(Duration::from_secs(10)).await;
        let stopped = is(&services, "first", ServiceState::Stopped).await;
        assert_eq!((stopped.pid, stopped.exit_code), (None, Some(0)));
    });
}

#[test]
fn a_broken_image_is_reported_and_the_others_go_on() {
    let Some(machine) = Machine::new() else {
        return;
    };
    fs::write(machine.path("layers/garbage.erofs"), "not a file system").unwrap();
    let given = all(vec![
        ("absent", define("layers = ['absent']\ncommand = ['/x']")),
        ("garbage", define("layers = ['garbage']\ncommand = ['/x']")),
        (
            "program",
            define("layers = ['base']\ncommand = ['/no/such']"),
        ),
        ("nothing", define("command = ['/x']")),
        (
            "unreachable",
            define("image = '127.0.0.1:1/nothing:here'\ncommand = ['/x']"),
        ),
        ("needs", stays("needs", "requires = ['absent']")),
        ("follows", stays("follows", "after = ['absent', 'garbage']")),
    ]);
    machine.life(&given, async |_engine, services| {
        is(&services, "follows", ServiceState::Running).await;
        for (name, words) in [
            (
                "absent",
                &[
                    "/x/host.toml:7",
                    "services.absent.layers[0]",
                    "absent.erofs",
                    "the layers base, garbage, over",
                ][..],
            ),
            ("garbage", &["garbage.erofs"]),
            ("program", &["/no/such"]),
            (
                "nothing",
                &["services.nothing.image", "neither image nor layers"],
            ),
            (
                "unreachable",
                &["services.unreachable.image", "127.0.0.1:1"],
            ),
        ] {
            let failing = is(&services, name, ServiceState::Failing).await;
            let error = failing.error.unwrap();
            for word in words {
                assert!(error.contains(word), "{name}: {word}: {error}");
            }
        }
        // It is not started before what it requires runs, and says so.
        let needs = services.one("needs").unwrap();
        assert_eq!(needs.state, ServiceState::Starting);
        assert!(needs.error.unwrap().contains("absent"));
        // Repaired, it starts without anybody's doing, at once if somebody asks.
        fs::copy(
            machine.path("layers/base.erofs"),
            machine.path("layers/absent.erofs"),
        )
        .unwrap();
        let mut repaired = given.clone();
        repaired.insert("absent".to_owned(), {
            let mut definition = stays("repaired", "");
            definition.config.layers = vec!["absent".to_owned()];
            definition
        });
        services.apply(repaired).await;
        is(&services, "needs", ServiceState::Running).await;
    });
}

#[test]
fn requests_and_changes_of_the_configuration() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut given = all(vec![
        ("one", stays("$(cat /etc/greeting)", "")),
        ("other", stays("other", "requires = ['healthy']")),
        (
            "healthy",
            script(
                "busybox sleep 0.5; touch /tmp/ok; trap 'exit 0' TERM; while :; do busybox sleep 0.02; done",
                "health.command = ['/bin/busybox', 'test', '-e', '/tmp/ok']\nhealth.interval = 1",
            ),
        ),
        (
            "told",
            script(
                &format!("echo up > /data/log; {STAY}"),
                &format!(
                    "reload.watch = ['{}']\nreload.command = ['/bin/busybox', 'sh', '-c', 'echo told >> /data/log']",
                    machine.path("watched").display()
                ),
            ),
        ),
        (
            "once",
            script("echo done > /data/log; exit 0", "restart = 'on-failure'"),
        ),
    ]);
    fs::create_dir(machine.path("watched")).unwrap();
    let layers = ["over", "base"].map(str::to_owned).to_vec();
    given.get_mut("one").unwrap().config.layers = layers;
    let other = machine.life(&given, async |engine, services| {
        let one = is(&services, "one", ServiceState::Running).await;
        assert_eq!(one.image, "over + base");
        let other = is(&services, "other", ServiceState::Running).await;
        let healthy = services.one("healthy").unwrap();
        assert_eq!(healthy.health.as_deref(), Some("healthy"));
        assert!(healthy.since < other.since);
        let once = is(&services, "once", ServiceState::Stopped).await;
        assert_eq!((once.exit_code, once.restarts), (Some(0), 0));

        // The upper layer is seen, and the output can be read.
        let deadline = Instant::now() + LIMIT;
        while machine.text("one", "log") != "hello from above\n" {
            assert!(Instant::now() < deadline, "{}", machine.text("one", "log"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        // A change of a directory is passed on, again until the watch has begun.
        let deadline = Instant::now() + LIMIT;
        while !machine.text("told", "log").starts_with("up\ntold\n") {
            fs::write(machine.path("watched/file"), "x").unwrap();
            assert!(Instant::now() < deadline, "{}", machine.text("told", "log"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        let stopped = services.stop("one").await.unwrap();
        assert_eq!((stopped.state, stopped.pid), (ServiceState::Stopped, None));
        let again = services.start("one").await.unwrap();
        assert_ne!(again.state, ServiceState::Stopped);
        let one = is(&services, "one", ServiceState::Running).await;
        services.restart("one").await.unwrap();
        until(&services, "one", |status| {
            status.state == ServiceState::Running && status.pid != one.pid
        })
        .await;
        services.stop("one").await.unwrap();

        let ask = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let said = services
            .ask("other", ask(&["/bin/busybox", "echo", "hi"]))
            .await;
        assert_eq!(said.unwrap(), "hi\n");
        let refused = services.ask("other", ask(&["/bin/busybox", "false"])).await;
        assert!(
            matches!(refused, Err(ServicesError::Command { .. })),
            "{refused:?}"
        );

        for result in [
            services.start("nobody").await,
            services.stop("nobody").await,
            services.restart("nobody").await,
            services.one("nobody"),
        ] {
            assert!(
                matches!(result, Err(ServicesError::NotFound(_))),
                "{result:?}"
            );
        }

        // Switched off: its container is gone, and it can't be started.
        let mut off = given.clone();
        off.get_mut("once").unwrap().config.enabled = Some(false);
        services.apply(off).await;
        let once = services.one("once").unwrap();
        assert_eq!((once.state, once.enabled), (ServiceState::Disabled, false));
        assert!(engine.inspect(Scope::System, "once").is_err());
        let refused = services.start("once").await;
        assert!(
            matches!(refused, Err(ServicesError::Disabled(_))),
            "{refused:?}"
        );
        services.one("other").unwrap().pid
    });
    // Who was stopped stays so when hostd starts again, and nobody else is disturbed.
    machine.life(&given, async |_engine, services| {
        assert_eq!(
            is(&services, "other", ServiceState::Running).await.pid,
            other
        );
        let one = services.one("one").unwrap();
        assert_eq!((one.state, one.pid), (ServiceState::Stopped, None));
        services.start("one").await.unwrap();
        is(&services, "one", ServiceState::Running).await;
        services.shutdown(Duration::from_secs(5)).await;
        let refused = services.start("one").await;
        assert!(
            matches!(refused, Err(ServicesError::Stopping(_))),
            "{refused:?}"
        );
    });
}

#[test]
fn a_service_that_does_not_end_leaves_time_to_the_others() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let polite = "trap 'sleep 0.2; echo ended >> /data/log; exit 0' TERM; echo up >> /data/log; \
                  while :; do busybox sleep 0.02; done";
    let deaf = "trap '' TERM; echo up >> /data/log; while :; do busybox sleep 0.02; done";
    let given = all(vec![
        ("first", script(polite, "")),
        ("deaf", script(deaf, "after = ['first']")),
        ("last", script(polite, "after = ['deaf']")),
    ]);
    machine.life(&given, async |_engine, services| {
        for name in ["first", "deaf", "last"] {
            is(&services, name, ServiceState::Running).await;
            let deadline = Instant::now() + LIMIT;
            while machine.text(name, "log") != "up\n" {
                assert!(Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let start = Instant::now();
        services.shutdown(Duration::from_secs(4)).await;
        assert!(
            start.elapsed() < Duration::from_secs(7),
            "{:?}",
            start.elapsed()
        );
        for name in ["first", "last"] {
            assert_eq!(machine.text(name, "log"), "up\nended\n", "{name}");
        }
        let deaf = is(&services, "deaf", ServiceState::Stopped).await;
        assert_eq!(deaf.exit_code, Some(137));
    });
}

#[test]
fn a_machine_without_services_has_none() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let none = Definitions::new();
    machine.life(&none, async |_engine, services| {
        assert!(services.list().is_empty())
    });
}
