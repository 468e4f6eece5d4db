//! An authority in a folder, with certificates of a broker and of one device.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Writes `ca.pem`, and certificate and key of `server`, for localhost, and of `device`.
pub(super) fn make(folder: &Path, device: &str) {
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("the laboratory's folder can be written");
    };
    let params = |name: &str| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name of a host");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = || KeyPair::generate().expect("the system gives random numbers");
    let mut authority = params("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    write("ca.pem", authority.pem());
    for (file, name) in [("server", "server"), ("device", device)] {
        let key = key();
        let certificate = params(name).signed_by(&key, &authority).expect("a certificate");
        write(&format!("{file}.pem"), certificate.pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}
