//! Who is connected here, and the routing of `d/…`, which never reaches the broker.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_protocol::id::DeviceId;
use tern_protocol::message::Revoked;

use super::frame::Publish;
use super::queue::{End, Origin, WriteQueue};
use crate::policy::{self, Client};

/// One connected client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) queue: WriteQueue,
    direct: Mutex<Direct>,
}

/// Filters below `d/`, each with its granted quality of service. A site has one for each of its devices.
#[derive(Debug, Default)]
struct Direct {
    exact: HashMap<String, u8>,
    wild: HashMap<String, u8>,
}

impl Direct {
    fn of(&mut self, filter: &str) -> &mut HashMap<String, u8> {
        if filter.contains(['+', '#']) { &mut self.wild } else { &mut self.exact }
    }
}

impl Session {
    pub(crate) fn new(client: Client, queue: WriteQueue) -> Self {
        Self { client, queue, direct: Mutex::default() }
    }

    fn direct(&self) -> MutexGuard<'_, Direct> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to a filter below `d/`.
    pub(crate) fn subscribe(&self, filter: &str, qos: u8) {
        self.direct().of(filter).insert(filter.to_owned(), qos);
    }

    /// Gives a filter up.
    pub(crate) fn unsubscribe(&self, filter: &str) {
        self.direct().of(filter).remove(filter);
    }

    /// Returns how many filters below `d/` there are.
    pub(crate) fn subscriptions(&self) -> usize {
        let direct = self.direct();
        direct.exact.len() + direct.wild.len()
    }

    /// Returns the granted quality of service for `topic`, if a filter covers it.
    pub(crate) fn hears(&self, topic: &str) -> Option<u8> {
        let direct = self.direct();
        let wild =
            direct.wild.iter().filter(|(filter, _)| policy::matches(filter, topic)).map(|(_, qos)| *qos);
        wild.chain(direct.exact.get(topic).copied()).max()
    }

