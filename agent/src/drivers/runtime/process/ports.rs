//! Which of the node's ports a task gets.
//!
//! A free one is found by binding it: the kernel knows. It is released before the program binds it, so ports of tasks that
//! have not done so yet are kept out by name.

use crate::model::service::PortSpec;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, TcpListener, ToSocketAddrs, UdpSocket},
};

/// Fresh ports looked at before it is given up.
const TRIES: usize = 64;

enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Bound {
    fn open(ip: IpAddr, port: u16, udp: bool) -> io::Result<Bound> {
        if udp { UdpSocket::bind((ip, port)).map(Bound::Udp) } else { TcpListener::bind((ip, port)).map(Bound::Tcp) }
    }

    fn port(&self) -> io::Result<u16> {
        Ok(match self {
            Bound::Tcp(socket) => socket.local_addr()?,
            Bound::Udp(socket) => socket.local_addr()?,
        }
        .port())
    }
}

/// Declared port to the node's: public ones as they are, the others as `before` if still free, else any free one.
///
/// # Errors
/// A public port is taken, or there is none left; the words are for a person.
pub fn assign(host: &str, wanted: &[PortSpec], before: &BTreeMap<u16, u16>, taken: &BTreeSet<u16>) -> Result<BTreeMap<u16, u16>, String> {
    let ip = own_address(host);
    let mut ports = BTreeMap::new();
    // Held until all are found, so that two of them are not the same.
    let mut held = Vec::new();
    for spec in wanted {
        if let Some(public) = spec.public {
            match Bound::open(ip, public, spec.udp) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(format!("port {public} is taken on this node")),
                // The program may have rights that we lack; it will say so itself.
                Err(_) => {}
                Ok(bound) => held.push(bound),
            }
            ports.insert(spec.port, public);
            continue;
        }
        let kept = before.get(&spec.port).and_then(|port| Bound::open(ip, *port, spec.udp).ok());
        let mut found = kept;
        for _ in 0..TRIES {
            if found.is_some() {
                break;
            }
            let bound = Bound::open(ip, 0, spec.udp).map_err(|error| format!("no free port on {ip}: {error}"))?;
            let port = bound.port().map_err(|error| format!("no free port on {ip}: {error}"))?;
            if taken.contains(&port) {
                // Kept bound, so that the next one is another.
                held.push(bound);
            } else {
                found = Some(bound);
            }
        }
        let bound = found.ok_or_else(|| format!("no free port on {ip} within {TRIES} tries"))?;
        ports.insert(spec.port, bound.port().map_err(|error| error.to_string())?);
        held.push(bound);
    }
    Ok(ports)
}

/// The address to look at: the node's own, or all of them if others know it by one that no interface has.
fn own_address(host: &str) -> IpAddr {
    let all = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let ip = match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => ip,
        Err(_) => (host, 0).to_socket_addrs().ok().and_then(|mut found| found.next()).map_or(all, |address| address.ip()),
    };
    if UdpSocket::bind((ip, 0)).is_ok() { ip } else { all }
}
