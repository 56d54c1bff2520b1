//! What platforms say, in any format and of any content, becomes a layer that the schema takes.
#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeMap;
use std::path::Path;

use keelson_provision::clouds::{azure, gce, openstack};
use keelson_provision::compose::compose;
use keelson_provision::nocloud;
use keelson_provision::seed::{Bytes, NetworkDocument, Seed};

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, document)) = bytes.split_first() else {
        return;
    };
    let mut seed = Seed::new("fuzz", "", "i-1");
    match kind % 8 {
        0 => seed.network = Some(NetworkDocument::CloudInit(Bytes(document.to_vec()))),
        1 => seed.network = Some(NetworkDocument::Openstack(Bytes(document.to_vec()))),
        2 => drop(nocloud::meta_data(document)),
        3 => drop(nocloud::line(&String::from_utf8_lossy(document), |_| None)),
        4 => drop((
            azure::environment(document),
            azure::instance(document),
            azure::goal_state(document),
        )),
        5 => drop((gce::meta_data(document), openstack::meta_data(document))),
        _ => seed.user_data = Some(Bytes(document.to_vec())),
    }
    let Ok(composed) = compose(&seed, &mut BTreeMap::new(), &[]) else {
        return;
    };
    let text = toml::to_string(&composed.table).expect("a table that is TOML");
    let taken = keelson_config::parse(text.as_bytes(), Path::new("host.toml"));
    assert!(taken.is_ok(), "{taken:?} of {text}");
});
