//! The layers on disk: order, broken files, the last good copy.

use std::fs;
use std::path::Path;

use keelson_config::{
    LoadedConfig, MAX_LAYER_BYTES, SaveError, Sources, load, parse, save_last_good,
};
use proptest::prelude::*;

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        Sources::under(self.root.path())
    }

    fn load(&self) -> LoadedConfig {
        load(&self.sources())
    }
}

const IMAGE: &str = "usr/lib/keelson/host.toml";
const FW_CFG: &str = "sys/firmware/qemu_fw_cfg/by_name/opt/io.keelson/host.toml/raw";
const OPERATOR: &str = "etc/keelson/host.toml";

fn problem(text: &str) -> keelson_config::Problem {
    let problems = parse(text.as_bytes(), Path::new("/etc/keelson/host.toml")).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn without_files_the_built_in_configuration_applies() {
    let loaded = Machine::new().load();
    assert_eq!(loaded.config, Default::default());
    assert!(loaded.problems.is_empty() && loaded.layers.is_empty());
}

#[test]
fn later_layers_win_member_by_member() {
    let machine = Machine::new();
    machine
        .write(
            IMAGE,
            "hostname = 'image'\n[engine]\nstop_timeout = 3\nlog_max_files = 2",
        )
        .write(
            FW_CFG,
            "hostname = 'platform'\n[time]\nservers = ['a.example', 'b.example']",
        )
        .write(OPERATOR, "[time]\nservers = ['c.example']")
        .write("etc/keelson/host.toml.d/20-b.toml", "hostname = 'second'")
        .write(
            "etc/keelson/host.toml.d/10-a.toml",
            "hostname = 'first'\n[engine]\nlog_max_files = 9",
        )
        .write("etc/keelson/host.toml.d/.30-editor.toml", "not toml at all")
        .write("etc/keelson/host.toml.d/40-note.txt", "not toml at all");
    let loaded = machine.load();
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let config = loaded.config;
    assert_eq!(config.hostname.as_deref(), Some("second"));
    assert_eq!(config.time.servers, ["c.example"]);
    assert_eq!(
        (config.engine.stop_timeout, config.engine.log_max_files),
        (3, 9)
    );
    assert_eq!(loaded.layers.len(), 5);
}

#[test]
fn a_layer_that_names_a_table_keeps_its_other_members() {
    // The upper layer must not overwrite members with the table's `Default`.
    let machine = Machine::new();
    machine
        .write(IMAGE, "[engine]\nlog_max_size = 131072")
        .write(OPERATOR, "[engine]\nstop_timeout = 1");
    assert_eq!(machine.load().config.engine.log_max_size, 131_072);
}

#[test]
fn an_unknown_field_names_file_line_and_remedy() {
    let found = problem("# machine\n\nhostnam = \"node\"\n");
    assert_eq!((found.line, found.column), (Some(3), Some(1)));
    assert_eq!(found.field, "hostnam");
    assert!(
        found.to_string().starts_with(
            "/etc/keelson/host.toml:3: unknown field \"hostnam\" in the top level: did you mean \"hostname\"?"
        ),
        "{found}"
    );
}

#[test]
fn an_unknown_field_of_a_link_names_the_table() {
    let found = problem(
        "[[network.link]]\nname = 'eth0'\n[[network.link]]\nname = 'eth1'\ndhcpv4 = true\n",
    );
    assert_eq!(found.line, Some(5));
    assert_eq!(found.field, "network.link[1].dhcpv4");
    assert_eq!(
        found.message,
        "unknown field \"dhcpv4\" in [[network.link]]"
    );
    assert!(found.remedy.contains("did you mean \"dhcp4\"?"), "{found}");
}

#[test]
fn a_wrong_type_names_the_field() {
    let found = problem("[engine]\nstop_timeout = 'soon'\n");
    assert_eq!(
        (found.line, found.field.as_str()),
        (Some(2), "engine.stop_timeout")
    );
    assert!(found.remedy.contains("seconds"), "{found}");

    let found = problem("[network]\nnameservers = ['192.0.2.1', 'dns.example']\n");
    assert_eq!(found.field, "network.nameservers[1]");
    assert!(found.to_string().contains("192.0.2.53"), "{found}");
}

#[test]
fn a_missing_name_is_reported() {
    let found = problem("[[network.link]]\ndhcp4 = true\n");
    assert!(found.message.contains("\"name\" is missing"), "{found}");
    assert_eq!(found.line, Some(1));
}

#[test]
fn syntax_errors_have_a_line() {
    let found = problem("hostname = 'a'\n[network\n");
    assert_eq!(found.line, Some(2));
    assert!(found.message.starts_with("not valid TOML"), "{found}");
    let found = &parse(b"hostname = 'a'\n# \xff", Path::new("f")).unwrap_err()[0];
    assert_eq!((found.line, found.column), (Some(2), Some(3)));
}

#[test]
fn all_wrong_values_are_reported() {
    let text = r#"hostname = "node_1"
[network]
search = ["ex ample"]
[[network.link]]
name = "eth0"
addresses = ["192.0.2.1/24", "192.0.2.2"]
gateways = ["224.0.0.1", "fe80::1"]
mtu = 100
[api]
listen = ["0.0.0.0:0"]
[time]
servers = ["-x"]
[engine]
log_max_files = 0
"#;
    let problems = parse(text.as_bytes(), Path::new("f")).unwrap_err();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (problem.field.as_str(), problem.line.unwrap()))
        .collect();
    assert_eq!(
        places,
        [
            ("hostname", 1),
            ("network.link[0].addresses[1]", 6),
            ("network.link[0].gateways[0]", 7),
            ("network.link[0].mtu", 8),
            ("network.search[0]", 3),
            ("api.listen[0]", 10),
            ("time.servers[0]", 12),
            ("engine.log_max_files", 14),
        ]
    );
    assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
    assert!(problems[1].message.contains("192.0.2.2"));
}

