//! Parameters of the kernel for one interface, `net.ipv4.conf.eth0.…`. They belong to the interface's
//! network. Clients of before 1.48 could give them for the whole container.

use crate::error::ApiError;
use crate::version::ApiVersion;
use crate::wire::CreateBody;

/// The option of an endpoint.
const OPTION: &str = "com.docker.network.endpoint.sysctls";

/// Moves parameters of the main network's interface to its endpoint. Returns the warnings about it.
///
/// # Errors
/// InvalidInput: they are for another interface, or the client is newer.
pub(super) fn of_interfaces(
    body: &mut CreateBody,
    version: ApiVersion,
) -> Result<Vec<String>, ApiError> {
    let host = &mut body.host_config;
    let mode = match host.network_mode.as_str() {
        "" => "default".to_owned(),
        mode => mode.to_owned(),
    };
    if mode == "host" || mode.starts_with("container:") {
        return Ok(Vec::new());
    }
    let mut moved = Vec::new();
    for (name, value) in &host.sysctls {
        let Some((interface, general)) = of_interface(name) else {
            continue;
        };
        if interface != "eth0" {
            return Err(ApiError::invalid(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{OPTION}' to set per-interface sysctls"
            )));
        }
        if version >= ApiVersion::new(1, 48) {
            return Err(ApiError::invalid(format!(
                "interface specific sysctl setting {name:?} must be supplied using driver option '{OPTION}'"
            )));
        }
        moved.push((name.clone(), format!("{general}={value}")));
    }
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints = &mut body.networking_config.endpoints_config;
    if endpoints.len() > 1 && !endpoints.contains_key(&mode) {
        return Err(ApiError::invalid(format!(
            "unable to determine network endpoint for sysctls of eth0, use driver option '{OPTION}' to set per-interface sysctls"
        )));
    }
    let network = match endpoints.len() {
        1 => endpoints.keys().next().cloned().unwrap_or(mode),
        _ => mode,
    };
    let options = &mut endpoints.entry(network).or_default().driver_opts;
    let list = options.entry(OPTION.to_owned()).or_default();
    let mut warnings = Vec::new();
    for (name, setting) in moved {
        host.sysctls.remove(&name);
        warnings.push(format!(
            "Migrated sysctl {name:?} to DriverOpts{{{OPTION:?}:{setting:?}}}."
        ));
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&setting);
    }
    Ok(warnings)
}

/// The interface of a parameter, and the parameter's name with `IFNAME` in its place.
fn of_interface(name: &str) -> Option<(&str, String)> {
    let mut parts = name.splitn(5, '.');
    let (first, family, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let (interface, rest) = (parts.next()?, parts.next()?);
    let fits = first == "net" && interface.starts_with("eth");
    fits.then(|| (interface, format!("net.{family}.{kind}.IFNAME.{rest}")))
}

#[cfg(test)]
mod tests {
    use keelson_model::json::Json;

    use super::*;

    fn read(text: &str, minor: u16) -> Result<(CreateBody, Vec<String>), String> {
        let mut body = CreateBody::read(Json::parse(text.as_bytes()).unwrap()).unwrap();
        let moved = of_interfaces(&mut body, ApiVersion::new(1, minor));
        moved
            .map(|warnings| (body, warnings))
            .map_err(|error| error.to_string())
    }

    const MAIN: &str = r#"{"HostConfig":{"NetworkMode":"web","Sysctls":{
        "net.ipv4.conf.eth0.forwarding":"1","net.ipv4.ip_forward":"0"}}}"#;

    #[test]
    fn older_clients_mean_the_main_network() {
        let (body, warnings) = read(MAIN, 47).unwrap();
        let left: Vec<_> = body.host_config.sysctls.keys().collect();
        assert_eq!(left, ["net.ipv4.ip_forward"]);
        let end = &body.networking_config.endpoints_config["web"];
        assert_eq!(end.driver_opts[OPTION], "net.ipv4.conf.IFNAME.forwarding=1");
        assert!(warnings[0].starts_with("Migrated sysctl"), "{warnings:?}");
        let plain = r#"{"HostConfig":{"Sysctls":{"net.core.somaxconn":"5"}}}"#;
        let (body, warnings) = read(plain, 51).unwrap();
        assert_eq!((body.host_config.sysctls.len(), warnings.len()), (1, 0));
    }

    #[test]
    fn others_must_say_it_at_the_network() {
        let error = read(MAIN, 48).unwrap_err();
        assert!(error.contains(OPTION), "{error}");
        let second = MAIN.replace("eth0", "eth1");
        let error = read(&second, 47).unwrap_err();
        assert!(
            error.contains("unable to determine network endpoint"),
            "{error}"
        );
    }
}
