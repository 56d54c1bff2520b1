use serde_json::json;

use super::*;

fn read(text: &str) -> Result<CreateBody, JsonError> {
    CreateBody::read(Json::parse(text.as_bytes())?)
}

#[test]
fn null_and_absent_members_are_zero_values() {
    let text = r#"{"Image":"a","Env":null,"Cmd":"sh","Entrypoint":null,"Labels":null,
        "HostConfig":{"Binds":null,"RestartPolicy":{"Name":"no","MaximumRetryCount":0},
        "PidsLimit":null,"LogConfig":{"Type":"","Config":null},"Memory":7},
        "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null},"b":null}}}"#;
    let body = read(text).unwrap();
    assert_eq!(body.config.image, "a");
    assert_eq!(body.config.cmd, Some(vec!["sh".to_owned()]));
    assert_eq!(body.config.entrypoint, None);
    assert_eq!(body.host_config.memory, 7);
    let endpoints = &body.networking_config.endpoints_config;
    assert!(endpoints.keys().eq(["b", "default"]), "{endpoints:?}");
}

#[test]
fn members_are_found_by_their_names_in_any_case_at_every_depth() {
    let body = read(
        r#"{"image":"a","CMD":[""],"exposedports":{"80/tcp":{}},"hostconfig":{
        "mounts":[{"type":"bind","Readonly":true,"bindoptions":{"nonrecursive":true}}],
        "ULIMITS":[{"name":"nofile","soft":5}],"blkiodevicereadiops":[{"RATE":3}],
        "consolesize":[4]},"networkingconfig":{"endpointsconfig":{"A":{"ipamconfig":{
        "ipv4address":"x"}}}}}"#,
    )
    .unwrap();
    assert_eq!(body.config.cmd, Some(vec![String::new()]));
    assert_eq!(body.config.exposed_ports.len(), 1);
    let host = &body.host_config;
    let mount = &host.mounts.as_ref().unwrap()[0];
    assert!(mount.read_only && mount.bind_options.as_ref().unwrap().non_recursive);
    assert_eq!(host.ulimits.as_ref().unwrap()[0].soft, 5);
    assert_eq!(host.blkio_device_read_iops.as_ref().unwrap()[0].rate, 3);
    assert_eq!(host.console_size, [4, 0]);
    let endpoint = &body.networking_config.endpoints_config["A"];
    assert_eq!(endpoint.ipam_config.as_ref().unwrap().ipv4_address, "x");
}

#[test]
fn members_of_another_type_are_named() {
    for (text, path) in [
        (r#"{"Tty":1}"#, "Tty"),
        (r#"{"Env":"a"}"#, "Env"),
        (r#"{"ExposedPorts":{"80/tcp":1}}"#, "ExposedPorts.80/tcp"),
        (r#"{"HostConfig":{"Memory":"1"}}"#, "HostConfig.Memory"),
        (r#"{"HostConfig":{"Memory":1.5}}"#, "HostConfig.Memory"),
        (
            r#"{"HostConfig":{"BlkioWeight":65536}}"#,
            "HostConfig.BlkioWeight",
        ),
        (
            r#"{"hostconfig":{"mounts":[{},{"readonly":"yes"}]}}"#,
            "HostConfig.Mounts[1].ReadOnly",
        ),
        (r#"{"HostConfig":[]}"#, "HostConfig"),
    ] {
        assert_eq!(read(text).unwrap_err().path(), path);
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let text = r#"{"Image":"a","Entrypoint":[""],"StopTimeout":3,"HostConfig":{
        "Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"KernelMemory":9,
        "Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5}}]}}"#;
    let body = read(text).unwrap();
    assert_eq!(body.host_config.kernel_memory, Zero(9));
    assert_eq!(read(&json!(body).to_string()).unwrap(), body);
    let config: Config = serde_json::from_value(json!(body.config)).unwrap();
    assert_eq!(config, body.config);
    let host: HostConfig = serde_json::from_value(json!(body.host_config)).unwrap();
    assert_eq!(host, body.host_config);
}
