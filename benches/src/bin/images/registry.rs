//! Debian's `docker-registry` on a loopback port.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use keelson_benches::tools;

use crate::sample::{Form, Sample};

/// A running registry, which loses everything when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Registry {
    /// Starts an empty one with its files in a new directory.
    pub(crate) fn start(directory: PathBuf) -> Result<Self> {
        let program = tools::require("docker-registry", "docker-registry")?;
        fs::create_dir(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = directory.join("config.yml");
        fs::write(
            &settings,
            format!(
                "version: 0.1\nlog: {{level: error}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: 127.0.0.1:{port}, secret: x}}\n",
                directory.join("data").display()
            ),
        )?;
        let log = File::create(directory.join("log"))?;
        let child = Command::new(program)
            .arg("serve")
            .arg(settings)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("execute docker-registry")?;
        let registry = Self {
            child,
            directory,
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("docker-registry does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// An image's name in this registry.
    pub(crate) fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    /// Stores a generated image there unchanged and returns its name.
    pub(crate) fn take(&self, sample: &Sample, form: Form) -> Result<String> {
        let name = self.name(&format!("sample-{}:{}", sample.size.name, form.name()));
        let status = Command::new(tools::require("skopeo", "skopeo")?)
            .args(["copy", "-q", "--dest-tls-verify=false"])
            .arg(layout_reference(&sample.layout(), form))
            .arg(format!("docker://{name}"))
            .status()?;
        if !status.success() {
            bail!("skopeo cannot copy the image to the registry");
        }
        Ok(name)
    }
}

/// How skopeo calls an image of a layout.
pub(crate) fn layout_reference(layout: &Path, form: Form) -> String {
    format!("oci:{}:{}", layout.display(), form.name())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
