//! What an artifact requires of other components.

use super::*;

/// An artifact of this version that requires `needs`, as `component range`.
fn part(component: &str, version: &str, needs: &[(&str, &str)]) -> Artifact {
    let requires = needs.iter().map(|(of, range)| ((*of).to_owned(), range.parse().unwrap())).collect();
    let digest = Digest([1; 32]);
    Artifact { version: version.into(), requires, ..Artifact::new(component, 1, digest, digest) }
}

fn runs(components: &[(&str, &str)]) -> BTreeMap<String, String> {
    components.iter().map(|(component, version)| ((*component).into(), (*version).into())).collect()
}

#[test]
fn a_requirement_is_met_by_what_runs_or_by_what_comes_with_it() {
    let app = || part("app", "5", &[("modem", ">=4.2, <5")]);

    assert_eq!(satisfied(&[app()], &runs(&[("modem", "4.10")])), Ok(()));
    assert_eq!(satisfied(&[app(), part("modem", "4.2", &[])], &runs(&[])), Ok(()));
    let both = [app(), part("modem", "4.2", &[])];
    assert_eq!(satisfied(&both, &runs(&[("modem", "9")])), Ok(()), "what comes replaces what runs");
}

#[test]
fn what_is_not_met_is_named_with_what_there_is() {
    let app = || part("app", "5", &[("modem", ">=4.2, <5")]);
    let said = |artifacts: &[Artifact], running: &[(&str, &str)]| {
        satisfied(artifacts, &runs(running)).unwrap_err().to_string()
    };

    let old = said(&[app()], &[("modem", "4.1"), ("app", "4")]);
    assert_eq!(old, "app 5 requires modem >=4.2, <5, running is \"4.1\"");
    let unknown = said(&[app()], &[("app", "4")]);
    assert_eq!(unknown, "app 5 requires modem >=4.2, <5, and no version of modem is known");
    let brought = said(&[app(), part("modem", "5", &[])], &[("modem", "4.2")]);
    assert_eq!(brought, "app 5 requires modem >=4.2, <5, and the release brings \"5\"");
}

#[test]
fn a_version_that_cannot_be_compared_is_in_no_range_but_any() {
    let runs = runs(&[("modem", "…"), ("boot", "")]);

    assert!(satisfied(&[part("app", "5", &[("modem", ">=0")])], &runs).is_err());
    assert!(satisfied(&[part("app", "5", &[("boot", "<9")])], &runs).is_err());
    assert_eq!(satisfied(&[part("app", "5", &[("modem", "*"), ("boot", "*")])], &runs), Ok(()));
    assert!(satisfied(&[part("app", "5", &[("fpga", "*")])], &runs).is_err(), "it has to be there");
}

#[test]
fn a_contradiction_is_what_no_device_can_mend() {
    let app = part("app", "5", &[("modem", ">=4"), ("vendor", ">=9")]);
    let (new, old) = (part("modem", "4", &[]), part("modem", "3", &[]));

    assert_eq!(contradiction(std::slice::from_ref(&app)), Ok(()), "a device may run what it needs");
    assert_eq!(contradiction(&[app.clone(), new]), Ok(()));
    assert!(matches!(contradiction(&[app, old]), Err(Unmet { found: Found::Brought("3"), .. })));
}