    /// Queues a message below `d/` if this client subscribed to it.
    pub(crate) fn deliver(&self, message: &Publish) {
        if let Some(qos) = self.hears(&message.topic) {
            let message = Publish { qos: qos.min(message.qos), dup: false, retain: false, ..message.clone() };
            self.queue.push_message(&message, Origin::Front);
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: HashMap<Client, Arc<Session>>,
    /// Sites and services: few, asked for every message below `d/`.
    listeners: Vec<Arc<Session>>,
    stopped: bool,
    revoked: Revoked,
    /// Filters that the broker knows. It never frees one.
    filters: HashSet<String>,
    /// How many of them each device brought in.
    brought: HashMap<DeviceId, u16>,
}

impl State {
    fn refuses(&self, client: &Client) -> bool {
        matches!(client, Client::Device(device) if self.revoked.contains(device))
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether there is room for `client`. One that is here already takes its own place over.
    pub(crate) fn has_room(&self, client: &Client, most: usize) -> bool {
        let state = self.lock();
        let limited = !matches!(client, Client::Service(_));
        !limited || state.all.len() < most || state.all.contains_key(client)
    }

    /// Enters a session and closes an older one of the same client.
    pub(crate) fn enter(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        if state.stopped {
            session.queue.close(End::Stopped);
        }
        if state.refuses(&session.client) {
            // Revoked between its CONNECT and now.
            session.queue.close(End::Revoked);
        }
        if let Some(old) = state.all.insert(session.client.clone(), session.clone()) {
            old.queue.close(End::TakenOver);
            state.listeners.retain(|other| !Arc::ptr_eq(other, &old));
        }
        if !matches!(session.client, Client::Device(_)) {
            state.listeners.push(session.clone());
        }
    }

    /// Tells whether the service has revoked `client`.
    pub(crate) fn is_revoked(&self, client: &Client) -> bool {
        self.lock().refuses(client)
    }

    /// Takes in who is revoked from now on, closes their sessions, and returns how many that were.
    pub(crate) fn revoke(&self, revoked: Revoked) -> usize {
        let mut state = self.lock();
        state.revoked = revoked;
        let refused: Vec<_> =
            state.all.values().filter(|session| state.refuses(&session.client)).cloned().collect();
        refused.iter().for_each(|session| session.queue.close(End::Revoked));
        refused.len()
    }

    /// Removes a session, unless a newer one has taken its place.
    pub(crate) fn leave(&self, session: &Arc<Session>) {
        let mut state = self.lock();
        if state.all.get(&session.client).is_some_and(|current| Arc::ptr_eq(current, session)) {
            state.all.remove(&session.client);
        }
        state.listeners.retain(|other| !Arc::ptr_eq(other, session));
    }

    /// Hands a message below `d/<device>/` to whoever is connected here and subscribed; else it is dropped.
    pub(crate) fn route(&self, device: &DeviceId, message: &Publish) {
        let to: Vec<Arc<Session>> = {
            let state = self.lock();
            let device = state.all.get(&Client::Device(device.clone()));
            device.into_iter().chain(&state.listeners).cloned().collect()
        };
        to.iter().for_each(|session| session.deliver(message));
    }

    /// Returns the session of a client that is connected.
    pub(crate) fn find(&self, client: &Client) -> Option<Arc<Session>> {
        self.lock().all.get(client).cloned()
    }

    /// Returns the devices that are connected.
    pub(crate) fn devices(&self) -> BTreeSet<DeviceId> {
        let state = self.lock();
        let devices = state.all.keys().filter_map(|client| match client {
            Client::Device(device) => Some(device.clone()),
            _ => None,
        });
        devices.collect()
    }

    /// Tells whether `client` may have the broker learn `filter`.
    pub(crate) fn admits(&self, client: &Client, filter: &str, most: u16) -> bool {
        let mut state = self.lock();
        if state.filters.contains(filter) {
            return true;
        }
        if let Client::Device(device) = client {
            let brought = state.brought.entry(device.clone()).or_default();
            if *brought >= most {
                return false;
            }
            *brought += 1;
        }
        state.filters.insert(filter.to_owned());
        true
    }

    /// Returns how many clients are connected.
    pub(crate) fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// Closes every session and every one that comes.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.all.values().for_each(|session| session.queue.close(End::Stopped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(client: Client) -> Arc<Session> {
        Arc::new(Session::new(client, WriteQueue::new(1000)))
    }

    fn device(id: &str) -> Client {
        Client::Device(id.parse().unwrap())
    }

    #[test]
    fn a_session_that_was_taken_over_does_not_remove_its_successor() {
        let sessions = Sessions::default();
        let (old, new) = (session(device("r-1")), session(device("r-1")));
        sessions.enter(&old);
        sessions.enter(&new);

        sessions.leave(&old);
        assert_eq!(sessions.len(), 1);
        sessions.leave(&new);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn when_all_places_are_taken_a_client_may_still_take_over_its_own_and_the_service_always_enters() {
        let sessions = Sessions::default();
        sessions.enter(&session(device("r-1")));

        assert!(!sessions.has_room(&device("r-2"), 1));
        assert!(sessions.has_room(&device("r-1"), 1));
        assert!(sessions.has_room(&Client::Service("tern".into()), 1));
    }

    #[test]
    fn a_message_reaches_its_device_and_the_sites_that_listen_but_no_other_device() {
        let sessions = Sessions::default();
        let all: Vec<_> =
            [device("r-1"), device("r-2"), Client::Site("hut".parse().unwrap())].map(session).into();
        for session in &all {
            session.subscribe("ota/v1/acme/d/+/+", 1);
            sessions.enter(session);
        }
        let message = Publish { topic: "ota/v1/acme/d/r-1/in".into(), qos: 1, ..Publish::default() };

        sessions.route(&"r-1".parse().unwrap(), &message);

        let got: Vec<bool> = all.iter().map(|session| session.queue.try_next(0).is_some()).collect();
        assert_eq!(got, [true, false, true]);
    }

    #[test]
    fn who_is_revoked_is_closed_and_does_not_come_in_until_the_list_forgets_it() {
        let sessions = Sessions::default();
        let (stolen, other) = (session(device("r-1")), session(device("r-2")));
        sessions.enter(&stolen);
        sessions.enter(&other);

        let closed = sessions.revoke(Revoked::list(&["r-1".parse().unwrap()]).0);

        assert_eq!(closed, 1);
        assert_eq!((stolen.queue.end(), other.queue.end()), (Some(End::Revoked), None));
        assert!(sessions.is_revoked(&device("r-1")) && !sessions.is_revoked(&device("r-2")));
        let late = session(device("r-1"));
        sessions.enter(&late);
        assert_eq!(late.queue.end(), Some(End::Revoked));
        sessions.revoke(Revoked::default());
        assert!(!sessions.is_revoked(&device("r-1")));
    }

    #[test]
    fn a_device_that_makes_up_filters_is_stopped_and_known_filters_cost_nothing() {
        let sessions = Sessions::default();
        assert!(sessions.admits(&device("r-1"), "a", 2));
        assert!(sessions.admits(&device("r-1"), "b", 2));

        assert!(!sessions.admits(&device("r-1"), "c", 2));
        assert!(sessions.admits(&device("r-1"), "a", 2));
        assert!(sessions.admits(&device("r-2"), "c", 2));
    }
}
