//! Manifests and configurations as other programs write them.

use keelson_model::json::mangle::{self, Change, Mangled};
use proptest::prelude::*;

use super::*;
use crate::config::ImageConfig;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn manifest() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","annotations":{{"k":"v"}},
        "config":{{"mediaType":"{OCI_CONFIG}","digest":"{DIGEST}","size":7,"urls":["u"]}},
        "layers":[{{"mediaType":"{OCI_LAYER}","digest":"{DIGEST}","size":8,
            "annotations":{{"a":"b"}}}}],
        "subject":{{"mediaType":"x","digest":"y","size":1}}}}"#
    )
}

fn index() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
        {{"mediaType":"{OCI_MANIFEST}","digest":"{DIGEST}","size":7,
            "platform":{{"architecture":"amd64","os":"linux","variant":"v1","os.version":"1",
                "os.features":["x"],"features":["y"]}},
            "annotations":{{"{ANNOTATION_REF_NAME}":"a:1"}}}}]}}"#
    )
    .replace("\"os.", "\"os_")
    .replace(ANNOTATION_REF_NAME, "name")
}

fn config() -> String {
    format!(
        r#"{{"created":"2020-01-01T00:00:00Z","author":"me","architecture":"amd64",
        "variant":"v1","os":"linux","docker_version":"1","comment":"c","container":"0",
        "container_config":{{"Cmd":["x"]}},
        "config":{{"User":"u","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],
            "Entrypoint":["e"],"Cmd":["c"],"Volumes":{{"/v":{{}}}},"WorkingDir":"/w",
            "Labels":{{"l":"v"}},"StopSignal":"9","Healthcheck":{{"Test":["NONE"]}},
            "OnBuild":["RUN x"],"Shell":["sh"],"ArgsEscaped":true}},
        "rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},
        "history":[{{"created":"2020-01-01T00:00:00Z","created_by":"b","author":"a",
            "comment":"c","empty_layer":true}}]}}"#
    )
}

/// Reads a document, or says why not.
type Read<'a, T> = &'a dyn Fn(&[u8]) -> Result<T, String>;

/// `null` counts as absent, duplicates and capitals change nothing, and an error names a missing
/// required member.
fn check<T: PartialEq + std::fmt::Debug>(
    good: &str,
    read: Read<'_, T>,
    is_map: &dyn Fn(&Mangled) -> bool,
) {
    let expected = read(good.as_bytes()).expect(good);
    let all = mangle::all(good);
    assert!(all.len() > 20);
    for mangled in &all {
        let got = read(&mangled.bytes);
        let label = format!("{:?} of {}", mangled.change, mangled.path);
        match mangled.change {
            Change::Twice => assert_eq!(got.as_ref(), Ok(&expected), "{label}"),
            // The keys of maps are not ours.
            Change::Capitals if is_map(mangled) => assert!(got.is_ok(), "{label}: {got:?}"),
            Change::Capitals => assert_eq!(got.as_ref(), Ok(&expected), "{label}"),
            Change::Null | Change::Dropped => {
                if let Err(why) = &got {
                    assert!(why.contains(mangled.name()), "{label}: {why}");
                }
                let twin = all
                    .iter()
                    .find(|other| other.path == mangled.path && other.change == Change::Dropped);
                let twin = read(&twin.unwrap().bytes);
                if !is_map(mangled) {
                    assert_eq!(got.is_ok(), twin.is_ok(), "{label}: {got:?}, {twin:?}");
                    if let (Ok(got), Ok(twin)) = (got, twin) {
                        assert_eq!(got, twin, "{label}");
                    }
                }
            }
        }
    }
}

fn document(bytes: &[u8]) -> Result<DocumentKind, String> {
    match ManifestDocument::parse(bytes) {
        // The reason for the skipped entry names the missing member.
        Ok(DocumentKind::Index(index)) if index.entries.is_empty() => {
            Err(format!("no manifests{}", index.remarks()))
        }
        other => other.map_err(|error| error.to_string()),
    }
}

