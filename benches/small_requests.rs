//! The floor under small requests: what the kernel takes for them, with no broker around it.
//!
//! A server of one thread waits in epoll, takes each request with one `recv`, writes it to a file where the case says so
//! (one `pwrite` a request), and answers with one `send`. That is all: no protocol, no order, no offsets. The client sends
//! one request on each of its connections and then takes the answers; so the server finds many ready at a time, which is
//! the cheapest that can be. In the waiting cases the connections are as many, but only a few of them send at a time, on a
//! grid, as consumers do whose long polls end together. Told is the CPU of the server's thread.

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::event::epoll;
use support::{Series, Table, scaled, thread_cpu_ns};

/// A produce request with one record of 100 bytes, and a fetch request of one partition, are about that large.
const REQUEST_BYTES: usize = 200;
const ANSWER_BYTES: usize = 60;
/// How often a group of waiting consumers is answered.
const GRID: Duration = Duration::from_millis(25);

struct Case {
    name: &'static str,
    connections: usize,
    /// Connections that send at a time.
    at_once: usize,
    writes: bool,
    us_per_request: Series,
}

/// Serves until all connections are closed; returns the requests and the CPU in nanoseconds that they took.
fn serve(connections: Vec<TcpStream>, file: Option<&File>) -> (u64, f64) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll works");
    for (index, connection) in connections.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, connection, data, epoll::EventFlags::IN | epoll::EventFlags::ET)
            .expect("epoll works");
    }
    let begun_ns = thread_cpu_ns();
    let (mut requests, mut open, mut position) = (0, connections.len(), 0);
    let mut buffer = [0; 4096];
    let mut events = Vec::with_capacity(1_024);
    while open > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).expect("epoll works");
        for event in &events {
            let mut connection = &connections[event.data.u64() as usize];
            let received = connection.read(&mut buffer).expect("the client sends");
            if received == 0 {
                epoll::delete(&poll, connection).expect("it was added"); // an end may be announced twice
                open -= 1;
                continue;
            }
            assert_eq!(received, REQUEST_BYTES, "one request is in flight on each connection");
            if let Some(file) = file {
                file.write_all_at(&buffer[..received], position).expect("the file takes it");
                position += received as u64;
            }
            connection.write_all(&buffer[..ANSWER_BYTES]).expect("the client listens");
            requests += 1;
        }
    }
    (requests, thread_cpu_ns() - begun_ns)
}

fn ask(connections: &mut [TcpStream]) {
    let mut answer = [0; ANSWER_BYTES];
    for connection in &mut *connections {
        connection.write_all(&[1; REQUEST_BYTES]).expect("the server listens");
    }
    for connection in connections {
        connection.read_exact(&mut answer).expect("the server answers");
    }
}

impl Case {
    fn round(&mut self) {
        let dir = support::temporary_directory();
        let file =
            self.writes.then(|| File::create(dir.path().join("requests")).expect("a file can be made"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        rustix::net::listen(&listener, 4_096).expect("a listening socket may listen for more");
        let address = listener.local_addr().expect("an address");
        let is_waiting = self.at_once < self.connections;
        let groups = if is_waiting { scaled(200, 4) } else { scaled(400, 10) };
        let (count, at_once) = (self.connections, self.at_once);
        let client = std::thread::spawn(move || {
            let connect = |_| {
                let connection = TcpStream::connect(address).expect("the server listens");
                connection.set_nodelay(true).expect("the option is there");
                connection
            };
            let mut connections: Vec<TcpStream> = (0..count).map(connect).collect();
            let (_sender, receiver_of_nothing) = std::sync::mpsc::channel::<()>(); // a timer
            for group in (0..count / at_once).cycle().take(groups) {
                ask(&mut connections[group * at_once..(group + 1) * at_once]);
                if is_waiting {
                    receiver_of_nothing.recv_timeout(GRID).expect_err("nobody sends");
                }
            }
        });
        let accept = |_| {
            let (connection, _) = listener.accept().expect("the client connects");
            connection.set_nodelay(true).expect("the option is there");
            connection
        };
        let connections = (0..self.connections).map(accept).collect();
        let (requests, cpu_ns) = serve(connections, file.as_ref());
        self.us_per_request.push(cpu_ns / 1e3 / requests as f64);
        client.join().expect("the client ends well");
    }
}

/// Both ends of 1,000 connections are descriptors of this process.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("a limit may be raised to its maximum");
}

fn main() {
    allow_descriptors();
    let case = |name, connections, at_once, writes| Case {
        name,
        connections,
        at_once,
        writes,
        us_per_request: Series::default(),
    };
    let mut cases = [
        case("1 connection, written", 1, 1, true),
        case("100 connections, written", 100, 100, true),
        case("100 connections", 100, 100, false),
        case("1,000 connections, 50 of them every 25 ms", 1_000, 50, false),
    ];
    support::interleave(&mut cases, Case::round);
    let mut table = Table::new(&["requests", "server's CPU us/request"]);
    for case in &cases {
        table.row(&[&case.name, &case.us_per_request]);
    }
    table.print("Small requests over loopback");
}
