use super::*;

fn fleet() -> FleetId {
    "acme".parse().unwrap()
}

fn device() -> Client {
    Client::Device("r-1".parse().unwrap())
}

fn site() -> Client {
    Client::Site("hut-3".parse().unwrap())
}

fn service() -> Client {
    Client::Service("tern".into())
}

fn own_topics() -> Vec<String> {
    let id: DeviceId = "r-1".parse().unwrap();
    UpKind::ALL.iter().map(|kind| Topic::Up(id.clone(), *kind).render(&fleet())).collect()
}

fn own_filters() -> Vec<String> {
    let (product, region) = ("ap".parse().unwrap(), "eu".parse().unwrap());
    let topics = Topic::of_device(&"r-1".parse().unwrap(), &product, &region);
    topics.iter().chain([&Topic::Root(product, 7)]).map(|t| t.render(&fleet())).collect()
}

fn subscribes(client: &Client, filter: &str) -> bool {
    may_subscribe(&fleet(), client, filter).is_ok()
}

fn publishes(client: &Client, topic: &str) -> bool {
    may_publish(&fleet(), client, topic, false, 10).is_ok()
}

#[test]
fn a_device_may_do_all_that_its_protocol_needs() {
    for topic in own_topics() {
        assert!(publishes(&device(), &topic), "{topic}");
    }
    for filter in own_filters() {
        assert!(subscribes(&device(), &filter), "{filter}");
    }
}

#[test]
fn a_device_may_nothing_in_the_name_of_another() {
    let other = Client::Device("r-2".parse().unwrap());
    for topic in own_topics() {
        assert!(!publishes(&other, &topic), "{topic}");
    }
    for filter in own_filters().iter().filter(|f| f.contains("/d/") || f.contains("/eu/")) {
        assert!(!subscribes(&other, filter), "{filter}");
    }
}

#[test]
fn replacing_any_level_of_an_allowed_filter_by_a_wildcard_makes_it_forbidden() {
    for filter in own_filters() {
        let levels: Vec<&str> = filter.split('/').collect();
        for at in 0..levels.len() {
            for wild in ["+", "#"] {
                let mut changed = levels.clone();
                changed[at] = wild;
                assert!(!subscribes(&device(), &changed.join("/")), "{changed:?}");
                assert!(!subscribes(&device(), &changed[..=at].join("/")), "{changed:?}");
            }
        }
    }
    for filter in [
        "ota/v1/acme/revoked",
        "#",
        "+",
        "$share/g/ota/v1/acme/p/ap/head",
        "$SYS/#",
        "/ota/v1/acme/p/ap/head",
        "",
    ] {
        assert!(!subscribes(&device(), filter), "{filter}");
    }
}

#[test]
fn a_device_may_not_publish_what_it_reads() {
    for filter in own_filters() {
        assert!(!publishes(&device(), &filter), "{filter}");
    }
}

#[test]
fn only_the_service_retains() {
    for topic in own_topics() {
        let verdict = may_publish(&fleet(), &device(), &topic, true, 10);
        assert!(matches!(verdict, Err(Denied::Retain { .. })), "{topic}");
    }
    assert!(may_publish(&fleet(), &site(), "ota/v1/acme/site/hut-3/status", true, 10).is_err());
    assert!(may_publish(&fleet(), &service(), "ota/v1/acme/p/ap/head", true, 10).is_ok());
}

#[test]
fn a_site_forwards_devices_and_owns_its_status_only() {
    for topic in own_topics() {
        assert!(publishes(&site(), &topic), "{topic}");
    }
    assert!(publishes(&site(), "ota/v1/acme/site/hut-3/status"));
    assert!(!publishes(&site(), "ota/v1/acme/site/hut-4/status"));
    assert!(!publishes(&site(), "ota/v1/acme/p/ap/head"));
    assert!(!publishes(&site(), "ota/v1/acme/d/r-1/in"));
    assert!(!publishes(&site(), "ota/v1/acme/revoked"));
    for filter in ["p/#", "p/ap/head", "d/+/+", "d/r-1/in", "revoked"] {
        assert!(subscribes(&site(), &format!("ota/v1/acme/{filter}")), "{filter}");
    }
    for filter in ["#", "up/#", "site/#", "d/#", "+/ap/head"] {
        assert!(!subscribes(&site(), &format!("ota/v1/acme/{filter}")), "{filter}");
    }
}

#[test]
fn a_site_cannot_put_a_device_into_a_foreign_partition() {
    let topic = own_topics().remove(0);
    let partition = topic.split('/').nth(4).unwrap().to_owned();
    let foreign = if partition == "00" { "01" } else { "00" };

    assert!(!publishes(&site(), &topic.replace(&format!("/{partition}/"), &format!("/{foreign}/"))));
}

#[test]
fn the_service_stays_in_its_fleet_and_away_from_shared_subscriptions() {
    for filter in ["ota/v1/acme/#", "ota/v1/acme/up/+/+/report", "ota/v1/acme/d/r-1/in"] {
        assert!(subscribes(&service(), filter), "{filter}");
    }
    for filter in [
        "#",
        "ota/v1/acme2/#",
        "ota/v1/+/up/#",
        "$share/g/ota/v1/acme/#",
        "ota/v1/acme/u#",
        "ota/v1/acme/#/x",
    ] {
        assert!(!subscribes(&service(), filter), "{filter}");
    }
}

#[test]
fn only_topics_of_devices_are_routed_by_the_front() {
    let route = |filter| may_subscribe(&fleet(), &service(), filter);
    assert_eq!(route("ota/v1/acme/d/+/+"), Ok(Route::Direct));
    assert_eq!(route("ota/v1/acme/p/#"), Ok(Route::Broker));
    assert_eq!(route("ota/v1/acme/#"), Ok(Route::Broker));
}

#[test]
fn a_message_above_the_ceiling_of_its_topic_is_refused() {
    let topic = own_topics().remove(0);
    let publish = |length| may_publish(&fleet(), &device(), &topic, false, length);
    assert!(publish(limits::PRESENTED_MAX).is_ok());
    assert!(matches!(publish(limits::PRESENTED_MAX + 1), Err(Denied::Size { .. })));
}

#[test]
fn filters_match_as_the_standard_says() {
    for (filter, topic, expected) in [
        ("a/b", "a/b", true),
        ("a/+", "a/b", true),
        ("a/#", "a/b/c", true),
        ("a/#", "a", true),
        ("a/+", "a", false),
        ("a/+", "a/b/c", false),
        ("a/b", "a/c", false),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
}
