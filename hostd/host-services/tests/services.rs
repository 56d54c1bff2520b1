//! Services from real files, through the real engine.

#[path = "../../containers/tests/common/options.rs"]
mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hostd_containers::{Engine, Scope};
use hostd_host_services::{Services, ServicesOptions};
use hostd_images::ImageStore;
use keelson_model::service::{ServiceState, ServiceStatus};

const LIMIT: Duration = Duration::from_secs(30);

/// Makes an EROFS file with busybox. `None`: not possible here.
fn rootfs(directory: &Path) -> Option<PathBuf> {
    if !keelson_testing::is_root() {
        return None;
    }
    let tree = directory.join("tree");
    for part in ["bin", "etc", "run", "tmp", "proc", "sys", "dev", "data"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    keelson_testing::busybox::install(&tree.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh")).unwrap();
    let image = directory.join("rootfs.erofs");
    match Command::new("mkfs.erofs").arg(&image).arg(&tree).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(image)
        }
        Err(error) => {
            keelson_testing::skip("mkfs.erofs", error);
            None
        }
    }
}

struct Machine {
    directory: tempfile::TempDir,
    image: PathBuf,
}

impl Machine {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = rootfs(directory.path())?;
        Some(Self { directory, image })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn service(&self, name: &str, text: &str) {
        let directory = self.path("services").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("service.toml"), text).unwrap();
        let image = directory.join("rootfs.erofs");
        if !image.exists() {
            fs::hard_link(&self.image, image).unwrap();
        }
    }

    /// The life of one hostd, which ends as if by SIGKILL.
    fn life<T>(&self, work: impl AsyncFnOnce(Engine, Services) -> T) -> T {
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
            let services = Services::open(ServicesOptions {
                directory: self.path("services"),
                state: root.join("services"),
                engine: engine.clone(),
            })
            .await;
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
        let _ = fs::remove_dir_all(self.path("services"));
        let root = self.path("root");
        self.life(async |engine, _services| engine.shutdown().await);
        // The mounts of the store for its containers.
        let images = ImageStore::open(&root.join("engine"), &self.path("run")).unwrap();
        images.shutdown();
    }
}

fn description(script: &str, after: &str) -> String {
    format!(
        r#"
version = 1
description = "test"
command = ["/bin/busybox", "sh", "-c", '''{script}''']
after = [{after}]
[[mounts]]
source = "{{state}}/data"
target = "/data"
writable = true
"#
    )
}

async fn until(
    services: &Services,
    name: &str,
    accept: impl Fn(&ServiceStatus) -> bool,
) -> ServiceStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = services.status();
        let status = all.iter().find(|status| status.name == name).unwrap();
        if accept(status) {
            return status.clone();
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn services_run_are_kept_and_replaced() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let stay = "trap 'exit 0' TERM; while :; do busybox sleep 0.02; done";
    let loops = |what: &str| format!("echo {what} >> /data/log; {stay}");
    machine.service("second", &description(&loops("second"), "\"first\""));
    machine.service("first", &description(&loops("first"), ""));
    machine.service("broken", "version = 1\nnonsense = true\n");
    machine.service("circle", &description("exit", "\"circle\""));
    machine.service(
        "writes",
        &description("echo x > /etc/x || echo refused > /data/log; exit 3", ""),
    );

    let pid = machine.life(async |engine, services| {
        let second = until(&services, "second", |status| {
            status.state == ServiceState::Running
        })
        .await;
        let first = until(&services, "first", |status| {
            status.state == ServiceState::Running
        })
        .await;
        assert!(first.since <= second.since);
        assert_eq!(machine.text("first", "log"), "first\n");
        let broken = until(&services, "broken", |status| {
            status.state == ServiceState::Failed
        })
        .await;
        assert!(broken.error.unwrap().contains("service.toml"));
        let circle = until(&services, "circle", |status| {
            status.state == ServiceState::Failed
        })
        .await;
        assert!(circle.error.unwrap().contains("circle after circle"));
        // Ends at once, so it is started again and again.
        until(&services, "writes", |status| {
            status.restarts >= 2 && status.exit_code == Some(3)
        })
        .await;
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
    machine.service("second", &description(&loops("changed"), "\"first\""));
    fs::remove_dir_all(machine.path("services").join("writes")).unwrap();
    machine.life(async |engine, services| {
        let first = until(&services, "first", |status| {
            status.state == ServiceState::Running
        })
        .await;
        assert_eq!(first.pid, pid, "kept");
        let deadline = Instant::now() + LIMIT;
        while !machine.text("second", "log").ends_with("changed\n") {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(engine.inspect(Scope::System, "writes").is_err());
        until(&services, "second", |status| {
            status.state == ServiceState::Running
        })
        .await;

        services.shutdown(Duration::from_secs(10)).await;
        let stopped = until(&services, "first", |status| {
            status.state == ServiceState::Stopped
        })
        .await;
        assert_eq!((stopped.pid, stopped.exit_code), (None, Some(0)));
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
    machine.service("first", &description(polite, ""));
    machine.service("deaf", &description(deaf, "\"first\""));
    machine.service("last", &description(polite, "\"deaf\""));
    machine.life(async |_engine, services| {
        for name in ["first", "deaf", "last"] {
            until(&services, name, |status| {
                status.state == ServiceState::Running
            })
            .await;
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
        let deaf = until(&services, "deaf", |status| {
            status.state == ServiceState::Stopped
        })
        .await;
        assert_eq!(deaf.exit_code, Some(137));
    });
}

#[test]
fn a_machine_without_services_has_none() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.life(async |_engine, services| assert!(services.status().is_empty()));
}
