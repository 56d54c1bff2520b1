//! Documents of each format, and the layer and the warnings that come of them: `golden/NAME.in.*`
//! and `golden/NAME.out`. To write the results anew after a change, and read the difference:
//! `KEELSON_BLESS=1 cargo test -p keelson-provision --test translations`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keelson_provision::compose::compose;
use keelson_provision::network;
use keelson_provision::notes::Notes;
use keelson_provision::resources::{ResourceError, Resources};
use keelson_provision::seed::{Bytes, NetworkDocument, Seed};
use keelson_provision::settings::Settings;
use keelson_provision::user_data::{self, Target};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn check(name: &str, found: &str) {
    let path = golden(&format!("{name}.out"));
    if std::env::var_os("KEELSON_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        wanted == found,
        "{}:\n{found}\n--- instead of\n{wanted}",
        path.display()
    );
}

fn shown(settings: Settings, own: &toml::Table, notes: Notes) -> String {
    let mut table = settings.into_table().unwrap();
    keelson_config::merge(&mut table, own.clone());
    let mut text = toml::to_string(&table).unwrap();
    text.push_str("--- warnings\n");
    for warning in notes.finish() {
        text.push_str(&format!("{warning}\n"));
    }
    text
}

fn user_data(bytes: &[u8]) -> String {
    let mut resources = BTreeMap::from([
        ("http://192.0.2.1/part".to_owned(), b"#cloud-config\nfqdn: part.example\n".to_vec()),
        ("http://192.0.2.1/contents".to_owned(), b"fetched\n".to_vec()),
        (
            "http://192.0.2.1/child".to_owned(),
            br#"{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/etc/motd", "contents": {"source": "data:,child"}}]}}"#.to_vec(),
        ),
    ]);
    let (mut settings, mut own, mut notes) =
        (Settings::default(), toml::Table::new(), Notes::new());
    notes.enter("user-data");
    let mut target = Target {
        settings: &mut settings,
        own: &mut own,
        notes: &mut notes,
    };
    user_data::translate(bytes, &mut target, &mut resources).unwrap();
    shown(settings, &own, notes)
}

#[test]
fn user_data_of_each_format() {
    for name in [
        "cloud-config",
        "people",
        "multipart",
        "archive",
        "include",
        "script",
        "ignition",
        "own",
    ] {
        let bytes = std::fs::read(golden(&format!("{name}.in"))).unwrap();
        check(name, &user_data(&bytes));
    }
}

#[test]
fn network_configurations_of_each_version() {
    for name in ["network-v1", "network-v2"] {
        let bytes = std::fs::read(golden(&format!("{name}.in"))).unwrap();
        let mut notes = Notes::new();
        notes.enter("network-config");
        let network = network::translate(&bytes, &mut notes).unwrap();
        let settings = Settings {
            network,
            ..Settings::default()
        };
        check(name, &shown(settings, &toml::Table::new(), notes));
    }
    let bytes = std::fs::read(golden("network-data.in")).unwrap();
    let mut notes = Notes::new();
    let network = network::openstack::translate(&bytes, &mut notes).unwrap();
    let settings = Settings {
        network: Some(network),
        ..Settings::default()
    };
    check("network-data", &shown(settings, &toml::Table::new(), notes));
    let off = network::translate(b"network: {config: disabled}", &mut Notes::new()).unwrap();
    assert_eq!(off, None);
    assert!(network::translate(b"version: 3\n", &mut Notes::new()).is_err());
}