#[test]
fn distinguishes_manifest_and_index() {
    let digest = Digest::of(b"x");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{digest}","size":1}},
        "layers":[{{"digest":"{digest}","size":2,"mediaType":"a"}}],"x":1}}"#,
        OCI_CONFIG
    );
    assert!(matches!(
        ManifestDocument::parse(manifest.as_bytes()),
        Ok(DocumentKind::Manifest(_, layers)) if layers.len() == 1
    ));
    assert!(matches!(
        ManifestDocument::parse(br#"{"schemaVersion":2,"manifests":[]}"#),
        Ok(DocumentKind::Index(_))
    ));
    // As Go reads it.
    let odd = manifest
        .replace("schemaVersion", "SCHEMAVERSION")
        .replace("layers", "Layers");
    assert_eq!(
        ManifestDocument::parse(odd.as_bytes()).unwrap(),
        ManifestDocument::parse(manifest.as_bytes()).unwrap()
    );
    for bad in [
        &br#"{"schemaVersion":1,"manifests":[]}"#[..],
        br#"{"schemaVersion":2}"#,
        br#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#,
        // A document that engines could interpret in different ways.
        br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
        br#"{"schemaVersion":2,"manifests":[],
            "mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
        b"[]",
    ] {
        assert!(ManifestDocument::parse(bad).is_err());
    }
    let helm = manifest.replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
    assert!(matches!(
        ManifestDocument::parse(helm.as_bytes()),
        Err(ManifestError::Artifact(kind)) if kind.contains("helm")
    ));
    let signature = helm.replacen('{', r#"{"artifactType":"application/x-signature","#, 1);
    assert!(matches!(
        ManifestDocument::parse(signature.as_bytes()),
        Err(ManifestError::Artifact(kind)) if kind == "application/x-signature"
    ));
}

#[test]
fn manifests_in_the_wild_are_read() {
    let annotation = |mangled: &Mangled| mangled.path.contains("annotations.");
    check(&manifest(), &document, &annotation);
    check(&index(), &document, &annotation);
}

#[test]
fn configurations_in_the_wild_are_read() {
    let read = |bytes: &[u8]| ImageConfig::parse(bytes).map_err(|error| error.to_string());
    let in_map = |mangled: &Mangled| {
        let known = ["ExposedPorts.", "Volumes.", "Labels."];
        let unknown = ["docker_version", "comment", "container", "container_config"];
        known.iter().any(|map| mangled.path.contains(map))
            || unknown.contains(&mangled.path.as_str())
            || mangled.path.starts_with("container_config.")
            || mangled.path.contains("ArgsEscaped")
            || mangled.path.contains("Healthcheck.")
    };
    check(&config(), &read, &in_map);
}

#[test]
fn archive_manifests_in_the_wild_are_read() {
    let good = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"],
        "Parent":"sha256:x","LayerSources":{"x":{"mediaType":"y"}}}]"#;
    let read = |bytes: &[u8]| ArchiveImage::parse_list(bytes).map_err(|error| error.to_string());
    check(good, &read, &|_| false);
    let image = |text: &str| read(text.as_bytes());
    let tags = image(r#"[{"config":"c","repotags":"a:1","layers":null}]"#).unwrap();
    assert_eq!((tags[0].repo_tags.len(), tags[0].layers.len()), (1, 0));
    let tags = image(r#"[{"Config":"c","RepoTags":[null,"","a:1"]}]"#).unwrap();
    assert_eq!(tags[0].repo_tags, ["a:1"]);
    assert!(image("{}").is_err());
}

#[test]
fn informative_members_may_have_any_value() {
    let good = ImageConfig::parse(config().as_bytes()).unwrap();
    for (from, to) in [
        (
            r#""created":"2020-01-01T00:00:00Z","author""#,
            r#""created":7,"author""#,
        ),
        (r#""author":"me""#, r#""author":["me"]"#),
        (
            r#""comment":"c","container""#,
            r#""comment":{},"container""#,
        ),
        (r#""created_by":"b""#, r#""created_by":["sh","-c"]"#),
        (r#""empty_layer":true"#, r#""empty_layer":"yes""#),
        (r#""OnBuild":["RUN x"]"#, r#""OnBuild":"RUN x""#),
    ] {
        let text = config().replace(from, to);
        assert_ne!(text, config(), "{from}");
        let read = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(read.rootfs, good.rootfs);
        assert_eq!(read.config.env, good.config.env);
    }
    let text = config().replace("\"history\":[{", "\"history\":[null,5,{");
    let read = ImageConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(read.history.len(), 3);
    for (from, to) in [
        (r#""Cmd":["c"]"#, r#""Cmd":"c""#),
        (r#""Entrypoint":["e"]"#, r#""Entrypoint":"e""#),
        (r#""Shell":["sh"]"#, r#""Shell":"sh""#),
        (r#""Env":["A=b"]"#, r#""Env":["A=b",null]"#),
    ] {
        let text = config().replace(from, to);
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap(), good, "{to}");
    }
    // Optional parts are not guessed.
    for (from, to, member) in [
        (r#""Env":["A=b"]"#, r#""Env":"A=b""#, "config.Env"),
        (r#""User":"u""#, r#""User":0"#, "config.User"),
        (r#""Cmd":["c"]"#, r#""Cmd":[["c"]]"#, "config.Cmd[0]"),
        (r#""type":"layers""#, r#""type":"zfs""#, "zfs"),
    ] {
        let text = config().replace(from, to);
        let error = ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(member), "{error}");
    }
}

#[test]
fn large_members_are_refused_by_name() {
    for (from, member) in [
        ("\"l\":\"v\"", "config.Labels"),
        ("\"A=b\"", "config.Env"),
        ("\"c\"],\"Volumes\"", "config.Cmd"),
        ("\"NONE\"", "config.Healthcheck"),
        ("\"User\":\"u\"", "config.User"),
    ] {
        let large = "x".repeat((1 << 20) + 1);
        let value = from.replacen(['v', 'b', 'c', 'N', 'u'], &large, 1);
        let text = config().replacen(from, &value, 1);
        let error = ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains(member) && error.contains("at most"),
            "{error}"
        );
        assert!(ImageConfig::parse_stored(text.as_bytes()).is_ok());
    }
    let long = "x".repeat(5 << 20);
    let text = config().replacen(
        "\"created_by\":\"b\"",
        &format!("\"created_by\":\"{long}\""),
        1,
    );
    let error = ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("history"), "{error}");
}

#[test]
fn media_types_that_say_nothing_may_be_an_images() {
    for kind in [
        "application/octet-stream",
        "application/json",
        "text/html",
        "",
        "application/vnd.docker.container.image.v1+json; charset=utf-8",
    ] {
        let text = manifest().replace(OCI_CONFIG, kind);
        assert!(
            matches!(
                ManifestDocument::parse(text.as_bytes()),
                Ok(DocumentKind::Manifest(..))
            ),
            "{kind}"
        );
    }
    let artifact = manifest().replace(OCI_CONFIG, "application/json").replacen(
        '{',
        "{\"artifactType\":\"application/x\",",
        1,
    );
    assert!(
        ManifestDocument::parse(artifact.as_bytes())
            .unwrap_err()
            .is_other_kind()
    );
}

#[test]
fn entries_for_others_may_be_odd() {
    let other = r#"{"mediaType":"m","digest":"sha512:00","size":-1},null,5,
        {"digest":null},"#;
    let text = index().replacen("\"manifests\":[", &format!("\"manifests\":[{other}"), 1);
    let Ok(DocumentKind::Index(odd)) = ManifestDocument::parse(text.as_bytes()) else {
        panic!("no index");
    };
    assert_eq!(odd.entries.len(), 1);
    assert!(
        odd.remarks().contains("manifests[0].digest"),
        "{}",
        odd.remarks()
    );
}

proptest! {
    #[test]
    fn no_document_causes_a_panic(text in any::<String>()) {
        let _ = ManifestDocument::parse(text.as_bytes());
        let _ = ImageConfig::parse(text.as_bytes());
        let _ = ArchiveImage::parse_list(text.as_bytes());
    }
}
