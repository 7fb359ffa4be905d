//! The loopback interface and, if the machine has one, a network card.

use std::{net::UdpSocket, os::fd::AsFd, path::Path};

use anyhow::{Context as _, Result};
use rustix::ioctl::{Opcode, Setter, ioctl};

/// The address that QEMU's user network expects for its first guest. The host's side, 10.0.2.2, is
/// on the same link, so no route is needed to answer it.
const ADDRESS: [u8; 4] = [10, 0, 2, 15];
const NETMASK: [u8; 4] = [255, 255, 255, 0];

/// From include/uapi/linux/sockios.h.
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;
/// From include/uapi/linux/if.h.
const IFF_UP: u8 = 1;
const AF_INET: u8 = 2;

/// `struct ifreq` (include/uapi/linux/if.h): a name and a union of 24 bytes.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

impl InterfaceRequest {
    fn new(interface: &str, value: &[u8]) -> Self {
        let mut request = Self {
            name: [0; 16],
            value: [0; 24],
        };
        copy(&mut request.name, interface.as_bytes());
        copy(&mut request.value, value);
        request
    }

    fn up(interface: &str) -> Self {
        Self::new(interface, &[IFF_UP, 0])
    }

    /// `struct sockaddr_in`: family in the machine's order (x86), port, address.
    fn address(interface: &str, [a, b, c, d]: [u8; 4]) -> Self {
        Self::new(interface, &[AF_INET, 0, 0, 0, a, b, c, d])
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Brings up `lo`, and `eth0` if the machine has one.
pub(crate) fn up() -> Result<()> {
    // Any socket is a handle for interface requests.
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    request::<SIOCSIFFLAGS>(&socket, InterfaceRequest::up("lo")).context("cannot bring up lo")?;
    if Path::new("/sys/class/net/eth0").exists() {
        request::<SIOCSIFADDR>(&socket, InterfaceRequest::address("eth0", ADDRESS))
            .context("cannot set the address of eth0")?;
        request::<SIOCSIFNETMASK>(&socket, InterfaceRequest::address("eth0", NETMASK))
            .context("cannot set the netmask of eth0")?;
        request::<SIOCSIFFLAGS>(&socket, InterfaceRequest::up("eth0"))
            .context("cannot bring up eth0")?;
    }
    Ok(())
}

fn request<const OPCODE: Opcode>(
    socket: impl AsFd,
    request: InterfaceRequest,
) -> rustix::io::Result<()> {
    // SAFETY: the three opcodes used here read a `struct ifreq`, which
    // `InterfaceRequest` is, and write nothing.
    unsafe { ioctl(socket, Setter::<OPCODE, InterfaceRequest>::new(request)) }
}