/// Formats that are known and not supported are named; so are those that are unknown.
#[test]
fn what_is_not_supported_is_named() {
    for (text, words) in [
        (
            "## template: jinja\n#cloud-config\n",
            "a jinja template is not supported",
        ),
        ("#cloud-boothook\n", "use bootcmd"),
        ("#part-handler\n", "#part-handler is not supported"),
        (
            "#cloudconfig\nhostname: a\n",
            "must be exactly #cloud-config",
        ),
        ("hello", "the format is unknown"),
        ("#cloud-config\na: [\n", "cloud-config: line "),
        (
            r#"{"ignition": {"version": "2.3.0"}}"#,
            "\"2.3.0\" is not supported",
        ),
        (
            r#"{"ignition": {"version": "3.7.0"}}"#,
            "\"3.7.0\" is not supported",
        ),
        ("{", "Ignition: EOF"),
        ("\u{1f}\u{8b}", "the format is unknown"),
    ] {
        let found = user_data(text.as_bytes());
        assert!(found.contains(words), "{text:?}: {found}");
        assert!(found.starts_with("--- warnings"), "{text:?}: {found}");
    }
}

#[test]
fn gzip_is_unpacked_within_a_limit() {
    use std::io::Write as _;
    let pack = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let found = user_data(&pack(b"#cloud-config\nhostname: packed\n"));
    assert!(found.starts_with("hostname = \"packed\"\n"), "{found}");
    let bomb = user_data(&pack(&vec![b'#'; 64 << 20]));
    assert!(bomb.contains("unpacks to more than"), "{bomb}");
    let broken = user_data(&pack(b"#cloud-config\nhostname: packed\n")[..20]);
    assert!(broken.contains("no valid gzip"), "{broken}");
}

struct Offline;

impl Resources for Offline {
    fn get(&mut self, url: &str) -> Result<Vec<u8>, ResourceError> {
        Err(ResourceError::Later(url.to_owned()))
    }
}

#[test]
fn a_seed_becomes_a_layer_that_the_schema_takes() {
    let mut seed = Seed::new("nocloud", "/dev/sr0", "i-1");
    seed.hostname = Some("meta.example.com".to_owned());
    seed.network = Some(NetworkDocument::CloudInit(Bytes(
        b"version: 2\nethernets:\n  nic0:\n    match: {macaddress: '52:54:00:00:00:01'}\n    \
          addresses: [192.0.2.9/24]\n    gateway4: 192.0.2.1\n    routes: [{to: 10.0.0.0/8, via: 192.0.2.2}]\n"
            .to_vec(),
    )));
    seed.vendor_data = Some(Bytes(
        b"#cloud-config\nhostname: vendor\nntp: {servers: [ntp.example]}\n".to_vec(),
    ));
    seed.user_data = Some(Bytes(
        b"#keelson-config\n[engine]\nstop_timeout = 3\n".to_vec(),
    ));
    let composed = compose(&seed, &mut Offline, &[]).unwrap();
    let text = toml::to_string(&composed.table).unwrap();
    let layer =
        keelson_config::parse(text.as_bytes(), Path::new("host.toml")).expect("a good layer");
    assert_eq!(layer.table["hostname"].as_str(), Some("vendor"));
    assert_eq!(layer.table["engine"]["stop_timeout"].as_integer(), Some(3));
    assert_eq!(
        layer.table["time"]["servers"][0].as_str(),
        Some("ntp.example")
    );
    let link = &layer.table["network"]["link"][0];
    // netcfg finds the link, whenever it appears.
    assert_eq!(link["name"].as_str(), Some("nic0"));
    assert_eq!(link["mac"].as_str(), Some("52:54:00:00:00:01"));
    assert_eq!(link["addresses"][0].as_str(), Some("192.0.2.9/24"));
    assert_eq!(link["gateways"][0].as_str(), Some("192.0.2.1"));
}

#[test]
fn what_needs_the_network_waits_for_it() {
    for text in [
        "#include\nhttp://192.0.2.1/x\n",
        r#"{"ignition": {"version": "3.0.0", "config": {"merge": [{"source": "http://192.0.2.1/x"}]}}}"#,
        r#"{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/etc/x", "contents": {"source": "http://192.0.2.1/x"}}]}}"#,
    ] {
        let mut seed = Seed::new("nocloud", "", "i-1");
        seed.user_data = Some(Bytes(text.as_bytes().to_vec()));
        let result = compose(&seed, &mut Offline, &[]);
        assert!(
            matches!(result, Err(ResourceError::Later(_))),
            "{text}: {result:?}"
        );
    }
}