#[test]
fn a_broken_image_layer_is_left_out_alone() {
    let machine = Machine::new();
    machine
        .write(IMAGE, "hostname = 'image'\nbananas = 1")
        .write(OPERATOR, "[engine]\nstop_timeout = 7");
    let loaded = machine.load();
    assert_eq!(loaded.config.hostname, None);
    assert_eq!(loaded.config.engine.stop_timeout, 7);
    assert_eq!(loaded.problems.len(), 1);
    assert!(!loaded.operator_is_broken());
}

#[test]
fn the_last_good_copy_replaces_all_operator_layers() {
    let machine = Machine::new();
    machine
        .write(IMAGE, "hostname = 'image'")
        .write(OPERATOR, "hostname = 'good'\n[engine]\nstop_timeout = 7");
    save_last_good(&machine.load(), &machine.sources()).unwrap();

    machine
        .write(OPERATOR, "hostname = 'newer'")
        .write("etc/keelson/host.toml.d/50.toml", "hostnam = 'x'");
    let loaded = machine.load();
    assert_eq!(loaded.config.hostname.as_deref(), Some("good"));
    assert_eq!(loaded.config.engine.stop_timeout, 7);
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.operator_is_broken());
    assert!(matches!(
        save_last_good(&loaded, &machine.sources()),
        Err(SaveError::NotGood)
    ));

    machine.write("etc/keelson/host.toml.d/50.toml", "");
    assert_eq!(machine.load().config.hostname.as_deref(), Some("newer"));
}

