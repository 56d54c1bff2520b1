//! Who may do what.

use http::Method;
use keelson_model::host_api::Role;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The role that a verified client certificate carries. One without a role of ours reads only.
pub fn of_certificate(certificate: &CertificateDer<'_>) -> Role {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Role::Reader;
    };
    parsed
        .subject()
        .iter_organization()
        .filter_map(|attribute| Role::parse(attribute.as_str().ok()?))
        .next()
        .unwrap_or(Role::Reader)
}

/// Whether a role may make this request.
pub fn allows(role: Role, method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match role {
        Role::Admin => true,
        // Who else has a key to this machine is for those to know who give them out.
        _ if path.starts_with("/host/v1/certificates") => false,
        Role::Operator => reads || !is_host_api(path),
        Role::Reader => reads,
    }
}

/// Whether a path belongs to the host API.
pub fn is_host_api(path: &str) -> bool {
    path == "/host" || path.starts_with("/host/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_they_say() {
        let create = "/v1.51/containers/create";
        let power = "/host/v1/power";
        assert!(allows(Role::Admin, &Method::POST, power));
        assert!(!allows(Role::Operator, &Method::POST, power));
        assert!(allows(Role::Operator, &Method::GET, "/host/v1/status"));
        let certificates = "/host/v1/certificates";
        assert!(allows(Role::Admin, &Method::GET, certificates));
        assert!(!allows(Role::Operator, &Method::GET, certificates));
        assert!(!allows(Role::Reader, &Method::GET, certificates));
        assert!(allows(Role::Operator, &Method::POST, create));
        assert!(!allows(Role::Reader, &Method::POST, create));
        assert!(!allows(Role::Reader, &Method::DELETE, "/containers/a"));
        assert!(allows(Role::Reader, &Method::GET, "/containers/json"));
        assert!(!is_host_api("/hostile"));
    }
}
