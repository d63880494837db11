//! The floor under a fetch: what the kernel takes to send resident bytes over loopback, with no broker around it.
//!
//! One thread sends, another receives and throws away. Bytes that lie in memory go by plain sends (as ours do, from the
//! tail cache or a mapping), those of a file in the page cache by sendfile (as Kafka's do). Told is the CPU of the sending
//! thread, which also does the receiver's share of the protocol on loopback, as a broker's does. No broker can be below.

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use logstreams::base::clock;
use support::{Series, Table, scaled, thread_cpu_ns};

const CHUNK_BYTES: usize = 1 << 20;
/// What is sent over and over; more than a processor's caches hold.
const SOURCE_BYTES: usize = 256 << 20;

#[derive(Debug, Clone, Copy)]
enum Way {
    Send,
    Sendfile,
}

struct Case {
    way: Way,
    name: &'static str,
    cpu_s_per_gb: Series,
    gb_per_s: Series,
}

fn send(way: Way, stream: &mut TcpStream, source: &[u8], file: &File, total: usize) {
    let mut sent = 0;
    while sent < total {
        let from = sent % SOURCE_BYTES;
        match way {
            Way::Send => stream.write_all(&source[from..from + CHUNK_BYTES]).expect("the receiver is there"),
            Way::Sendfile => {
                let (mut position, end) = (from as u64, from + CHUNK_BYTES);
                while position < end as u64 {
                    let left = end - position as usize;
                    rustix::fs::sendfile(&*stream, file, Some(&mut position), left).expect("sendfile works");
                }
            }
        }
        sent += CHUNK_BYTES;
    }
}

impl Case {
    fn round(&mut self, source: &[u8], file: &File) {
        let total = scaled(4 << 30, 2 * CHUNK_BYTES);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let receiver = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("the sender listens");
            let mut buffer = vec![0; CHUNK_BYTES];
            while stream.read(&mut buffer).expect("the sender sends") > 0 {}
        });
        let (mut stream, _) = listener.accept().expect("the receiver connects");
        let (begun, cpu_ns) = (clock::monotonic(), thread_cpu_ns());
        send(self.way, &mut stream, source, file, total);
        let gigabytes = total as f64 / 1e9;
        self.cpu_s_per_gb.push((thread_cpu_ns() - cpu_ns) / 1e9 / gigabytes);
        self.gb_per_s.push(gigabytes / begun.elapsed().as_secs_f64());
        drop(stream);
        receiver.join().expect("the receiver ends well");
    }
}

fn main() {
    let dir = support::temporary_directory();
    let path = dir.path().join("source");
    let source = vec![7; SOURCE_BYTES];
    std::fs::write(&path, &source).expect("the source can be written");
    let file = File::open(&path).expect("the source is there");
    let case = |way, name| Case { way, name, cpu_s_per_gb: Series::default(), gb_per_s: Series::default() };
    let mut cases =
        [case(Way::Send, "send from memory"), case(Way::Sendfile, "sendfile from the page cache")];
    support::interleave(&mut cases, |case| case.round(&source, &file));
    let mut table = Table::new(&["way", "sender's CPU s/GB", "GB/s"]);
    for case in &cases {
        table.row(&[&case.name, &case.cpu_s_per_gb, &case.gb_per_s]);
    }
    table.print("Resident bytes over loopback, 1 MiB at a time");
}