#[test]
fn without_a_last_good_copy_the_good_files_are_used() {
    let machine = Machine::new();
    machine
        .write(OPERATOR, "hostname = 'good'")
        .write("etc/keelson/host.toml.d/50.toml", "[[[");
    let loaded = machine.load();
    assert_eq!(loaded.config.hostname.as_deref(), Some("good"));
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn a_file_that_is_not_plain_is_a_problem() {
    let machine = Machine::new();
    fs::create_dir_all(machine.root.path().join(OPERATOR)).unwrap();
    let loaded = machine.load();
    assert_eq!(loaded.problems[0].message, "this is not a plain file");
    assert_eq!(loaded.config, Default::default());
}

#[test]
fn an_endless_file_is_refused() {
    let machine = Machine::new();
    machine.write(OPERATOR, &"#".repeat(MAX_LAYER_BYTES + 1));
    assert!(machine.load().problems[0].message.contains("bytes"));
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let text = format!("a = {}", "[".repeat(100_000));
    assert!(parse(text.as_bytes(), Path::new("f")).is_err());
    let text = format!("{} = 1", vec!["a"; 10_000].join("."));
    assert!(parse(text.as_bytes(), Path::new("f")).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Err(problems) = parse(&bytes, Path::new("f")) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn arbitrary_toml_like_text_never_panics(
        text in "([a-z_.\\[\\]=\"' ,{}0-9\n\u{e9}-]|hostname|network|link|api|listen|time|true|= ){0,80}",
    ) {
        for problem in parse(text.as_bytes(), Path::new("f")).err().unwrap_or_default() {
            prop_assert!(!problem.to_string().is_empty());
            prop_assert!(problem.line.is_some());
        }
    }

    #[test]
    fn a_good_host_name_is_kept_and_a_bad_one_reported(name in "[a-zA-Z0-9._-]{0,70}") {
        let good = keelson_config::check_host_name(&name).is_ok();
        let text = format!("hostname = \"{name}\"");
        prop_assert_eq!(parse(text.as_bytes(), Path::new("f")).is_ok(), good);
    }
}

#[test]
fn registries_are_checked() {
    let good = parse(
        "[registries]\nmirrors = ['https://mirror.example/', 'http://[::1]:5000']\n\
         insecure = ['registry.lan:5000', 'localhost', '10.0.0.0/8', 'fd00::/8', '[::1]:80']\n"
            .as_bytes(),
        Path::new("/etc/keelson/host.toml"),
    );
    assert!(good.is_ok(), "{good:?}");
    for (field, value) in [
        ("mirrors", "mirror.example"),
        ("mirrors", "https://mirror.example/path"),
        ("mirrors", "https://user:password@mirror.example"),
        ("mirrors", "https://"),
        ("insecure", "http://registry.lan"),
        ("insecure", "10.0.0.0/33"),
        ("insecure", "registry.lan:port"),
        ("insecure", "[registry]"),
        ("insecure", ""),
    ] {
        let found = problem(&format!("[registries]\n{field} = ['{value}']\n"));
        assert_eq!(found.field, format!("registries.{field}[0]"), "{value}");
    }
}

#[test]
fn networks_of_containers_are_checked() {
    let good = parse(
        "[engine.networks]\naddress = '10.78.0.1/24'\nrange = '10.78.0.128/25'\n\
         accept_mark = '0x1/0xff'\nhost_addresses = ['192.0.2.1', '2001:db8::1']\n\
         [engine.networks.default_options.bridge]\n'com.docker.network.driver.mtu' = '1450'\n"
            .as_bytes(),
        Path::new("/etc/keelson/host.toml"),
    );
    assert!(good.is_ok(), "{good:?}");
    for (field, lines) in [
        ("range", "range = '10.78.0.128/25'"),
        ("range", "address = '10.78.0.1/24'\nrange = '10.79.0.0/25'"),
        ("range", "address = '10.78.0.1/24'\nrange = '10.78.0.0/16'"),
        (
            "range_ipv6",
            "address_ipv6 = 'fd78::1/64'\nrange_ipv6 = '10.78.0.0/25'",
        ),
        ("accept_mark", "accept_mark = '0x100/0xff'"),
        ("address", "address = 'fd78::1/64'"),
        ("mtu", "mtu = 20"),
    ] {
        let found = problem(&format!("[engine.networks]\n{lines}\n"));
        assert_eq!(found.field, format!("engine.networks.{field}"), "{lines}");
        assert!(!found.remedy.is_empty(), "{lines}");
    }
}

#[test]
fn services_of_the_os_are_a_layer() {
    let machine = Machine::new();
    machine
        .write(
            "usr/share/keelson/services/time.toml",
            "[services.time]\nlayers = ['time']\ncommand = ['/a', 'b']\nnetwork = 'host'",
        )
        .write(
            "usr/share/keelson/services/broken.toml",
            "[services.broken]\nnetwork = 'moon'",
        )
        .write(
            OPERATOR,
            "[services.time]\ncommand = ['/c']\n[services.own]\nimage = 'registry.lan/x:1'\nenabled = false",
        );
    let loaded = machine.load();
    // The broken one costs only itself.
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    let text = loaded.problems[0].to_string();
    for part in [
        "broken.toml:2",
        "services.broken.network",
        "\"moon\"",
        "use \"none\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let services = &loaded.config.services;
    assert_eq!(services.keys().collect::<Vec<_>>(), ["own", "time"]);
    assert_eq!(services["time"].command, ["/c"]);
    assert_eq!(services["time"].network.as_deref(), Some("host"));
    assert!(!services["own"].is_enabled() && services["time"].is_enabled());
    let of = |field: &str| loaded.origins[field].to_string();
    assert!(of("services.time.command").ends_with("host.toml:2"));
    assert!(of("services.time.network").ends_with("services/time.toml:4"));
}

#[test]
fn wrong_services_are_refused_by_field() {
    for (text, field) in [
        ("[services.Web]\nimage = 'x'", "services.Web"),
        ("[services.w]\nimage = 'x'", "services.w"),
        ("[services.web]\nimage = '-rm'", "services.web.image"),
        (
            "[services.web]\nlayers = ['../x']",
            "services.web.layers[0]",
        ),
        ("[services.web]\ncommand = ['']", "services.web.command"),
        (
            "[services.web]\ncapabilities = ['ALL']",
            "services.web.capabilities[0]",
        ),
        (
            "[services.web]\ndevices = ['/etc/x']",
            "services.web.devices[0]",
        ),
        ("[services.web]\nafter = ['web']", "services.web.after[0]"),
        ("[services.web]\nrestart = 'often'", "services.web.restart"),
        (
            "[services.web.resources]\nmemory = 5",
            "services.web.resources.memory",
        ),
        (
            "[services.web.health]\nretries = 0",
            "services.web.health.retries",
        ),
        (
            "[services.web.log]\nmax_size = 1",
            "services.web.log.max_size",
        ),
        (
            "[[services.web.mounts]]\nsource = '{state}/../y'\ntarget = '/y'",
            "services.web.mounts[0].source",
        ),
        ("[[user]]\nname = 'sshd'", "user[0].name"),
        (
            "[[user]]\nname = 'core'\nssh_authorized_keys = ['hello there']",
            "user[0].ssh_authorized_keys[0]",
        ),
        (
            "[[user]]\nname = 'core'\ncontainer = '/x'",
            "user[0].container",
        ),
    ] {
        let problem = problem(text);
        assert_eq!(problem.field, field, "{text}: {problem}");
        assert!(!problem.remedy.is_empty(), "{problem}");
    }
}
