//! Who a client certificate belongs to.

use keelson_http::Caller;
use keelson_model::host_api::Role;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clients::serial_text;

/// The caller of a verified client certificate. A certificate without one of our roles gets the
/// role reader.
pub fn of_certificate(certificate: &CertificateDer<'_>) -> Caller {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Caller::new(Role::Reader, "certificate that can't be read");
    };
    let subject = parsed.subject();
    let role = subject
        .iter_organization()
        .filter_map(|attribute| Role::parse(attribute.as_str().ok()?))
        .next()
        .unwrap_or(Role::Reader);
    let name = subject
        .iter_common_name()
        .find_map(|attribute| attribute.as_str().ok())
        .unwrap_or_default();
    let serial = serial_text(parsed.raw_serial());
    // Escaped, so that a name can't begin a new line of the log.
    Caller::new(role, format!("certificate {name:?} serial {serial}"))
}
