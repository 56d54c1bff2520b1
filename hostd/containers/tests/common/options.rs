//! The options of an engine in a directory of a test, also of the tests of other crates.

use std::path::Path;

use hostd_containers::{CgroupParent, EngineError, EngineOptions};
use hostd_images::ImageStore;
use keelson_model::host::{EngineConfig, NetworksConfig};

/// An engine in `directory`, with its files in `root` and `run` there. It has no network, because a
/// test must not use the machine's.
pub(crate) fn engine_in(directory: &Path, images: &ImageStore) -> EngineOptions {
    let runtime = keelson_testing::program("keelson-runtime");
    EngineOptions {
        id: "engine".to_owned(),
        root: directory.join("root"),
        run: directory.join("run"),
        resolver: runtime.with_file_name("keelson-resolver"),
        runtime,
        images: images.clone(),
        defaults: EngineConfig {
            networks: NetworksConfig {
                bridge: "none".to_owned(),
                ..NetworksConfig::default()
            },
            ..EngineConfig::default()
        },
        plugins: Vec::new(),
        cgroup_parent: cgroup_parent(directory),
        read_old: |_| Err(EngineError::Invalid("no old containers here".to_owned())),
    }
}

/// A cgroup of the test's own.
fn cgroup_parent(directory: &Path) -> CgroupParent {
    let name = directory.file_name().unwrap().to_string_lossy();
    format!("keelson-test-{}", name.trim_start_matches('.'))
        .parse()
        .unwrap()
}
