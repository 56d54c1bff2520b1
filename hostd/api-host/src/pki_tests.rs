use std::os::unix::fs::PermissionsExt;

use keelson_model::error::ErrorKind;
use tempfile::TempDir;

use super::*;
use crate::caller;

fn names(list: &[&str]) -> ServerNames {
    let addresses: Vec<IpAddr> = list.iter().map(|text| text.parse().unwrap()).collect();
    ServerNames::from_parts("node", &addresses)
}

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "admin");
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

#[test]
fn keys_are_private_and_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let tls = dir.path().join("tls");
    let first = Pki::open(&tls).unwrap();
    let again = Pki::open(&tls).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
    first.ensure_server(&names(&[]), Timestamp::now()).unwrap();
    for key in ["ca-key.pem", "server-key.pem"] {
        let mode = fs::metadata(tls.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

/// A machine keeps its authority for twenty years, so every release must read and keep the files of
/// earlier ones. The key was made for this test only.
#[test]
fn the_authority_of_an_earlier_release_is_read() {
    let dir = TempDir::new().unwrap();
    let ca = include_str!("../tests/golden/ca.1.pem");
    let key = include_str!("../tests/golden/ca-key.1.pem");
    fs::write(dir.path().join("ca.pem"), ca).unwrap();
    fs::write(dir.path().join("ca-key.pem"), key).unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    assert_eq!(pki.ca(), ca);
    assert_eq!(
        pki.fingerprint(),
        "EC:8A:B1:35:53:46:46:99:92:59:B6:06:A7:A3:3C:35:C2:0F:B0:C8:1D:19:3D:A5:E3:4D:30:C1:11:CD:0A:29"
    );
    let (_, csr) = request();
    pki.issue(&csr, "ann", Role::Admin, Timestamp::now())
        .unwrap();
    let kept = |name| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        (kept("ca.pem").as_str(), kept("ca-key.pem").as_str()),
        (ca, key)
    );
}

#[test]
fn without_random_numbers_there_is_no_certificate() {
    assert!(check_random(Ok(16), [7; 16]).is_ok());
    for failed in [Ok(3), Err(io::Error::from(io::ErrorKind::PermissionDenied))] {
        let error = check_random(failed, [0; 16]).unwrap_err().to_string();
        assert!(error.contains("can't make a serial number"), "{error}");
    }
}

#[test]
fn what_is_issued_is_remembered_and_can_be_revoked() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let (_, csr) = request();
    let issued = pki
        .issue(&csr, "ann", Role::Operator, Timestamp::now())
        .unwrap();
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let [entry] = pki.clients().list().try_into().unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.role),
        ("ann", Some(Role::Operator))
    );
    assert_eq!(entry.serial.len(), 32);
    assert!(!pki.clients().is_revoked(&der));
    let by_serial = keelson_model::host_api::RevocationRequest {
        serial: Some(entry.serial.to_lowercase()),
        ..Default::default()
    };
    pki.clients().revoke(&by_serial, Timestamp::now()).unwrap();
    assert!(pki.clients().is_revoked(&der));
    assert!(Pki::open(dir.path()).unwrap().clients().is_revoked(&der));
}

#[test]
fn a_crash_before_the_certificate_is_repaired() {
    let dir = TempDir::new().unwrap();
    Pki::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    pki.ensure_server(&names(&[]), Timestamp::now()).unwrap();
    pki.server_config().unwrap();
}

#[test]
fn a_damaged_authority_is_reported_and_kept() {
    let dir = TempDir::new().unwrap();
    Pki::open(dir.path()).unwrap();
    fs::write(dir.path().join("ca-key.pem"), "nonsense").unwrap();
    let error = Pki::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ca-key.pem"), "{error}");
    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    assert!(Pki::open(dir.path()).is_err());
    assert!(!dir.path().join("ca-key.pem").exists());
}

#[test]
fn the_server_certificate_follows_names_and_time() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let now = Timestamp::now();
    let one = names(&["192.0.2.1"]);
    assert!(pki.ensure_server(&one, now).unwrap());
    assert!(!pki.ensure_server(&one, now).unwrap());
    let two = names(&["192.0.2.1", "2001:db8::1"]);
    assert!(pki.ensure_server(&two, now).unwrap());
    assert!(!pki.ensure_server(&two, now).unwrap());
    let late = now + ((SERVER_DAYS - RENEW_DAYS + 1) * 24).hours();
    assert!(pki.ensure_server(&two, late).unwrap());
    pki.server_config().unwrap();
}

#[test]
fn a_server_certificate_of_another_authority_is_replaced() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = Timestamp::now();
    let foreign = Pki::open(other.path()).unwrap();
    foreign.ensure_server(&names(&[]), now).unwrap();
    for file in ["server-cert.pem", "server-key.pem"] {
        fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
    }
    let pki = Pki::open(dir.path()).unwrap();
    assert!(pki.ensure_server(&names(&[]), now).unwrap());
}

#[test]
fn a_client_gets_its_role_and_nothing_that_it_asked_for_itself() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let (_, csr) = request();
    let issued = pki
        .issue(&csr, "dev", Role::Reader, Timestamp::now())
        .unwrap();
    assert_eq!(issued.ca, pki.ca());
    let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    assert_eq!(caller::of_certificate(&der).role, Role::Reader);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert!(pki.is_issuer_of(&parsed));
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.client_auth && !usage.value.server_auth);
}

#[test]
fn bad_requests_are_refused() {
    let dir = TempDir::new().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let (_, csr) = request();
    let now = Timestamp::now();
    for (csr, name) in [("", "a"), ("nonsense", "a"), (&csr, ""), (&csr, "a\nb")] {
        let error = pki.issue(csr, name, Role::Admin, now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{csr} {name:?}");
    }
}
