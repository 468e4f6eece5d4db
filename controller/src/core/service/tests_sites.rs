//! What the edge of a site, and its will, may bring about: that its devices count as away, and nothing else.

use tern_protocol::id::SiteId;
use tern_protocol::limits::SITE_STATUS_MAX;
use tern_protocol::topic::Topic;

use super::super::presence::SITES_MAX;
use super::*;

const WILL: &[u8] = br#"{"online":false,"queue":0,"seen":[]}"#;

impl Scene {
    /// Four devices, of which nothing is known.
    fn of_four() -> Self {
        let mut scene = Self::new();
        (2..5).for_each(|n| scene.add(&format!("cam-{n}")));
        scene
    }

    fn site_says(&mut self, site: &str, payload: &[u8]) {
        let topic = Topic::SiteStatus(site.parse::<SiteId>().unwrap());
        let step = self.step(Input::Message { topic, payload: payload.to_vec() });
        assert!(step.outputs.is_empty() && step.facts.is_empty(), "{step:?}");
    }

    /// What is known of devices: who is there (`+`), who is away (`-`).
    fn known(&self) -> String {
        let known = self.service.presences.iter();
        let texts = known.map(|(id, known)| format!("{id}{}", if known.is_online() { '+' } else { '-' }));
        texts.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_site_that_goes_takes_along_those_that_it_named_last_and_nobody_else() {
    let mut scene = Scene::of_four();
    scene.site_says("hut", br#"{"online":true,"queue":0,"seen":["cam-1","cam-2","stranger"]}"#);
    scene.site_says("barn", br#"{"online":true,"queue":3,"seen":["cam-4"],"site":{"hits":9,"more":1}}"#);
    assert_eq!(scene.known(), "cam-1+ cam-2+ cam-4+");
    // One has left it since.
    scene.site_says("hut", br#"{"online":true,"queue":0,"seen":["cam-1"]}"#);

    scene.site_says("hut", WILL);

    assert_eq!(scene.known(), "cam-1- cam-2+ cam-4+");
    scene.site_says("hut", WILL);
    scene.site_says("nowhere", WILL);
    assert_eq!(scene.known(), "cam-1- cam-2+ cam-4+");
    scene.site_says("hut", br#"{"online":true,"queue":7,"seen":["cam-1"]}"#);
    assert_eq!(scene.known(), "cam-1+ cam-2+ cam-4+");
}

#[test]
fn what_is_no_status_and_what_is_too_much_is_not_heard() {
    let mut scene = Scene::of_four();
    let good = br#"{"online":true,"queue":0,"seen":["cam-1"]}"#;
    let padded = |length: usize| {
        let mut payload = good.to_vec();
        payload.resize(length, b' ');
        payload
    };
    for junk in [&b""[..], b"{}", b"\xff", br#"{"online":true,"queue":0,"seen":["a/b"]}"#] {
        scene.site_says("hut", junk);
    }
    scene.site_says("hut", &padded(SITE_STATUS_MAX + 1));
    assert_eq!((scene.known().as_str(), scene.service.sites.len()), ("", 0));
    // The control: one byte less is heard.
    scene.site_says("hut", &padded(SITE_STATUS_MAX));
    assert_eq!(scene.known(), "cam-1+");

    for n in 0..SITES_MAX + 10 {
        scene.site_says(&format!("s-{n}"), br#"{"online":true,"queue":0,"seen":[]}"#);
    }
    scene.site_says("late", br#"{"online":true,"queue":0,"seen":["cam-2"]}"#);
    scene.site_says("hut", WILL);

    assert_eq!((scene.known().as_str(), scene.service.sites.len()), ("cam-1-", SITES_MAX));
}
