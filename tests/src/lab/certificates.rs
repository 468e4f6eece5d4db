//! An authority in a folder, with certificates of a broker, of one device and of one site.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Writes `ca.pem`, and certificate and key of `server`, for this machine, of `device`, and of `site`.
pub(super) fn make(folder: &Path, device: &str, site: &str) {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("the laboratory's folder can be written");
    };
    let params = |name: &str| {
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(hosts).expect("names of a host");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = || KeyPair::generate().expect("the system gives random numbers");
    let mut authority = params("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    write("ca.pem", authority.pem());
    for (file, name) in [("server", "server"), ("device", device), ("site", site)] {
        let (key, mut params) = (key(), params(name));
        if file == "site" {
            params.distinguished_name.push(DnType::OrganizationalUnitName, "site");
        }
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        write(&format!("{file}.pem"), certificate.pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}
