//! Bytes of any kind become a layer that the schema takes, for each kind of document.

use std::collections::BTreeMap;
use std::path::Path;

use keelson_provision::compose::compose;
use keelson_provision::seed::{Bytes, NetworkDocument, Seed};
use proptest::prelude::*;

/// Words of the formats, so that most documents mean something.
const WORDS: &[&str] = &[
    "#cloud-config\n",
    "hostname: ",
    "fqdn: ",
    "users:\n",
    "- default\n",
    "- name: ",
    "ssh_authorized_keys: [",
    "write_files:\n- path: /etc/x\n  ",
    "content: ",
    "permissions: '",
    "runcmd:\n- ",
    "- [",
    "]\n",
    "{",
    "}",
    "\n",
    "  ",
    "version: 2\n",
    "version: 1\nconfig:\n- type: physical\n  ",
    "ethernets:\n  a:\n    ",
    "addresses: [",
    "192.0.2.1/24",
    "::1/64",
    "gateway4: ",
    "dhcp4: true\n",
    "match: {macaddress: ",
    "mtu: ",
    "-1",
    "99999999999999999999",
    "name: ",
    "vlans: {v: {id: 5, link: a}}\n",
    "bonds: {b: {interfaces: [a]}}\n",
    "subnets: [{type: static, address: ",
    "&a ",
    "*a",
    "\u{0}",
    "é",
    "'",
    "\"",
    "ntp: {servers: [",
    "eth0",
    "..",
    "a.b",
    "*",
    "#keelson-config\n",
    "[[user]]\n",
    "x = 1\n",
    "{\"ignition\": {\"version\": \"3.0.0\"}}",
];

fn document() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS), 0..24);
    prop_oneof![
        words.prop_map(|words| words.concat().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn any_documents_become_a_good_layer(user_data in document(), network in document(), kind in 0..3) {
        let mut seed = Seed::new("test", "", "i-1");
        seed.user_data = Some(Bytes(user_data));
        seed.network = match kind {
            0 => None,
            1 => Some(NetworkDocument::CloudInit(Bytes(network))),
            _ => Some(NetworkDocument::Openstack(Bytes(network))),
        };
        if let Ok(composed) = compose(&seed, &mut BTreeMap::new(), &[]) {
            let text = toml::to_string(&composed.table).unwrap();
            let layer = keelson_config::parse(text.as_bytes(), Path::new("host.toml"));
            prop_assert!(layer.is_ok(), "{layer:?}: {text}");
            for warning in &composed.warnings {
                prop_assert!(!warning.message.contains("the layer is left out"), "{warning}: {text}");
            }
        }
    }
}
