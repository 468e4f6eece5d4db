//! Many MQTT connections in a few threads: each thread waits for its own by epoll.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tern_bridge::front::frame::{self, Connect, Packet, Publish};
use tern_protocol::limits::MQTT_PACKET_MAX;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Connections that a thread begins in one tick: a broker meets a fleet, not a flood.
const BEGUN_EACH_TICK: usize = 40;
/// As many threads as the machine of the figures has cores.
const THREADS: usize = 2;

/// What lives on a connection.
pub(super) trait Member: Send {
    /// Its client id, and a user with a password where the broker wants them.
    fn login(&self) -> (String, Option<(String, String)>);
    /// It is connected; it subscribes by [`Wire::subscribe`].
    fn connected(&mut self, wire: &mut Wire);
    /// Every subscription stands.
    fn subscribed(&mut self, wire: &mut Wire);
    /// A message came.
    fn message(&mut self, publish: Publish, wire: &mut Wire);
    /// Time has passed.
    fn time(&mut self, wire: &mut Wire);
}

/// What a member sends with.
#[derive(Default)]
pub(super) struct Wire {
    out: VecDeque<u8>,
    id: u16,
}

impl Wire {
    /// Subscribes.
    pub(super) fn subscribe(&mut self, filters: Vec<(String, u8)>) {
        let id = self.next();
        self.put(&Packet::Subscribe { id, filters });
    }

    /// Publishes.
    pub(super) fn publish(&mut self, topic: String, qos: u8, payload: Vec<u8>) {
        let id = if qos == 0 { 0 } else { self.next() };
        self.put(&Packet::Publish(Publish { qos, topic, id, payload, ..Publish::default() }));
    }

    fn put(&mut self, packet: &Packet) {
        self.out.extend(packet.to_bytes());
    }

    fn next(&mut self) -> u16 {
        self.id = self.id % 0x7000 + 1;
        self.id
    }
}

struct Seat<M> {
    member: Arc<Mutex<M>>,
    stream: TcpStream,
    buffer: Vec<u8>,
    wire: Wire,
    full: bool,
}

/// Members on their connections, each until the crowd is dropped.
pub(super) struct Crowd<M> {
    /// The members, in the order in which they were given.
    pub(super) members: Vec<Arc<Mutex<M>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<M: Member + 'static> Crowd<M> {
    /// Connects everybody, little by little.
    pub(super) fn gather(address: SocketAddr, members: Vec<M>) -> Self {
        let members: Vec<_> = members.into_iter().map(|member| Arc::new(Mutex::new(member))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..THREADS).map(|thread| {
            let own: Vec<_> = members.iter().skip(thread).step_by(THREADS).cloned().collect();
            let stop = stop.clone();
            std::thread::spawn(move || run(address, own, &stop))
        });
        let threads = threads.collect();
        Self { members, stop, threads }
    }

    /// Counts members.
    pub(super) fn count(&self, which: impl Fn(&M) -> bool) -> usize {
        self.members.iter().filter(|member| which(&lock(member))).count()
    }
}

impl<M> Drop for Crowd<M> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it had to say is in the members.
            let _ended = thread.join();
        }
    }
}

/// Locks a member; a thread that panics with one has ended the measurement anyway.
pub(super) fn lock<M>(member: &Mutex<M>) -> std::sync::MutexGuard<'_, M> {
    member.lock().expect("no thread of the crowd panics")
}

/// Lets this process, and those that it starts, open as many files as the system allows.
pub(super) fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    raised.expect("a process may use what it is allowed");
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn run<M: Member>(address: SocketAddr, members: Vec<Arc<Mutex<M>>>, stop: &AtomicBool) {
    let poll = epoll::create(CreateFlags::CLOEXEC).expect("the system has epoll");
    let mut seats: Vec<Seat<M>> = Vec::new();
    let mut waiting = members.into_iter();
    let mut ticked = Instant::now();
    let mut ready: Vec<Event> = Vec::with_capacity(256);
    while !stop.load(Ordering::Relaxed) {
        ready.clear();
        let most = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut ready), Some(&most)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &ready {
            let place = usize::try_from(event.data.u64()).expect("a place in a list");
            attend(&poll, place, &mut seats[place]);
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            for member in waiting.by_ref().take(BEGUN_EACH_TICK) {
                let seat = Seat::begin(address, member);
                let data = EventData::new_u64(seats.len() as u64);
                epoll::add(&poll, &seat.stream, data, EventFlags::IN)
                    .expect("a connection can be waited for");
                seats.push(seat);
            }
            for (place, seat) in seats.iter_mut().enumerate() {
                lock(&seat.member).time(&mut seat.wire);
                seat.write(&poll, place);
            }
        }
    }
}

fn attend<M: Member>(poll: &std::os::fd::OwnedFd, place: usize, seat: &mut Seat<M>) {
    let mut part = [0; 16 * 1024];
    loop {
        match seat.stream.read(&mut part) {
            Ok(0) => panic!("the broker has closed a connection"),
            Ok(count) => seat.buffer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("a connection broke: {error}"),
        }
    }
    let mut done = 0;
    while let Some((packet, length)) =
        frame::read(&seat.buffer[done..], MQTT_PACKET_MAX).expect("a broker's packets parse")
    {
        done += length;
        let mut member = lock(&seat.member);
        match packet {
            Packet::ConnAck { code: 0, .. } => member.connected(&mut seat.wire),
            Packet::ConnAck { code, .. } => panic!("the broker refuses a client: code {code}"),
            Packet::SubAck { .. } => member.subscribed(&mut seat.wire),
            Packet::Publish(publish) => {
                let id = (publish.qos == 1).then_some(publish.id);
                member.message(publish, &mut seat.wire);
                // After what it brought about, as a client does that may die in between.
                if let Some(id) = id {
                    seat.wire.put(&Packet::PubAck(id));
                }
            }
            _ => {}
        }
    }
    seat.buffer.drain(..done);
    seat.write(poll, place);
}

impl<M: Member> Seat<M> {
    fn begin(address: SocketAddr, member: Arc<Mutex<M>>) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP connection has no delay");
        stream.set_nonblocking(true).expect("a TCP connection need not block");
        let (client_id, login) = lock(&member).login();
        let (user, password) = login.unzip();
        let connect = Connect {
            level: 4,
            client_id,
            clean_session: true,
            keep_alive: 1200,
            will: None,
            user,
            password: password.map(String::into_bytes),
        };
        let mut wire = Wire::default();
        wire.put(&Packet::Connect(Box::new(connect)));
        Self { member, stream, buffer: Vec::new(), wire, full: false }
    }

    /// Writes what the connection takes; the rest when it takes more.
    fn write(&mut self, poll: &std::os::fd::OwnedFd, place: usize) {
        while !self.wire.out.is_empty() {
            let (first, _) = self.wire.out.as_slices();
            match self.stream.write(first) {
                Ok(count) => drop(self.wire.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a connection broke: {error}"),
            }
        }
        let full = !self.wire.out.is_empty();
        if full != self.full {
            self.full = full;
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(poll, &self.stream, EventData::new_u64(place as u64), flags)
                .expect("a connection can be waited for");
        }
    }
}
