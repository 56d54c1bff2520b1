use hostd_containers::check;
use keelson_model::error::ErrorKind;
use keelson_model::spec::{ContainerSpec, RootSpec};

use super::*;
use crate::wire::{BindOptions, TmpfsOptions};

const ENGINE: &str = "/var/lib/keelson";

fn parsed(host: &HostConfig) -> Result<Vec<MountSpec>, ApiError> {
    let mounts = parse(host, Path::new(ENGINE))?;
    let root = RootSpec::Image {
        id: String::new(),
        name: String::new(),
        read_only: false,
    };
    let mut spec = ContainerSpec::new(root, "sh");
    spec.mounts = mounts;
    check(&spec, Path::new(ENGINE))?;
    Ok(spec.mounts)
}

fn binds(list: &[&str]) -> Result<Vec<MountSpec>, ApiError> {
    parsed(&HostConfig {
        binds: Some(list.iter().map(|&text| text.to_owned()).collect()),
        ..HostConfig::default()
    })
}

fn bind_of(mount: &MountSpec) -> &BindMount {
    match &mount.kind {
        MountKind::Bind(bind) => bind,
        MountKind::Tmpfs(_) => panic!("{mount:?}"),
    }
}

fn options_of(mount: &MountSpec) -> &[String] {
    match &mount.kind {
        MountKind::Tmpfs(tmpfs) => &tmpfs.options,
        MountKind::Bind(_) => panic!("{mount:?}"),
    }
}

#[test]
fn short_form() {
    let mounts = binds(&["/a:/deep/er", "/b:/x:ro,rshared,z"]).unwrap();
    assert_eq!(mounts[0].target, Path::new("/x"));
    let bind = bind_of(&mounts[0]);
    assert_eq!(bind.read_only, ReadOnly::Recursive);
    assert_eq!(bind.propagation, Propagation::RecursiveShared);
    let bind = bind_of(&mounts[1]);
    assert_eq!(bind.read_only, ReadOnly::No);
    assert_eq!(bind.propagation, Propagation::RecursivePrivate);
    assert!(bind.recursive && bind.create_source);
}

#[test]
fn bad_short_forms() {
    for text in [
        "",
        "/a",
        "/a:",
        ":/b",
        "/a:b",
        "/a:/",
        "/a:/..",
        "/a:/b:xx",
        "/a:/b:ro:c",
    ] {
        let kind = binds(&[text]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput, "{text}");
    }
    // A volume, which is no bind.
    assert!(binds(&["name:/b"]).unwrap().is_empty());
    assert!(binds(&["/a:/b", "/c:/d/../b"]).is_err(), "duplicate");
}

#[test]
fn the_engines_directory_is_not_bound_as_private() {
    let guarded = |bind: &str| {
        let mounts = binds(&[bind])?;
        Ok::<_, ApiError>(bind_of(&mounts[0]).propagation.as_str())
    };
    for (bind, propagation) in [
        ("/var/lib/keelson:/a", "rslave"),
        ("/:/a:ro", "rslave"),
        ("/var/lib/keelson/engine:/a:rshared", "rshared"),
        ("/var/lib/keelson2:/a", "rprivate"),
        ("/var/lib/keelson2:/a:private", "private"),
    ] {
        assert_eq!(guarded(bind).unwrap(), propagation, "{bind}");
    }
    for bind in [
        "/var:/a:private",
        "/var/lib/keelson/engine:/a:rprivate",
        "/:/a:shared",
    ] {
        let error = guarded(bind).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains("within the daemon root"),
            "{error}"
        );
    }
}

#[test]
fn long_form_and_tmpfs() {
    let host = HostConfig {
        mounts: Some(vec![
            Mount {
                r#type: "tmpfs".to_owned(),
                target: "/t".to_owned(),
                tmpfs_options: Some(TmpfsOptions {
                    size_bytes: 4096,
                    mode: 0o700,
                    options: vec![],
                }),
                ..Mount::default()
            },
            Mount {
                r#type: "bind".to_owned(),
                source: "/s".to_owned(),
                target: "/s".to_owned(),
                read_only: true,
                bind_options: Some(BindOptions {
                    non_recursive: true,
                    ..BindOptions::default()
                }),
                ..Mount::default()
            },
        ]),
        tmpfs: [("/run".to_owned(), "exec,size=1m".to_owned())].into(),
        ..HostConfig::default()
    };
    let mounts = parsed(&host).unwrap();
    assert_eq!(
        options_of(&mounts[0]),
        ["noexec", "nosuid", "nodev", "size=4096", "mode=700"]
    );
    let bind = bind_of(&mounts[1]);
    assert!(!bind.recursive && !bind.create_source);
    assert_eq!(bind.read_only, ReadOnly::Top);
    assert_eq!(options_of(&mounts[2]), ["nosuid", "nodev", "size=1m"]);
    let cluster = Mount {
        r#type: "cluster".to_owned(),
        target: "/v".to_owned(),
        ..Mount::default()
    };
    let error = from_mount(&cluster, Path::new(ENGINE)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotImplemented);
}

#[test]
fn options_of_long_forms() {
    let read = |value: serde_json::Value| {
        let mount: Mount = serde_json::from_value(value).unwrap();
        from_mount(&mount, Path::new(ENGINE))
    };
    let wanted = read(serde_json::json!({
        "Type": "tmpfs", "Target": "/t",
        "TmpfsOptions": {"Options": [["exec"], ["uid", "5"]]},
    }))
    .unwrap();
    assert_eq!(options_of(&wanted), ["nosuid", "nodev", "uid=5"]);
    for (text, word) in [
        (
            r#"{"Type":"bind","Source":"/","Target":"/t","VolumeOptions":{}}"#,
            "VolumeOptions must not be specified",
        ),
        (
            r#"{"Type":"bind","Source":"/","Target":"/t","TmpfsOptions":{}}"#,
            "TmpfsOptions must not be specified",
        ),
        (
            r#"{"Type":"tmpfs","Target":"/t","BindOptions":{}}"#,
            "BindOptions must not be specified",
        ),
        (
            r#"{"Type":"volume","Target":"/t","ImageOptions":{}}"#,
            "ImageOptions must not be specified",
        ),
        (
            r#"{"Type":"bind","Source":"/","Target":"/t","BindOptions":{
                "ReadOnlyNonRecursive":true,"ReadOnlyForceRecursive":true}}"#,
            "conflict",
        ),
        (
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["a","b","c"]]}}"#,
            "TmpfsOptions.Options",
        ),
        (
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["nodev,suid"]]}}"#,
            "comma",
        ),
        (
            r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["lower"]]}}"#,
            "lower",
        ),
    ] {
        let error = read(serde_json::from_str(text).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
